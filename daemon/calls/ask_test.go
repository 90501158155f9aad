package calls

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"cubicle/daemon/policy"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
)

const askRules = `
t.Svc * work mail ask
t.Svc * work dvm ask default_target=dvm
t.Quiet * work mail ask notify=yes
`

func TestPeopleAreAsked(t *testing.T) {
	d := newDesk(t, askRules)
	d.run("work")
	d.run("mail")
	for _, c := range []struct{ answer, reason string }{
		{"allow:mail", ""},
		{"deny", policy.Refused.Explain()},
		{"allow:work", "none of the answers"},
		{"allow:dom0", "none of the answers"},
		{"allow:mail\n", "none of the answers"},
		{"allow", "none of the answers"},
		{"", "none of the answers"},
		{strings.Repeat("x", 300), "more than 256 bytes"},
	} {
		d.agent.says(func(context.Context, heard) string { return c.answer })
		v, _ := d.call(t.Context(), "t.Svc+a", "mail")
		if v.Allowed != (c.reason == "") || !strings.Contains(v.Reason, c.reason) {
			t.Errorf("%q: %+v", c.answer, v)
		}
	}
	h := d.agent.told("policy.Ask")[0]
	if h.Source != "work" || h.Name != "t.Svc" || h.Argument != "+a" || !slices.Equal(h.Targets, []string{"dvm", "mail"}) || h.Default != "" ||
		h.Icons["mail"] != "appvm-red" || h.Icons["work"] != "appvm-red" || !strings.HasSuffix(h.Rule, "30-user.policy:2: t.Svc * work mail ask") {
		t.Errorf("%+v", h)
	}
	if v, _ := d.call(t.Context(), "t.Svc", "dvm"); v.Allowed {
		t.Errorf("%+v", v)
	}
	if h := d.agent.told("policy.Ask"); h[len(h)-1].Default != "dvm" {
		t.Errorf("%+v", h[len(h)-1])
	}
	if n := d.agent.told("policy.Notify"); len(n) != 0 {
		t.Errorf("told of refusals that people know: %+v", n)
	}
	d.agent.says(func(context.Context, heard) string { return "deny" })
	d.call(t.Context(), "t.Quiet", "mail")
	await(t, "people are told", func() bool { return len(d.agent.told("policy.Notify")) == 1 })

	e := d.Recent("work", 1)
	if e[0].Allowed || e[0].Ask <= 0 || e[0].Reason != policy.Refused.Explain() {
		t.Errorf("%+v", e)
	}
}

func TestNobodyToAsk(t *testing.T) {
	d := newDesk(t, askRules)
	d.run("work")
	d.agent.l.Close()
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed || !strings.Contains(v.Reason, "there is no policy agent") {
		t.Errorf("%+v", v)
	}
	d.set("work", "guivm", "mail")
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed || !strings.Contains(v.Reason, "the GUI domain mail does not run") {
		t.Errorf("%+v", v)
	}
	d.set("work", "guivm", "")
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed || v.Reason != policy.NoGUI.Explain() {
		t.Errorf("%+v", v)
	}
}

// An agent in another qube is asked by a call.
func TestAnotherGUIDomainIsAsked(t *testing.T) {
	d := newDesk(t, askRules)
	d.run("work")
	gui := d.run("dvm")
	d.Close()
	d.open(Options{Caller: d.World})
	d.set("work", "guivm", "dvm")
	d.World.Said = map[string]string{"policy.Ask": "allow:mail"}
	v, _ := d.call(t.Context(), "t.Svc", "mail")
	if !v.Allowed {
		t.Errorf("%+v", v)
	}
	if c := d.World.Calls(); len(c) != 1 || c[0].To != gui || c[0].Name != "policy.Ask" || !strings.Contains(c[0].Input, `"targets":["dvm","mail"]`) {
		t.Errorf("%+v", c)
	}
	d.World.Said["policy.Ask"] = strings.Repeat("x", 300)
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed {
		t.Errorf("%+v", v)
	}
}

// A stranger's agent is not believed.
func TestTheAgentIsThePersons(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	d := newDesk(t, askRules)
	d.run("work")
	const stranger = 4321
	d.o.Agent = filepath.Join(d.dir, "stranger")
	var a *agent
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := os.Chmod(d.dir, 0o777); err != nil {
			t.Error(err)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, stranger, stranger, stranger); errno != 0 {
			t.Error(errno)
		}
		a = newAgent(t, d.o.Agent)
	}()
	<-done
	a.says(func(context.Context, heard) string { return "allow:mail" })
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed || !strings.Contains(v.Reason, "user 4321 serves ") {
		t.Errorf("%+v", v)
	}
	d.o.AgentUsers = []int{stranger}
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); !v.Allowed {
		t.Errorf("%+v", v)
	}
}

// waiting answers when the caller has left.
func waiting(ctx context.Context, _ heard) string { <-ctx.Done(); return "allow:mail" }

func TestTheDialogEndsWithItsCaller(t *testing.T) {
	d := newDesk(t, askRules)
	d.run("work")
	d.agent.says(waiting)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan control.Verdict, 1)
	go func() { v, _ := d.call(ctx, "t.Svc", "mail"); done <- v }()
	await(t, "the dialog opens", func() bool { return len(d.agent.told("policy.Ask")) == 1 })
	cancel()
	if v := <-done; v.Allowed {
		t.Errorf("%+v", v)
	}
	await(t, "the dialog closes", func() bool { return d.agent.hungUp() == 1 })
	if n := d.agent.told("policy.Notify"); len(n) != 0 {
		t.Errorf("told of a caller that gave up: %+v", n)
	}
	// Nobody answers.
	d.Close()
	d.open(Options{AskTime: 20 * time.Millisecond})
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed || !strings.Contains(v.Reason, "nobody answered within 20ms") {
		t.Errorf("%+v", v)
	}
	await(t, "the dialog closes", func() bool { return d.agent.hungUp() == 2 })
	// qubesd ends.
	d.Close()
	d.open(Options{})
	go func() { v, _ := d.call(t.Context(), "t.Svc", "mail"); done <- v }()
	await(t, "the dialog opens", func() bool { return len(d.agent.told("policy.Ask")) == 3 })
	d.Close()
	if v := <-done; v.Allowed {
		t.Errorf("%+v", v)
	}
}

func TestAFloodOfQuestionsIsOneDialogPerQube(t *testing.T) {
	d := newDesk(t, askRules+"t.Svc * dvm mail ask\n")
	d.run("work")
	d.run("mail")
	other := d.run("dvm")
	release := make(chan struct{})
	open, most := map[string]int{}, map[string]int{}
	d.agent.says(func(_ context.Context, h heard) string {
		d.agent.mu.Lock()
		open[h.Source]++
		most[h.Source] = max(most[h.Source], open[h.Source])
		d.agent.mu.Unlock()
		<-release
		d.agent.mu.Lock()
		open[h.Source]--
		d.agent.mu.Unlock()
		return "allow:mail"
	})
	const flood = 100
	verdicts := make(chan control.Verdict, flood)
	for range flood {
		go func() { v, _ := d.call(t.Context(), "t.Svc", "mail"); verdicts <- v }()
	}
	refused := 0
	for range flood - maxDialogs - 1 {
		if v := <-verdicts; v.Allowed || !strings.Contains(v.Reason, errTooManyDialogs.Error()) {
			t.Fatalf("%+v", v)
		}
		refused++
	}
	// Another qube's question does not wait for them.
	otherDone := make(chan control.Verdict, 1)
	go func() {
		v, _ := d.Decide(t.Context(), control.Call{Source: other, Service: "t.Svc", Target: "mail"})
		otherDone <- v
	}()
	await(t, "both have a dialog", func() bool { return len(d.agent.told("policy.Ask")) == 2 })
	close(release)
	for range maxDialogs + 1 {
		if v := <-verdicts; !v.Allowed {
			t.Errorf("%+v", v)
		}
	}
	if v := <-otherDone; !v.Allowed {
		t.Errorf("%+v", v)
	}
	if most["work"] != 1 || most["dvm"] != 1 {
		t.Errorf("dialogs at a time: %v", most)
	}
	if len(d.dialogs.open) != 0 {
		t.Errorf("left: %v", d.dialogs.open)
	}
}

// What was asked is decided on the policy and the qubes of the answer.
func TestAnAnswerMeetsThePolicyOfItsTime(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*desk)
		ok     bool
	}{
		"nothing":                    {func(*desk) {}, true},
		"a qube that is none of it":  {func(d *desk) { d.NewQube("more", "red") }, true},
		"denied now":                 {func(d *desk) { d.write("30-user.policy", "") }, false},
		"another target now":         {func(d *desk) { d.write("30-user.policy", "t.Svc * work dvm ask\n") }, false},
		"allowed now":                {func(d *desk) { d.write("30-user.policy", "t.Svc * work mail allow\n") }, true},
		"redirected now":             {func(d *desk) { d.write("30-user.policy", "t.Svc * work mail allow target=dvm\n") }, false},
		"the policy is wrong":        {func(d *desk) { d.write("30-user.policy", "nonsense\n") }, false},
		"the target is hidden":       {func(d *desk) { d.SetFeature(d.qube("mail").UUID(), "internal", "1") }, false},
		"the chosen target has gone": {func(d *desk) { d.Done(d.Core.Remove(d.qube("mail").UUID())) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, askRules)
			d.run("work")
			d.agent.says(func(context.Context, heard) string { c.change(d); return "allow:mail" })
			if v, _ := d.call(t.Context(), "t.Svc", "mail"); v.Allowed != c.ok {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestNoticesAreFewWhenDenialsAreMany(t *testing.T) {
	d := newDesk(t, "t.Loud * work mail allow notify=yes\nt.Still * work mail deny notify=no\n")
	d.run("work")
	d.call(t.Context(), "t.Still", "mail")
	d.call(t.Context(), "t.Loud", "mail")
	await(t, "an allowed call is told", func() bool {
		n := d.agent.told("policy.Notify")
		return len(n) == 1 && n[0].Resolution == "allow" && n[0].Target == "mail"
	})
	for range 500 {
		d.call(t.Context(), "t.No+x", "mail")
	}
	d.Calls.Close()
	n := d.agent.told("policy.Notify")
	if last := n[len(n)-1]; len(n) < 2 || len(n) > 20 || last.Resolution != "deny" || last.Name != "t.No" || last.Argument != "+x" {
		t.Errorf("%d notices, the last %+v", len(n), last)
	}
}

// The line for a qube's dialog, against a plain account of it.
func TestDialogsLine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var line dialogs
		type caller struct {
			cancel context.CancelFunc
			result chan func() // how to leave; nil: sent away
			err    error       // why, before result
			leave  func()      // of the one whose turn it is
		}
		ids := []qube.UUID{"a", "b"}
		callers := map[qube.UUID][]*caller{} // in line, the open one among them
		in := func(id qube.UUID) (open []*caller) {
			for _, c := range callers[id] {
				if c.leave != nil {
					open = append(open, c)
				}
			}
			return open
		}
		// settle waits until someone has the turn where anybody is in line.
		settle := func(id qube.UUID) {
			for end := time.Now().Add(30 * time.Second); len(in(id)) == 0 && len(callers[id]) > 0; time.Sleep(50 * time.Microsecond) {
				for _, c := range callers[id] {
					select {
					case c.leave = <-c.result:
						if c.leave == nil {
							rt.Fatalf("one in line was sent away: %v", c.err)
						}
					default:
					}
				}
				if time.Now().After(end) {
					rt.Fatal("nobody gets the turn")
				}
			}
			if len(in(id)) > 1 {
				rt.Fatal("two have the turn")
			}
		}
		enter := func(id qube.UUID) {
			ctx, cancel := context.WithCancel(context.Background())
			c := &caller{cancel: cancel, result: make(chan func(), 1)}
			go func() {
				leave, err := line.enter(ctx, id)
				c.err = err
				c.result <- leave
			}()
			if len(callers[id]) > maxDialogs {
				if leave := <-c.result; leave != nil || c.err != errTooManyDialogs {
					rt.Fatalf("a full line: %v", c.err)
				}
				cancel()
				return
			}
			callers[id] = append(callers[id], c)
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Microsecond) {
				line.mu.Lock()
				l := line.open[id]
				n := 0
				if l != nil {
					n = l.members
				}
				line.mu.Unlock()
				if n == len(callers[id]) {
					return
				}
				if time.Now().After(end) {
					rt.Fatalf("%d in line, want %d", n, len(callers[id]))
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"enter": func(rt *rapid.T) {
				id := rapid.SampledFrom(ids).Draw(rt, "qube")
				enter(id)
				settle(id)
			},
			"leave": func(rt *rapid.T) {
				id := rapid.SampledFrom(ids).Draw(rt, "qube")
				for i, c := range callers[id] {
					if c.leave != nil {
						c.leave()
						callers[id] = slices.Delete(callers[id], i, i+1)
						break
					}
				}
				settle(id)
			},
			"give up": func(rt *rapid.T) {
				id := rapid.SampledFrom(ids).Draw(rt, "qube")
				for i, c := range callers[id] {
					if c.leave == nil {
						c.cancel()
						if leave := <-c.result; leave != nil || c.err != context.Canceled {
							rt.Fatalf("who gave up: %v", c.err)
						}
						callers[id] = slices.Delete(callers[id], i, i+1)
						break
					}
				}
				settle(id)
			},
			"": func(rt *rapid.T) {
				line.mu.Lock()
				defer line.mu.Unlock()
				for _, id := range ids {
					if (line.open[id] != nil) != (len(callers[id]) > 0) {
						rt.Fatalf("%s: %d in line, kept: %v", id, len(callers[id]), line.open[id] != nil)
					}
				}
			},
		})
		for _, list := range callers {
			for _, c := range list {
				c.cancel()
			}
		}
	})
}
