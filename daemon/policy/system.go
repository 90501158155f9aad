package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Domain is what the rules know of a qube (spec/policy.md §8).
type Domain struct {
	Name          string   `json:"-"`
	UUID          string   `json:"uuid"`
	Class         string   `json:"type"`
	Tags          []string `json:"tags"`
	Base          bool     `json:"template_for_dispvms"`
	DefaultDispVM string   `json:"default_dispvm"`
	State         string   `json:"power_state"`
	Icon          string   `json:"icon"`
	Label         string   `json:"label"`
	GUIVM         string   `json:"guivm"`
	Internal      any      `json:"internal"`
	RelayVM       string   `json:"relayvm"`
	TransportRPC  string   `json:"transport_rpc"`

	index int // in System.domains
}

func (d *Domain) isAdmin() bool { return d.Name == "dom0" }

// isInternal: upstream sends the feature's value, or nothing.
func (d *Domain) isInternal() bool {
	return d.Internal != nil && d.Internal != "" && d.Internal != false
}

func (d *Domain) has(tag string) bool { return slices.Contains(d.Tags, tag) }

// System is the qubes that there are, at one moment. It is never changed.
type System struct {
	domains []*Domain // by name
	known   map[string]*Domain
}

// NewSystem makes a system of qubes; it keeps the list.
func NewSystem(domains []*Domain) (*System, error) {
	s := &System{domains: domains, known: make(map[string]*Domain, 2*len(domains))}
	slices.SortFunc(s.domains, func(a, b *Domain) int { return strings.Compare(a.Name, b.Name) })
	for i, d := range s.domains {
		d.index = i
		if d.Name == "" || d.Name[0] == '@' || strings.HasPrefix(d.Name, "uuid:") || s.known[d.Name] != nil {
			return nil, fmt.Errorf("system info: a second or impossible qube %q", cut(d.Name))
		}
		s.known[d.Name] = d
		if d.UUID == "" {
			continue
		}
		if s.known["uuid:"+d.UUID] != nil {
			return nil, fmt.Errorf("system info: a second qube with UUID %q", cut(d.UUID))
		}
		s.known["uuid:"+d.UUID] = d
	}
	return s, nil
}

// ParseSystem reads what internal.GetSystemInfo answers.
func ParseSystem(text []byte) (*System, error) {
	var info struct {
		Domains map[string]*Domain `json:"domains"`
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return nil, fmt.Errorf("system info: %w", err)
	}
	var list []*Domain
	for name, d := range info.Domains {
		if d == nil {
			return nil, fmt.Errorf("system info: nothing is said of %q", cut(name))
		}
		d.Name = name
		list = append(list, d)
	}
	return NewSystem(list)
}

// Lookup finds a qube by its name, or by uuid:UUID.
func (s *System) Lookup(name string) (*Domain, bool) {
	d, ok := s.known[name]
	return d, ok
}

// base finds the base of disposables by name or uuid:UUID.
func (s *System) base(name string) *Domain {
	if d := s.known[name]; d != nil && d.Base {
		return d
	}
	return nil
}

// defaultBase is the base of a qube's disposables, nil if it has none.
func (s *System) defaultBase(d *Domain) *Domain { return s.base(d.DefaultDispVM) }
