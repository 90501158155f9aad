package calls

import (
	"sync"

	"cubicle/daemon/core"
	"cubicle/daemon/policy"
	"cubicle/daemon/qube"
)

// systems makes of a View what the rules know of qubes (spec/policy.md §8),
// and keeps the last one.
type systems struct {
	mu     sync.Mutex // guards what follows
	view   *core.View
	states []qube.State // of the View's qubes
	last   *policy.System
	number uint64 // counts the systems
}

// of is the system of a View, and its number.
func (s *systems) of(v *core.View) (*policy.System, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == v {
		return s.last, s.number, nil
	}
	// Views that differ in jobs and measurements alone have one system.
	qubes := v.Qubes()
	if s.view != nil && s.view.Change() == v.Change() && s.same(qubes) {
		s.view = v
		return s.last, s.number, nil
	}
	dom0, _ := v.Lookup(qube.Dom0UUID)
	domains := []*policy.Domain{domainOf(dom0)}
	states := make([]qube.State, 0, len(qubes))
	for _, q := range qubes {
		domains, states = append(domains, domainOf(q)), append(states, q.State())
	}
	system, err := policy.NewSystem(domains)
	if err != nil {
		return nil, 0, err
	}
	s.view, s.states, s.last = v, states, system
	s.number++
	return system, s.number, nil
}

// same tells whether the qubes, of which none has come or gone, do what they
// did. What a qube does can change without counting as a change of the View.
func (s *systems) same(qubes []core.Qube) bool {
	if len(qubes) != len(s.states) {
		return false
	}
	for i, q := range qubes {
		if q.State() != s.states[i] {
			return false
		}
	}
	return true
}

func domainOf(q core.Qube) *policy.Domain {
	d := &policy.Domain{
		Name: string(q.Name()), UUID: string(q.UUID()), Class: string(q.Class()), Tags: q.Tags(),
		Base: q.Property("template_for_dispvms") == "True", DefaultDispVM: q.Property("default_dispvm"),
		State: string(q.State()), Icon: q.Property("icon"), Label: q.Label().Hex(), GUIVM: q.Property("guivm"),
		RelayVM: q.Property("relayvm"), TransportRPC: q.Property("transport_rpc"),
	}
	if hidden, _ := q.Feature("internal"); hidden != "" {
		d.Internal = hidden
	}
	return d
}
