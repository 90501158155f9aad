package admin

import (
	"context"

	"cubicle/daemon/core"
	"cubicle/daemon/network/firewall"
)

// firewallMethods are the firewall of spec/admin-api.md §2.4.
func firewallMethods() map[string]method {
	return map[string]method{
		"admin.vm.firewall.Get":    {onQube, absent, absent, getFirewall},
		"admin.vm.firewall.Set":    {onQube, absent, needed, setFirewall},
		"admin.vm.firewall.Reload": {onQube, absent, absent, reloadFirewall},
	}
}

func getFirewall(_ context.Context, c *call) (string, error) {
	rules, err := c.core.Firewall(c.dest.UUID())
	if err != nil {
		return "", err
	}
	return firewall.Format(rules), nil
}

func setFirewall(ctx context.Context, c *call) (string, error) {
	rules, err := firewall.Parse(string(c.req.Payload))
	if err != nil {
		return "", core.Failf(core.BadValue, "%s", err)
	}
	return "", c.core.SetFirewall(ctx, c.dest.UUID(), rules)
}

func reloadFirewall(_ context.Context, c *call) (string, error) {
	return "", c.core.ReloadFirewall(c.dest.UUID())
}
