package store

import (
	"fmt"
	"maps"
	"slices"

	"cubicle/daemon/device"
)

// deviceFile is an assignment of a device in qube.toml.
type deviceFile struct {
	Class   string            `toml:"class"`
	Backend string            `toml:"backend"`
	Port    string            `toml:"port"`
	ID      string            `toml:"id"`
	Mode    string            `toml:"mode"`
	Options map[string]string `toml:"options,omitempty"`
}

func decodeDevices(list []deviceFile) ([]device.Assignment, error) {
	var out []device.Assignment
	for _, f := range list {
		a := device.Assignment{
			Device:  device.Device{Class: device.Class(f.Class), Backend: f.Backend, Port: f.Port, ID: f.ID},
			Mode:    device.Mode(f.Mode),
			Options: maps.Clone(f.Options),
		}
		if err := a.Check(); err != nil {
			return nil, fmt.Errorf("device: %w", err)
		}
		if slices.ContainsFunc(out, func(o device.Assignment) bool { return o.Device == a.Device }) {
			return nil, fmt.Errorf("device: %s is assigned twice", a.Key())
		}
		out = append(out, a)
	}
	slices.SortFunc(out, device.Compare)
	return out, nil
}

func encodeDevices(list []device.Assignment) []deviceFile {
	var out []deviceFile
	for _, a := range list {
		out = append(out, deviceFile{string(a.Class), a.Backend, a.Port, a.ID, string(a.Mode), a.Options})
	}
	return out
}
