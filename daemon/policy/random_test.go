package policy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A random system and words of rules about it.
var (
	someNames  = []string{"dom0", "a", "b", "c", "d", "base1", "base2", "far"}
	someTokens = []string{"*", "@anyvm", "@adminvm", "dom0", "a", "b", "c", "d", "base1", "none", "@type:AppVM", "@type:RemoteVM", "@tag:x", "@tag:y",
		"uuid:00000000-0000-0000-0000-000000000000", "uuid:a", "@default", "@dispvm", "@dispvm:base1", "@dispvm:base2", "@dispvm:a", "@dispvm:@tag:x", "@dispvm:uuid:base2"}
	someTargets = append([]string{"", "@default", "@adminvm", "@dispvm", "@dispvm:base1", "@dispvm:uuid:base2", "@dispvm:a", "uuid:a", "none", "@tag:x"}, someNames...)
)

func drawSystem(t *rapid.T) *System {
	var list []*Domain
	for _, name := range someNames {
		d := &Domain{Name: name, UUID: name, Class: "AppVM", GUIVM: "dom0",
			State: rapid.SampledFrom([]string{"Running", "Halted"}).Draw(t, "state of "+name),
			Tags:  rapid.SliceOfDistinct(rapid.SampledFrom([]string{"x", "y"}), rapid.ID).Draw(t, "tags of "+name),
		}
		d.DefaultDispVM = rapid.SampledFrom([]string{"", "base1", "base2", "a"}).Draw(t, "default of "+name)
		switch name {
		case "dom0":
			d.Class, d.UUID, d.State = "AdminVM", nilUUID, "Running"
		case "base1", "base2":
			d.Base = true
		case "far":
			d.Class, d.RelayVM, d.TransportRPC = "RemoteVM", "d", "r.Transport"
		case "c":
			if rapid.Bool().Draw(t, "c is internal") {
				d.Internal = "1"
			}
		}
		list = append(list, d)
	}
	s, err := NewSystem(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// drawRule makes a rule that is written correctly, or "".
func drawRule(t *rapid.T) string {
	line := fmt.Sprintf("%s %s %s %s %s", rapid.SampledFrom([]string{"s", "s", "s", "other"}).Draw(t, "service"),
		rapid.SampledFrom([]string{"*", "*", "+", "+k"}).Draw(t, "argument"), rapid.SampledFrom(someTokens).Draw(t, "source"),
		rapid.SampledFrom(someTokens).Draw(t, "target"), rapid.SampledFrom([]string{"allow", "deny", "ask"}).Draw(t, "action"))
	for _, option := range []string{"target", "default_target"} {
		if rapid.IntRange(0, 3).Draw(t, option+"?") == 0 {
			line += " " + option + "=" + rapid.SampledFrom(someTokens).Draw(t, option)
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "autostart?") == 0 {
		line += " autostart=no"
	}
	if _, err := parseRule(strings.Fields(line)); err != nil {
		return ""
	}
	return line
}

func drawPolicy(t *rapid.T) *Policy {
	var rules []*Rule
	for i := range rapid.IntRange(0, 12).Draw(t, "rules") {
		line := drawRule(t)
		if line == "" {
			continue
		}
		r, err := parseRule(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		r.File, r.Line, r.Text = "f", i+1, line
		rules = append(rules, r)
	}
	return compile(rules)
}

func drawRequest(t *rapid.T) Request {
	return Request{Service: rapid.SampledFrom([]string{"s", "other", "third"}).Draw(t, "called"),
		Argument: rapid.SampledFrom([]string{"+", "+k", "+z"}).Draw(t, "with"),
		Source:   rapid.SampledFrom(someNames).Draw(t, "caller"), Target: rapid.SampledFrom(someTargets).Draw(t, "callee")}
}

// alone decides by one rule.
func alone(r *Rule, s *System, q Request) bool { return compile([]*Rule{r}).Decide(s, q).Rule != nil }

// Whatever the policy, these hold.
func TestDecisionsOfRandomPolicies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p, q := drawSystem(t), drawPolicy(t), drawRequest(t)
		d := p.Decide(s, q)

		// The first rule that fits by itself decides, and without one the
		// call is denied.
		var first *Rule
		for _, r := range p.Rules() {
			if alone(r, s, q) {
				first = r
				break
			}
		}
		if d.Rule != first {
			t.Fatalf("%+v is decided by %+v, not %+v", q, d.Rule, first)
		}
		if first == nil && d.Action != Deny {
			t.Fatalf("without a rule: %+v", d)
		}
		if first != nil && d.Action != Deny && d.Action != first.action {
			t.Fatalf("%s: %+v", first.Text, d)
		}
		final(t, s, q, d)
		where(t, p, s, q, d)
		if d.Action != Ask {
			return
		}
		if len(d.Targets) == 0 || !slices.IsSorted(d.Targets) || len(slices.Compact(slices.Clone(d.Targets))) != len(d.Targets) {
			t.Fatalf("%v is offered", d.Targets)
		}
		if d.DefaultTarget != "" && !slices.Contains(d.Targets, d.DefaultTarget) {
			t.Fatalf("%s is proposed, %v offered", d.DefaultTarget, d.Targets)
		}
		for _, target := range d.Targets {
			c := d.Choose(target)
			final(t, s, q, c)
			if c.Action == Ask {
				t.Fatalf("the choice of %s leads to another question", target)
			}
			if first.redirect != nil {
				continue
			}
			// What is offered is not what the first rule about it denies.
			for _, r := range p.Rules() {
				if r.redirect != nil || !alone(r, s, Request{q.Service, q.Argument, q.Source, target, ""}) {
					continue
				}
				if r.action == Deny && r.target.kind != dispVM && !redirectsTo(p, s, q, target, r) {
					t.Fatalf("%s is offered, which %q denies", target, r.Text)
				}
				break
			}
		}
		for _, target := range append(slices.Clone(someTargets), "@dispvm:base1", "zzz") {
			if !slices.Contains(d.Targets, target) && d.Choose(target).Action != Deny {
				t.Fatalf("%s was not offered and is allowed", target)
			}
		}
	})
}

// where decides the same in a system without a GUI domain: only whether a
// person can be asked differs.
func where(t *rapid.T, p *Policy, s *System, q Request, d Decision) {
	var list []*Domain
	for _, one := range s.domains {
		alike := *one
		alike.GUIVM = ""
		list = append(list, &alike)
	}
	blind, err := NewSystem(list)
	if err != nil {
		t.Fatal(err)
	}
	b := p.Decide(blind, q)
	want := d.Action
	if want == Ask {
		want = Deny
	}
	if b.Action != want || d.Action == Ask && b.Reason != NoGUI || b.Permits(true) != d.Permits(true) || b.Permits(false) != d.Permits(false) {
		t.Fatalf("%+v, and without a GUI domain %+v", d, b)
	}
}

// redirectsTo tells whether a rule above the denying one offers the target by
// its target=, or as what @dispvm means for the caller.
func redirectsTo(p *Policy, s *System, q Request, target string, deny *Rule) bool {
	c := &call{system: s, source: s.known[q.Source]}
	for _, r := range p.Rules() {
		if r == deny {
			return false
		}
		subject := r.target
		if r.redirect != nil {
			subject = *r.redirect
		} else if subject.kind != dispVM {
			continue
		}
		if t, why := subject.resolve(c); why == "" && t.choice() == target {
			return true
		}
	}
	return false
}

// final holds what must be true of every answer.
func final(t *rapid.T, s *System, q Request, d Decision) {
	switch d.Action {
	case Deny:
		if d.Reason == "" || d.Reason.Explain() == "" || d.Target != "" || len(d.Targets) != 0 {
			t.Fatalf("%+v", d)
		}
	case Allow:
		name, disposable := strings.CutPrefix(d.Target, "@dispvm:")
		to, ok := s.Lookup(name)
		switch {
		case !ok:
			t.Fatalf("%+v goes to %q, which does not exist", q, d.Target)
		case disposable && !to.Base:
			t.Fatalf("%+v makes a disposable of %s", q, name)
		case !disposable && to.Name == q.Source:
			t.Fatalf("%+v calls itself", q)
		case to.Class == "RemoteVM":
			t.Fatalf("%+v goes to a remote qube itself", q)
		case !d.Autostart && d.Service == "" && (disposable || to.State != "Running"):
			t.Fatalf("%+v starts %s", q, d.Target)
		}
	}
	if d.Permits(false) != (d.Action == Allow) {
		t.Fatalf("%+v", d)
	}
}

// FuzzLoad reads any text as a policy: there is a policy or an error with a
// place, and what was read decides without a panic.
func FuzzLoad(f *testing.F) {
	for _, e := range readExamples(f).Examples {
		for name, text := range e.Files {
			f.Add(text, strings.HasPrefix(name, "legacy/"))
		}
	}
	f.Add("!include-dir .\n!include-service * * x\n!compat-4.0\n", false)
	f.Add("s * @anyvm @dispvm:@tag: allow\n", false)
	root := f.TempDir()
	dirs := write(f, root, map[string]string{"policy.d/40-b.policy": "!compat-4.0", "legacy/s": "", "legacy/s+k": "$anyvm a ask"})
	f.Fuzz(func(t *testing.T, text string, old bool) {
		name := "policy.d/30-a.policy"
		if old {
			name = "legacy/s"
		}
		p, err := load(files{dirs: dirs, other: filepath.Join(root, name), text: []byte(text)})
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, filepath.Clean(root)) {
					t.Fatalf("an error without a place: %q", line)
				}
			}
			return
		}
		s, err := NewSystem([]*Domain{{Name: "dom0", UUID: nilUUID, Class: "AdminVM"}, {Name: "a", UUID: "a", GUIVM: "dom0", Base: true, DefaultDispVM: "a"}, {Name: "b", UUID: "b"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range []string{"dom0", "a", "b"} {
			for _, target := range []string{"", "@dispvm", "a", "b", "dom0", "@dispvm:a", "@x"} {
				for _, argument := range []string{"+", "+k"} {
					d := p.Decide(s, Request{"s", argument, source, target, ""})
					if d.Action != Allow && d.Action != Deny && d.Action != Ask {
						t.Fatalf("%+v", d)
					}
				}
			}
		}
	})
}

// BenchmarkDecide decides a call that the 106th rule fits, among 200 qubes;
// the project's aim is less than 2 µs.
func BenchmarkDecide(b *testing.B) {
	var list []*Domain
	for i := range 200 {
		list = append(list, &Domain{Name: fmt.Sprintf("qube%d", i), UUID: fmt.Sprint(i), Class: "AppVM", State: "Running", GUIVM: "dom0", Tags: []string{"work", "created-by-dom0"}})
	}
	s, err := NewSystem(append(list, &Domain{Name: "dom0", UUID: nilUUID, Class: "AdminVM", State: "Running"}))
	if err != nil {
		b.Fatal(err)
	}
	measure := func(rule func(int) string, last string) func(*testing.B) {
		return func(b *testing.B) {
			var text strings.Builder
			for i := range 105 {
				fmt.Fprintln(&text, rule(i))
			}
			fmt.Fprintln(&text, last)
			p, err := Load(write(b, b.TempDir(), map[string]string{"policy.d/30-a.policy": text.String()}))
			if err != nil {
				b.Fatal(err)
			}
			q := Request{"t.Service", "+", "qube7", "qube8", ""}
			if d := p.Decide(s, q); d.Rule == nil || d.Rule.Line != 106 {
				b.Fatalf("%+v", d)
			}
			for b.Loop() {
				p.Decide(s, q)
			}
		}
	}
	b.Run("services apart", measure(func(i int) string { return fmt.Sprintf("s.Number%d * @anyvm @anyvm deny", i) }, "t.Service * @anyvm @anyvm allow"))
	b.Run("one service", measure(func(i int) string { return fmt.Sprintf("t.Service * qube%d @tag:work deny", i+20) }, "t.Service * @anyvm @anyvm allow"))
	b.Run("one to ask about", measure(func(i int) string { return fmt.Sprintf("t.Service * qube%d @tag:work deny", i+20) }, "t.Service * @anyvm @anyvm ask"))
}
