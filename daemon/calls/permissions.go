package calls

import (
	"fmt"

	"cubicle/daemon/policy"
)

// Permissions are the calls that the policy allows, or would ask about, from a
// qube and to it (policy.Policy.Around), as things stand.
func (c *Calls) Permissions(qube string) ([]policy.Edge, error) {
	rules, _, err := c.rules.now()
	if err != nil {
		_, why := firstFault(err)
		return nil, fmt.Errorf("the policy is wrong, so every call is denied: %s", why)
	}
	system, _, err := c.systems.of(c.o.Core.View())
	if err != nil {
		return nil, err
	}
	return rules.Around(system, qube), nil
}
