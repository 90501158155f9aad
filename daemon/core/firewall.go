package core

import (
	"context"
	"time"

	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qube"
)

// Firewall are the rules of a qube that have not expired.
func (c *Core) Firewall(id qube.UUID) ([]firewall.Rule, error) {
	q, err := c.findQube(id)
	if err != nil {
		return nil, err
	}
	raw, err := c.cfg.Store.Firewall(q.Class(), q.Name())
	if err != nil {
		return nil, advise(wrap(err, "read the firewall of %s", q.Name()))
	}
	if raw == nil {
		return firewall.Default(), nil
	}
	rules, err := firewall.Unmarshal(raw)
	if err != nil {
		return nil, wrap(err, "read the firewall of %s", q.Name())
	}
	return firewall.Current(rules, c.clock.Now()), nil
}

// SetFirewall replaces the rules of a qube; those that have expired are left
// out.
func (c *Core) SetFirewall(ctx context.Context, id qube.UUID, rules []firewall.Rule) error {
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	q, err := c.findQube(id)
	if err != nil {
		return err
	}
	if q.e.rec.Pending != "" {
		return Failf(VMError, "%s cannot be changed: %s", q.Name(), q.Trouble())
	}
	raw, err := firewall.Marshal(firewall.Current(rules, c.clock.Now()))
	if err == nil {
		err = c.cfg.Store.SetFirewall(q.Class(), q.Name(), raw)
	}
	if err != nil {
		return advise(wrap(err, "write the firewall of %s", q.Name()))
	}
	c.tell(id, "firewall-changed")
	tell(c.firewalls)
	return nil
}

// ReloadFirewall tells of the rules of a qube as if they had changed.
func (c *Core) ReloadFirewall(id qube.UUID) error {
	if _, err := c.findQube(id); err != nil {
		return err
	}
	c.tell(id, "firewall-changed")
	return nil
}

// followFirewalls tells of a qube's rules when one of them expires.
func (c *Core) followFirewalls() {
	last := c.clock.Now()
	for {
		at, wait := c.nextExpiry(last)
		var expired <-chan time.Time
		if wait {
			expired = c.clock.After(at.Sub(c.clock.Now()))
		}
		select {
		case <-expired:
			now := c.clock.Now()
			for _, q := range c.View().Qubes() {
				if next, ok := c.expiryOf(q, last); ok && !next.After(now) {
					c.tell(q.UUID(), "firewall-changed")
				}
			}
			last = now
		case <-c.firewalls:
		case <-c.life.Done():
			return
		}
	}
}

// nextExpiry is the first moment after last at which a rule expires.
func (c *Core) nextExpiry(last time.Time) (at time.Time, ok bool) {
	for _, q := range c.View().Qubes() {
		if next, has := c.expiryOf(q, last); has && (!ok || next.Before(at)) {
			at, ok = next, true
		}
	}
	return at, ok
}

func (c *Core) expiryOf(q Qube, last time.Time) (time.Time, bool) {
	raw, err := c.cfg.Store.Firewall(q.Class(), q.Name())
	if err != nil || raw == nil {
		return time.Time{}, false
	}
	rules, err := firewall.Unmarshal(raw)
	if err != nil {
		c.log.Warn("read a firewall", "qube", string(q.Name()), "error", err)
		return time.Time{}, false
	}
	return firewall.NextExpiry(rules, last)
}
