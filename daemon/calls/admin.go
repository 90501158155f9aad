package calls

import (
	"slices"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/admin"
	"cubicle/daemon/policy"
	"cubicle/daemon/qube"
)

// viewAge is how old the policy may be by which lists and events are
// filtered: they ask for every qube and every event.
const viewAge = 20 * time.Millisecond

// maxVerdicts is how many verdicts are kept.
const maxVerdicts = 1 << 16

// views keeps what the policy says of the Admin API, as long as it and the
// qubes stay the same.
type views struct {
	mu       sync.Mutex // guards what follows
	on       reading
	verdicts map[adminCall]policy.Action
}

// adminCall is a question about the Admin API.
type adminCall struct {
	source, dest qube.UUID
	method, arg  string
}

var _ admin.Policy = (*Calls)(nil)

// Allows implements admin.Policy: dom0 may do everything, others what the
// policy allows them to call in dom0 for that qube (spec/admin-api.md §1.1).
// A call itself was decided when it was made, with the person's word where
// that was wanted; what a list or a stream shows must be allowed as such.
func (c *Calls) Allows(q admin.Question) bool {
	if q.Source.IsAdmin() {
		return true
	}
	if strings.HasPrefix(q.Method, "internal.") {
		return false
	}
	argument := "+" + q.Arg
	if policy.CheckService(q.Method, argument) != nil {
		return false
	}
	rules, n, err := c.rules.recent(viewAge)
	if err != nil {
		return false
	}
	system, m, err := c.systems.of(c.o.Core.View())
	if err != nil {
		return false
	}
	key := adminCall{source: q.Source.UUID(), method: q.Method, arg: q.Arg}
	r := policy.Request{Service: q.Method, Argument: argument, Source: string(q.Source.Name())}
	if q.Known {
		key.dest, r.Target = q.Dest.UUID(), string(q.Dest.Name())
	}
	c.views.mu.Lock()
	defer c.views.mu.Unlock()
	if on := (reading{n, m}); c.views.on != on || len(c.views.verdicts) >= maxVerdicts {
		c.views.on, c.views.verdicts = on, map[adminCall]policy.Action{}
	}
	says, known := c.views.verdicts[key]
	if !known {
		says = inDom0(rules.Decide(system, r))
		c.views.verdicts[key] = says
	}
	return says == policy.Allow || says == policy.Ask && !q.Shown
}

// inDom0 is what a decision says of a call that arrives in dom0.
func inDom0(d policy.Decision) policy.Action {
	const here = string(qube.Dom0)
	switch {
	case d.Action == policy.Allow && d.Target == here, d.Action == policy.Ask && slices.Contains(d.Targets, here):
		return d.Action
	}
	return policy.Deny
}
