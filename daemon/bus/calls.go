package bus

import (
	"math"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/calls"
	"cubicle/daemon/core"
	"cubicle/daemon/policy"
)

// recentCalls are the last calls of a qube or to it, or of all for an empty
// name, the newest first. Times are in microseconds, the first one since 1970.
func (m *member) recentCalls(qube string, limit uint32) []map[string]dbus.Variant {
	list := []map[string]dbus.Variant{}
	if m.s.RecentCalls == nil {
		return list
	}
	for _, e := range m.s.RecentCalls(qube, int(min(limit, math.MaxInt32))) {
		list = append(list, describeCall(e))
	}
	return list
}

func describeCall(e calls.Entry) map[string]dbus.Variant {
	took := func(d time.Duration) int64 { return d.Microseconds() }
	return variants(properties{
		"Time": e.Time.UnixMicro(), "Source": e.Source, "Service": e.Service, "Asked": e.Asked, "Target": e.Target,
		"Allowed": e.Allowed, "Running": e.Running, "Rule": e.Rule, "Reason": e.Reason, "User": e.User, "Error": e.Error,
		"PolicyTime": took(e.Policy), "AskTime": took(e.Ask), "StartTime": took(e.Start), "ConnectTime": took(e.Connect),
		"ServiceTime": took(e.Run),
	})
}

// permission is one of Permissions: source, target, service, whether a person
// is asked.
type permission struct {
	Source, Target, Service string
	Ask                     bool
}

func (m *member) permissions(qube string) ([]any, error) {
	list := []permission{}
	if m.s.Permissions == nil {
		return []any{list}, nil
	}
	edges, err := m.s.Permissions(qube)
	if err != nil {
		return nil, core.Failf(core.General, "%v", err)
	}
	for _, e := range edges {
		list = append(list, permission{e.Source, e.Target, e.Service, e.Ask})
	}
	return []any{list}, nil
}

// explain answers result, target, targets to choose from, rule and reason.
func (m *member) explain(source, target, service string) ([]any, error) {
	if m.s.Explain == nil {
		return nil, core.Failf(core.NotImplemented, "there is no policy")
	}
	e, err := m.s.Explain(policy.Question{Source: source, Target: target, Service: service})
	if err != nil {
		return nil, core.Failf(core.General, "%v", err)
	}
	why := e.Reason
	if text := policy.Reason(e.Reason).Explain(); text != "" {
		why = text
	}
	return []any{string(e.Result), e.Target, append([]string{}, e.Targets...), e.Rule, why}, nil
}
