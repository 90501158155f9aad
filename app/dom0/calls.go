package dom0

import (
	"context"
	"time"

	"cubicle/daemon/bus/client"
)

// Call is a call of a service between qubes, or to dom0. What qubes have said
// is cleaned.
type Call struct {
	Time    time.Time
	Source  Text
	Asked   Text // the target as it was asked for; empty: left to the policy
	Target  Text // the target as it was decided; empty: none
	Service Text // with its argument
	Allowed bool
	Running bool // it was allowed and goes on
	Rule    Text // FILE:LINE that decided; empty: none
	Reason  Text // why it was denied, in qubesd's words
	Failure Text // what went wrong

	Asking  time.Duration // how long a person took to answer; 0: none was asked
	Opening time.Duration // the rest until the service began: the decision, the target's start, the channel
}

// Permission says that a qube may call a service of another, as the policy
// stands.
type Permission struct {
	Source, Target Text // names; a target may be a new disposable, @dispvm:BASE
	Service        Text // NAME, or NAME+ARGUMENT
	Ask            bool // a person is asked first
}

// RecentCalls implements Inside.
func (b *Bus) RecentCalls(ctx context.Context, id QubeID, limit int) (list []Call, err error) {
	name := b.called(id)
	err = b.ask(ctx, "calls", name, func(c *client.Client) error {
		calls, err := c.RecentCalls(ctx, name, uint32(limit))
		for _, one := range calls {
			list = append(list, fromCall(one))
		}
		return err
	})
	return list, err
}

func fromCall(c client.Call) Call {
	call := Call{
		Time: c.Time, Source: CleanLine(c.Source), Asked: CleanLine(c.Asked), Target: CleanLine(c.Target), Service: CleanLine(c.Service),
		Allowed: c.Allowed, Running: c.Running, Rule: CleanLine(c.Rule), Failure: CleanLine(c.Error),
		Asking: c.AskTime, Opening: c.PolicyTime + c.StartTime + c.ConnectTime,
	}
	if !c.Allowed {
		call.Reason = CleanLine(c.Reason)
	}
	return call
}

// Permissions implements Inside.
func (b *Bus) Permissions(ctx context.Context, id QubeID) (list []Permission, err error) {
	name := b.called(id)
	err = b.ask(ctx, "policy", name, func(c *client.Client) error {
		all, err := c.Permissions(ctx, name)
		for _, p := range all {
			list = append(list, Permission{Source: CleanLine(p.Source), Target: CleanLine(p.Target), Service: CleanLine(p.Service), Ask: p.Ask})
		}
		return err
	})
	return list, err
}

// Explanation is what would become of a call.
type Explanation struct {
	Result  Outcome
	Target  Text   // of an allowed call
	Targets []Text // what could be chosen
	Rule    Text   // FILE:LINE that decides; empty: none
	Reason  Text   // why it would be denied, or is no call
}

// Outcome is what the policy says of a call.
type Outcome string

// The outcomes.
const (
	Allowed Outcome = "allow"
	Asked   Outcome = "ask"
	Denied  Outcome = "deny"
	NoCall  Outcome = "error" // the question is not a call
)

// ExplainCall implements Inside.
func (b *Bus) ExplainCall(ctx context.Context, id QubeID, target, service string) (e Explanation, err error) {
	name := b.called(id)
	err = b.ask(ctx, "policy", name, func(c *client.Client) error {
		got, err := c.ExplainCall(ctx, name, target, service)
		e = Explanation{Result: Outcome(got.Result), Target: CleanLine(got.Target), Rule: CleanLine(got.Rule), Reason: CleanLine(got.Reason)}
		for _, t := range got.Targets {
			e.Targets = append(e.Targets, CleanLine(t))
		}
		return err
	})
	return e, err
}
