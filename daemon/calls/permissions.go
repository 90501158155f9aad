package calls

import (
	"fmt"

	"cubicle/daemon/policy"
)

// Permissions are the calls that the policy allows, or would ask about, from a
// qube and to it (policy.Policy.Around), as things stand.
func (c *Calls) Permissions(qube string) ([]policy.Edge, error) {
	rules, system, err := c.standing()
	if err != nil {
		return nil, err
	}
	return rules.Around(system, qube), nil
}

// Explain tells what would become of a call now, and why. Nothing is called.
func (c *Calls) Explain(q policy.Question) (policy.Explanation, error) {
	rules, system, err := c.standing()
	if err != nil {
		return policy.Explanation{}, err
	}
	return policy.Explain(rules, system, q), nil
}

// standing is the policy and what it is about, as both are now.
func (c *Calls) standing() (*policy.Policy, *policy.System, error) {
	rules, _, err := c.rules.now()
	if err != nil {
		_, why := firstFault(err)
		return nil, nil, fmt.Errorf("the policy is wrong, so every call is denied: %s", why)
	}
	system, _, err := c.systems.of(c.o.Core.View())
	return rules, system, err
}
