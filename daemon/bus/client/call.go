package client

import (
	"context"
	"time"

	"github.com/godbus/dbus/v5"
)

// Call is a call between qubes that was decided.
type Call struct {
	Time    time.Time // when it came
	Source  string
	Service string // NAME or NAME+ARGUMENT
	Asked   string // target as asked for; may be empty
	Target  string // target as decided: a qube, dom0 or @dispvm:BASE; empty: none
	Allowed bool
	Running bool   // it was allowed and goes on
	Rule    string // FILE:LINE that decided; empty: none
	Reason  string // why it was denied
	User    string // of the rule; empty: the target's default
	Error   string // what went wrong

	// How long its stages took: the policy's decision, the person's, the start
	// of the target, the making of the channel, and the service.
	PolicyTime, AskTime, StartTime, ConnectTime, ServiceTime time.Duration
}

// RecentCalls are the last calls of a qube or to it, or of all for an empty
// name, the newest first.
func (c *Client) RecentCalls(ctx context.Context, qube string, limit uint32) ([]Call, error) {
	var raw []map[string]dbus.Variant
	if err := c.call(ctx, RootPath, ManagerInterface+".RecentCalls", []any{&raw}, qube, limit); err != nil {
		return nil, err
	}
	list := make([]Call, len(raw))
	for i, m := range raw {
		list[i] = callOf(m)
	}
	return list, nil
}

func callOf(m map[string]dbus.Variant) Call {
	text := func(key string) string { s, _ := m[key].Value().(string); return s }
	yes := func(key string) bool { b, _ := m[key].Value().(bool); return b }
	number := func(key string) int64 { n, _ := m[key].Value().(int64); return n }
	took := func(key string) time.Duration { return time.Duration(number(key)) * time.Microsecond }
	return Call{
		Time: time.UnixMicro(number("Time")), Source: text("Source"), Service: text("Service"), Asked: text("Asked"), Target: text("Target"),
		Allowed: yes("Allowed"), Running: yes("Running"), Rule: text("Rule"), Reason: text("Reason"), User: text("User"), Error: text("Error"),
		PolicyTime: took("PolicyTime"), AskTime: took("AskTime"), StartTime: took("StartTime"), ConnectTime: took("ConnectTime"),
		ServiceTime: took("ServiceTime"),
	}
}

// Permission says that the policy lets a qube call a service of another.
type Permission struct {
	Source, Target string // a target may be @dispvm:BASE
	Service        string // NAME, or NAME+ARGUMENT where rules tell arguments apart
	Ask            bool   // a person is asked first
}

// Permissions are the calls from a qube and to it that the policy allows now.
func (c *Client) Permissions(ctx context.Context, qube string) ([]Permission, error) {
	var list []Permission
	err := c.call(ctx, RootPath, ManagerInterface+".Permissions", []any{&list}, qube)
	return list, err
}

// Explanation is what would become of a call.
type Explanation struct {
	Result  string   // allow, ask, deny, or error for what is no call
	Target  string   // of an allowed call
	Targets []string // what could be chosen
	Rule    string   // FILE:LINE that decides; empty: none
	Reason  string   // why it would be denied
}

// ExplainCall tells what would become of a call of a service, NAME or
// NAME+ARGUMENT, from one qube to another. Nothing is called.
func (c *Client) ExplainCall(ctx context.Context, source, target, service string) (Explanation, error) {
	var e Explanation
	err := c.call(ctx, RootPath, ManagerInterface+".ExplainCall", []any{&e.Result, &e.Target, &e.Targets, &e.Rule, &e.Reason}, source, target, service)
	return e, err
}
