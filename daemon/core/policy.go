package core

import (
	"errors"

	"cubicle/daemon/policy"
)

// PolicyBroken tells people, with the event policy-broken, that the policy
// has a fault and every call is denied.
func (c *Core) PolicyBroken(fault error) {
	args := []Arg{{"error", fault.Error()}}
	if all, ok := errors.AsType[policy.Errors](fault); ok && len(all) > 0 {
		args = []Arg{{"file", all[0].File}, {"error", all[0].Error()}}
	}
	c.must(func(t *tx) { t.emit(nil, "policy-broken", args...) })
}
