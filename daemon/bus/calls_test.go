package bus

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/calls"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/policy"
)

func TestRecentCallsArrive(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	service := New(s.Core, address, []int{os.Getuid()}, slog.New(slog.DiscardHandler))
	at := time.UnixMicro(1_700_000_000_123_456)
	service.RecentCalls = func(qube string, limit int) []calls.Entry {
		if qube != "work" || limit != 7 {
			t.Errorf("asked for %d calls of %q", limit, qube)
		}
		return []calls.Entry{{
			Time: at, Source: "work", Service: "t.Svc+x", Asked: "@default", Target: "mail", Allowed: true, Running: true, Rule: "f:1", Reason: "r",
			User: "root", Error: "e", Policy: time.Millisecond, Ask: 2 * time.Millisecond, Start: 3 * time.Millisecond,
			Connect: 4 * time.Millisecond, Run: 5 * time.Millisecond,
		}, {Time: at}}
	}
	edges := []policy.Edge{{Source: "work", Target: "@dispvm:mail", Service: "t.Svc+x", Ask: true}, {Source: "vault", Target: "work", Service: "t.Svc"}}
	service.Permissions = func(qube string) ([]policy.Edge, error) {
		if qube != "work" {
			return nil, errors.New("30-user.policy:3: no such action")
		}
		return edges, nil
	}
	service.Explain = func(q policy.Question) (policy.Explanation, error) {
		if q != (policy.Question{Source: "work", Target: "mail", Service: "t.Svc+x"}) {
			return policy.Explanation{}, errors.New("30-user.policy:3: no such action")
		}
		return policy.Explanation{Result: policy.Result(policy.Deny), Targets: []string{"vault"}, Rule: "f:7", Reason: string(policy.DenyRule)}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- service.Run(ctx, func() { close(ready) }) }()
	<-ready
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c, within := connect(t, address)
	got, err := c.RecentCalls(within, "work", 7)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	want := client.Call{
		Time: at, Source: "work", Service: "t.Svc+x", Asked: "@default", Target: "mail", Allowed: true, Running: true, Rule: "f:1", Reason: "r",
		User: "root", Error: "e", PolicyTime: time.Millisecond, AskTime: 2 * time.Millisecond, StartTime: 3 * time.Millisecond,
		ConnectTime: 4 * time.Millisecond, ServiceTime: 5 * time.Millisecond,
	}
	if got[0] != want || got[1] != (client.Call{Time: at}) {
		t.Errorf("%+v", got)
	}
	may, err := c.Permissions(within, "work")
	if err != nil || !slices.Equal(may, []client.Permission{client.Permission(edges[0]), client.Permission(edges[1])}) {
		t.Errorf("%+v, %v", may, err)
	}
	why, err := c.ExplainCall(within, "work", "mail", "t.Svc+x")
	if err != nil || why.Result != "deny" || !slices.Equal(why.Targets, []string{"vault"}) || why.Rule != "f:7" || why.Reason != policy.DenyRule.Explain() {
		t.Errorf("%+v, %v", why, err)
	}
	if _, err := c.ExplainCall(within, "work", "mail", "t.Other"); err == nil || !strings.Contains(err.Error(), "30-user.policy:3") {
		t.Errorf("a wrong policy: %v", err)
	}
	if _, err := c.Permissions(within, "vault"); err == nil || !strings.Contains(err.Error(), "30-user.policy:3") {
		t.Errorf("a wrong policy: %v", err)
	}
}
