package calls

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/policy"
)

// Every change of a file counts for the very next call, however soon after
// the last one it comes.
func TestEveryChangeOfThePolicyCounts(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, sub := range []string{"etc/include", "run", "old", "elsewhere"} {
		if err := os.MkdirAll(at(sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	r := rules{dirs: policy.Dirs{Policy: []string{at("etc"), at("run")}, Legacy: at("old")}, broken: func(err error) { told = append(told, err.Error()) }}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) { t.Helper(); do(os.WriteFile(at(name), []byte(text), 0o644)) }
	// got are the services that are named, in order.
	got := func() string {
		p, _, err := r.now()
		if err != nil {
			return "error: " + strings.TrimPrefix(err.Error(), dir+"/")
		}
		var names []string
		for _, rule := range p.Rules() {
			names = append(names, strings.Fields(rule.Text)[0])
		}
		return strings.Join(names, " ")
	}
	for i, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, ""},
		{func() { write("etc/30-a.policy", "a.A * * * deny\n") }, "a.A"},
		{func() { write("etc/30-a.policy", "a.B * * * deny\n") }, "a.B"}, // of one size
		{func() { write("etc/30-a.policy", "a.C * * * deny\n") }, "a.C"},
		{func() { write("run/30-a.policy", "r.A * * * deny\n") }, "r.A"},
		{func() { do(os.Remove(at("run/30-a.policy"))) }, "a.C"},
		{func() { write("etc/40-b.policy", "!include include/x\n") }, "error: etc/40-b.policy:1: open " + at("etc/include/x") + ": no such file or directory"},
		{func() { write("etc/include/x", "x.A * * * deny\n") }, "a.C x.A"},
		{func() { write("etc/include/x", "x.B * * * deny\n") }, "a.C x.B"},
		{func() { do(os.Rename(at("etc/30-a.policy"), at("etc/50-a.policy"))) }, "x.B a.C"},
		{func() {
			write("elsewhere/y", "y.A * * * deny\n")
			do(os.Symlink(at("elsewhere/y"), at("etc/60-y.policy")))
		}, "x.B a.C y.A"},
		{func() { write("elsewhere/z", "y.Z * * * deny\n"); do(os.Rename(at("elsewhere/z"), at("elsewhere/y"))) }, "x.B a.C y.Z"},
		{func() { do(os.Remove(at("elsewhere/y"))) }, "x.B a.C"},
		{func() { write("elsewhere/y", "y.A * * * deny\n") }, "x.B a.C y.A"},
		{func() { write("etc/60-y.policy", "!compat-4.0\n"); do(os.Remove(at("etc/40-b.policy"))) }, "a.C"},
		{func() { write("old/l.Svc", "a b deny\n") }, "a.C a"},
		{func() { do(os.RemoveAll(at("old"))) }, "error: etc/60-y.policy:1: open " + at("old") + ": no such file or directory"},
		{func() { do(os.Remove(at("etc/60-y.policy"))) }, "a.C"},
		{func() { write("etc/70-BAD.policy", "") }, `error: etc/70-BAD.policy: "70-BAD.policy" is not the name of a policy's file: that has small letters, digits, '_', '.' and '-'`},
		{func() { do(os.Remove(at("etc/70-BAD.policy"))) }, "a.C"},
		{func() { do(os.RemoveAll(at("run"))) }, "error: run: open " + at("run") + ": no such file or directory"},
		{func() { do(os.Mkdir(at("run"), 0o755)) }, "a.C"},
	} {
		step.do()
		if text := got(); text != step.want {
			t.Errorf("step %d: %s\nwant %s", i, text, step.want)
		}
		if text := got(); text != step.want {
			t.Errorf("step %d, again: %s\nwant %s", i, text, step.want)
		}
	}
	if len(told) != 4 {
		t.Errorf("told of %d faults:\n%s", len(told), strings.Join(told, "\n"))
	}
}

// Readers see one version after another, never a mixture, while the file is
// replaced.
func TestThePolicyIsReadWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	r := rules{dirs: policy.Dirs{Policy: []string{dir}}, broken: func(err error) { t.Error(err) }}
	version := func(n int) {
		text := strings.Repeat(fmt.Sprintf("v.%d * * * deny\n", n), 50)
		tmp := filepath.Join(dir, "new")
		if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "30-user.policy")); err != nil {
			t.Error(err)
		}
	}
	version(0)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := -1
			for {
				p, _, err := r.now()
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				list := p.Rules()
				fmt.Sscanf(list[0].Text, "v.%d ", &n)
				if len(list) != 50 || list[49].Text != list[0].Text || n < last {
					t.Errorf("%d rules from %q to %q after version %d", len(list), list[0].Text, list[49].Text, last)
				}
				last = n
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for n := range 200 {
		version(n + 1)
		p, _, err := r.now()
		if err != nil || !strings.HasPrefix(p.Rules()[0].Text, fmt.Sprintf("v.%d ", n+1)) {
			t.Fatalf("version %d: %v, %v", n+1, p, err)
		}
	}
	close(done)
	readers.Wait()
}

// While a file is wrong every call is denied, and people are told once.
func TestAWrongPolicyDeniesEverything(t *testing.T) {
	d := newDesk(t, "t.Svc * work mail allow\n")
	var mu sync.Mutex
	var told []error
	d.Close()
	d.open(Options{Broken: func(err error) { mu.Lock(); defer mu.Unlock(); told = append(told, err) }})
	d.run("work")
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); !v.Allowed {
		t.Fatalf("%+v", v)
	}
	d.write("40-more.policy", "t.Svc * work mail allow\nt.Svc * work\n")
	for range 3 {
		v, _ := d.call(t.Context(), "t.Svc", "mail")
		if v.Allowed || !strings.Contains(v.Reason, "40-more.policy:2: ") {
			t.Errorf("%+v", v)
		}
	}
	mu.Lock()
	if len(told) != 1 || !strings.Contains(told[0].Error(), "40-more.policy:2: ") {
		t.Errorf("told: %v", told)
	}
	mu.Unlock()
	await(t, "the person is told", func() bool { return len(d.agent.told("policy.Notify")) > 0 })
	if n := d.agent.told("policy.Notify"); len(n) != 1 || n[0].Resolution != "broken" || !strings.Contains(n[0].Rule, "40-more.policy:2: ") {
		t.Errorf("%+v", n)
	}
	if err := os.Remove(d.path("40-more.policy")); err != nil {
		t.Fatal(err)
	}
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); !v.Allowed {
		t.Errorf("%+v", v)
	}
	// A fault is noticed while nobody calls.
	d.write("40-more.policy", "again\n")
	await(t, "the fault is told", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == 2 })
	await(t, "the person is told again", func() bool { return len(d.agent.told("policy.Notify")) == 2 })
}

// Whoever follows the system's events hears of it, too.
func TestAWrongPolicyIsAnEvent(t *testing.T) {
	d := newDesk(t, "")
	d.Close()
	d.open(Options{Broken: d.PolicyBroken})
	events := d.Subscribe()
	defer events.Close()
	d.write("40-more.policy", "\nwrong\n")
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		list, _, err := events.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Name != "policy-broken" {
				continue
			}
			if e.Subject != "" || len(e.Args) != 2 || e.Args[0] != (core.Arg{Key: "file", Value: d.path("40-more.policy")}) ||
				!strings.Contains(e.Args[1].Value, "40-more.policy:2: ") {
				t.Errorf("%+v", e)
			}
			return
		}
	}
}
