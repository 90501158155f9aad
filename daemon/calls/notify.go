package calls

import (
	"context"
	"time"

	"cubicle/daemon/policy"
	"cubicle/daemon/qube"
)

// resolution is what policy.Notify tells of a call (spec/qrexec.md §11).
type resolution string

const (
	allowed resolution = "allow"
	denied  resolution = "deny"
	failed  resolution = "fail" // allowed, and then it could not be made
	// broken is of our own: every call is denied. rule says where and why.
	broken resolution = "broken"
)

const (
	// A flood of calls must not become one of notices.
	noticeTime  = time.Second
	noticeBurst = 10
	// maxNotices is how many notices may be on their way.
	maxNotices = 32
)

// notice is the JSON of policy.Notify.
type notice struct {
	Resolution resolution `json:"resolution"`
	Service    string     `json:"service"`
	Argument   string     `json:"argument"`
	Source     string     `json:"source"`
	Target     string     `json:"target"`
	Rule       string     `json:"rule,omitempty"`
}

// notify tells the person what became of a call. It returns at once; that
// nobody is there to be told is no trouble.
func (c *Calls) notify(r request, d policy.Decision, what resolution) {
	if d.GUIVM == "" {
		return
	}
	if _, ok := c.notices.take(r.source.UUID(), time.Now()); !ok {
		return
	}
	select {
	case c.telling <- struct{}{}:
	default:
		return
	}
	target := d.Requested
	if what != denied {
		target = d.Target
	}
	c.spawn(func() {
		defer func() { <-c.telling }()
		ctx, cancel := context.WithTimeout(c.life, notifyTime)
		defer cancel()
		_, err := c.converse(ctx, d.GUIVM, "policy.Notify", notice{what, r.Service, r.Argument, r.Source, target, ""})
		if err != nil {
			c.log.Debug("tell people of a call", "source", r.Source, "error", err)
		}
	})
}

// notifyBroken tells the person in dom0 that the policy is wrong. Unlike the
// news of a call this is to arrive.
func (c *Calls) notifyBroken(fault error) error {
	_, why := firstFault(fault)
	ctx, cancel := context.WithTimeout(c.life, notifyTime)
	defer cancel()
	_, err := c.converse(ctx, string(qube.Dom0), "policy.Notify", notice{Resolution: broken, Source: string(qube.Dom0), Rule: why})
	if err != nil {
		c.log.Debug("tell people of a wrong policy", "error", err)
	}
	return err
}
