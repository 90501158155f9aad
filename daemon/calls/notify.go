package calls

import (
	"context"
	"sync"
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
	// noticeTime is how long one notice of a qube takes off its allowance of
	// noticeBurst: beyond that its calls are not told any more, for a flood of
	// them must not cost much.
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

// notices keeps account of what people are told.
type notices struct {
	mu      sync.Mutex              // guards what follows
	until   map[qube.UUID]time.Time // a qube's allowance is whole again
	sending int                     // on their way
}

// admit tells whether a qube may have one more notice now; done is called
// when it has arrived.
func (n *notices) admit(id qube.UUID, now time.Time) (done func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.until == nil {
		n.until = map[qube.UUID]time.Time{}
	}
	for other, at := range n.until {
		if !at.After(now) {
			delete(n.until, other)
		}
	}
	at := n.until[id]
	if at.Before(now) {
		at = now
	}
	if n.sending >= maxNotices || at.Sub(now) > (noticeBurst-1)*noticeTime {
		return nil, false
	}
	n.until[id] = at.Add(noticeTime)
	n.sending++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.sending--
	}, true
}

// notify tells the person what became of a call. It returns at once; that
// nobody is there to be told is no trouble.
func (c *Calls) notify(r request, d policy.Decision, what resolution) {
	if d.GUIVM == "" {
		return
	}
	done, ok := c.notices.admit(r.source.UUID(), time.Now())
	if !ok {
		return
	}
	target := d.Requested
	if what != denied {
		target = d.Target
	}
	c.spawn(func() {
		defer done()
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
