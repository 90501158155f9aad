package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/BurntSushi/toml"

	"cubicle/daemon/qube"
)

type systemToml struct {
	Properties map[string]any       `toml:"properties"`
	Labels     map[string]labelFile `toml:"labels"`
	Dom0       struct {
		Properties map[string]any    `toml:"properties"`
		Features   map[string]string `toml:"features"`
		Tags       []string          `toml:"tags"`
		Devices    []deviceFile      `toml:"devices"`
	} `toml:"dom0"`
	Pools map[string]Pool `toml:"pools"`
}

type labelFile struct {
	Index int    `toml:"index"`
	Color string `toml:"color"`
}

// labels checks those of a file.
func labels(file map[string]labelFile) ([]qube.Label, error) {
	var list []qube.Label
	used := map[int]bool{}
	for name, l := range file {
		label, err := qube.NewLabel(name, l.Color)
		if err != nil {
			return nil, fmt.Errorf("label %s: %w", name, err)
		}
		if label.Index = l.Index; l.Index <= len(qube.Labels) || used[l.Index] {
			return nil, fmt.Errorf("label %s: the index %d is taken", name, l.Index)
		}
		if _, builtIn := qube.FindLabel(qube.Labels[:], name); builtIn {
			return nil, fmt.Errorf("label %s: it is built in", name)
		}
		used[l.Index] = true
		list = append(list, label)
	}
	slices.SortFunc(list, qube.ByIndex)
	return list, nil
}

func (s *Store) loadSystem() (System, error) {
	sys := System{Properties: map[string]string{}, unknown: map[string]any{}}
	sys.Admin = Record{Name: qube.Dom0, UUID: qube.Dom0UUID, Class: qube.AdminVM}.Clone()
	raw, err := read(filepath.Join(s.dir, systemFile))
	if errors.Is(err, fs.ErrNotExist) {
		return sys, nil
	}
	if err != nil {
		return System{}, fmt.Errorf("load the system's state: %w", err)
	}
	var f systemToml
	_, err = toml.Decode(string(raw), &f)
	if err == nil {
		_, err = toml.Decode(string(raw), &sys.unknown)
	}
	var own, dom0 map[string]string
	if err == nil {
		sys.Labels, err = labels(f.Labels)
	}
	if err == nil {
		own, err = texts(f.Properties, qube.LookupSystem)
	}
	if err == nil {
		dom0, err = texts(f.Dom0.Properties, lookupAdmin)
	}
	if err == nil {
		sys.Admin.Devices, err = decodeDevices(f.Dom0.Devices)
	}
	if err == nil {
		err = checkPools(f.Pools)
	}
	if err != nil {
		sys.unknown, sys.Labels = map[string]any{}, nil
		sys.Damage = fmt.Errorf("%s is damaged: repair or remove it, and restart qubesd: %w", filepath.Join(s.dir, systemFile), err)
		return sys, nil
	}
	sys.Properties, sys.Admin.Properties = own, dom0
	sys.Pools = f.Pools
	sys.Admin.Features, sys.Admin.Tags = f.Dom0.Features, f.Dom0.Tags
	sys.Admin = sys.Admin.Clone()
	return sys, nil
}

func lookupAdmin(n string) (qube.Property, bool) { return qube.Lookup(qube.AdminVM, n) }

// SaveSystem writes the global state.
func (s *Store) SaveSystem(sys System) error { return s.Commit(nil, &sys) }

func (sys System) encode() ([]byte, error) {
	if sys.Damage != nil {
		return nil, sys.Damage
	}
	m := maps.Clone(sys.unknown)
	if m == nil {
		m = map[string]any{}
	}
	props := values(sys.Properties, m["properties"], qube.LookupSystem)
	set(m, "properties", props, len(props) > 0)
	own := map[string]any{}
	for _, l := range sys.Labels {
		own[l.Name] = map[string]any{"index": l.Index, "color": l.Hex()}
	}
	set(m, "labels", own, len(own) > 0)
	old, _ := m["dom0"].(map[string]any)
	admin := maps.Clone(old)
	if admin == nil {
		admin = map[string]any{}
	}
	adminProps := values(sys.Admin.Properties, admin["properties"], lookupAdmin)
	set(admin, "properties", adminProps, len(adminProps) > 0)
	set(admin, "features", sys.Admin.Features, len(sys.Admin.Features) > 0)
	set(admin, "tags", sys.Admin.Tags, len(sys.Admin.Tags) > 0)
	set(admin, "devices", encodeDevices(sys.Admin.Devices), len(sys.Admin.Devices) > 0)
	set(m, "dom0", admin, len(admin) > 0)
	set(m, "pools", sys.Pools, len(sys.Pools) > 0)
	return encode(m)
}
