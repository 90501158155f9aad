package calls

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"cubicle/daemon/admin"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/query"
	"cubicle/daemon/qube"
)

// served is a socket that is answered.
func (d *desk) served(name string, serve func(net.Listener) error) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		d.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(l) }()
	d.t.Cleanup(func() {
		d.Close()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
	})
	return path
}

// says is the whole answer to a text; half closes after it where half is set.
func says(t *testing.T, path, text string, half bool) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if half {
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestForeignDaemonsAreAnswered(t *testing.T) {
	d := newDesk(t, `
t.Svc * work mail allow user=root
t.Svc * work @dispvm allow
t.Svc * work dom0 allow
t.Ask * work mail ask notify=yes
`)
	path := d.served("policy.sock", func(l net.Listener) error { return d.ServePolicyd(l) })
	mail, dvm := string(d.qube("mail").UUID()), string(d.qube("dvm").UUID())
	d.agent.says(func(context.Context, heard) string { return "allow:mail" })
	const ask = "source=work\nintended_target=mail\nservice_and_arg=t.Ask\n"
	for in, want := range map[string]string{
		"source=work\nintended_target=mail\nservice_and_arg=t.Svc+x\nrequested_source=\n\n": "result=allow\nuser=root\ntarget=mail\ntarget_uuid=uuid:" + mail + "\nautostart=True\nrequested_target=mail\n",
		"source=work\nintended_target=@dispvm\nservice_and_arg=t.Svc\n\n":                   "result=allow\nuser=DEFAULT\ntarget=@dispvm:dvm\ntarget_uuid=@dispvm:uuid:" + dvm + "\nautostart=True\nrequested_target=@dispvm\n",
		"source=work\nintended_target=@adminvm\nservice_and_arg=t.Svc\n\n":                  "result=allow\nuser=DEFAULT\ntarget=dom0\nautostart=True\nrequested_target=@adminvm\n",
		"source=work\nintended_target=dvm\nservice_and_arg=t.Svc\n\n":                       "result=deny\n",
		"source=nobody\nintended_target=mail\nservice_and_arg=t.Svc\n\n":                    "result=deny\n",
		"source=Not a name\nintended_target=mail\nservice_and_arg=t.Svc\n\n":                "result=deny\n",
		"source=work\nintended_target=mail\nservice_and_arg=t/Svc\n\n":                      "result=deny\n",
		ask + "\n":                    "result=allow\nuser=DEFAULT\ntarget=mail\ntarget_uuid=uuid:" + mail + "\nautostart=True\nrequested_target=mail\n",
		ask + "just_evaluate=yes\n\n": "result=deny\n",
		ask + "just_evaluate=yes\nassume_yes_for_ask=yes\n\n":  "result=allow\n",
		ask + "assume_yes_for_ask=yes\njust_evaluate=no\n\n":   "result=allow\nuser=DEFAULT\ntarget=mail\ntarget_uuid=uuid:" + mail + "\nautostart=True\nrequested_target=mail\n",
		"source=work\nintended_target=mail\n\n":                "",
		ask + "source=work\n\n":                                "",
		ask + "colour=red\n\n":                                 "",
		ask + "just_evaluate=maybe\n\n":                        "",
		"source=work\nintended_target=mail\nservice_and_arg=x": "",
	} {
		for _, half := range []bool{true, false} {
			if !half && !strings.HasSuffix(in, "\n\n") {
				continue // it may go on
			}
			if got := says(t, path, in, half); got != want {
				t.Errorf("%q:\n%q, want\n%q", in, got, want)
			}
		}
	}
	if n := len(d.agent.told("policy.Ask")); n != 2 {
		t.Errorf("%d questions", n)
	}
	// Nothing was started or made.
	if d.qube("mail").State() != qube.Halted || len(d.disposables()) != 0 {
		t.Error("an answer began something")
	}
	// A daemon that hangs up gives up; one that only waits has not.
	d.agent.says(waiting)
	before := len(d.agent.told("policy.Ask"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := query.Ask(ctx, path, query.Request{Source: "work", Target: "mail", Service: "t.Ask"})
		done <- err
	}()
	await(t, "the dialog opens", func() bool { return len(d.agent.told("policy.Ask")) == before+1 })
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
	await(t, "the dialog closes", func() bool { return d.agent.hungUp() == 1 })
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, ask+"\n")
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	await(t, "the dialog opens", func() bool { return len(d.agent.told("policy.Ask")) == before+2 })
	c.Close()
	await(t, "the dialog closes", func() bool { return d.agent.hungUp() == 2 })
}

func TestEvaluations(t *testing.T) {
	d := newDesk(t, "t.Clip * work mail ask\nt.Clip +x dom0 work allow\nqubes.ClipboardPaste * work dvm allow target=mail\n")
	d.set("dvm", "guivm", "")
	simple := d.served("simple", func(l net.Listener) error { return d.ServeEvaluation(l, false) })
	gui := d.served("gui", func(l net.Listener) error { return d.ServeEvaluation(l, true) })
	const allow, deny = "result=allow\n", "result=deny\n"
	for _, c := range []struct{ descriptor, input, simple, gui string }{
		{"policy.EvalSimple+t.Clip dom0 keyword adminvm", "work\x00mail", allow, allow},
		{"policy.EvalSimple+t.Clip+ dom0", "work\x00mail", allow, allow},
		{"policy.EvalSimple+t.Clip mail", "work\x00mail", allow, deny}, // mail shows none of them
		{"policy.EvalSimple+t.Clip dom0", "work\x00dvm", deny, deny},
		{"policy.EvalSimple+qubes.ClipboardPaste dom0", "work\x00dvm", allow, deny}, // dvm is shown by nobody
		{"policy.EvalSimple+t.Clip+x dom0", "dom0\x00work", allow, deny},
		{"policy.EvalSimple+t.Clip+y dom0", "dom0\x00work", deny, deny},
		{"policy.EvalSimple+t.Clip dom0", "work\x00nobody", deny, deny},
		{"policy.EvalSimple+t.Clip dom0", "work\x00@default", deny, deny},
		{"policy.EvalSimple+t.Clip dom0", "work\x00mail\x00", "", ""},
		{"policy.EvalSimple+t.Clip dom0", "work\x00", "", ""},
		{"policy.EvalSimple+t.Clip dom0", "\x00mail", "", ""},
		{"policy.EvalSimple+t.Clip dom0", "work", "", ""},
		{"policy.EvalSimple+t.Clip dom0", "work\x00ma il", "", ""},
		{"policy.EvalSimple+t.Clip dom0", strings.Repeat("a", 32) + "\x00mail", "", ""},
		{"policy.EvalSimple+t.Clip dom0", "work\x00" + strings.Repeat("a", 64), "", ""},
		{"policy.EvalSimple dom0", "work\x00mail", "", ""},
		{"policy.EvalSimple+ dom0", "work\x00mail", "", ""},
		{"policy.EvalSimple+a/b dom0", "work\x00mail", "", ""},
		{"policy.EvalSimple+t.Clip", "work\x00mail", "", ""},
	} {
		for path, want := range map[string]string{simple: c.simple, gui: c.gui} {
			if got := says(t, path, c.descriptor+"\x00"+c.input, true); got != want {
				t.Errorf("%s: %q with %q: %q, want %q", filepath.Base(path), c.descriptor, c.input, got, want)
			}
		}
	}
}

func FuzzParseEvaluation(f *testing.F) {
	for _, seed := range [][2]string{
		{"policy.EvalSimple+qubes.ClipboardPaste dom0 keyword adminvm", "work\x00mail"},
		{"policy.EvalGUI+t.Svc+a sys-gui", "work\x00@dispvm"},
		{"policy.EvalSimple+t dom0", "a\x00b\x00"}, {"", ""}, {"x+ ", "\x00"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, descriptor, input string) {
		e, err := parseEvaluation(descriptor, input)
		if err != nil {
			return
		}
		if policy.CheckService(e.service, e.argument) != nil || e.source == "" || e.target == "" || len(e.source) > 31 || len(e.target) > 63 ||
			!isEvalName(e.source) || !isEvalName(e.target) || input != e.source+"\x00"+e.target {
			t.Errorf("%q, %q: %+v", descriptor, input, e)
		}
		if !strings.Contains(descriptor, "+"+e.service) || !strings.Contains(descriptor, " "+e.caller) {
			t.Errorf("%q: %+v", descriptor, e)
		}
	})
}

func TestTheAdminAPIFollowsThePolicy(t *testing.T) {
	d := newDesk(t, `
admin.vm.List * work @adminvm allow target=dom0
admin.vm.List * work @tag:shown allow target=dom0
admin.vm.List * work dvm ask target=dom0
admin.vm.Start * work mail allow target=dom0
admin.vm.Kill +now work mail ask target=dom0
admin.vm.Pause * work mail allow
qubes.FeaturesRequest * @anyvm dom0 allow
admin.Events +domain-start work mail allow target=dom0
* * mail dom0 allow
`)
	if err := d.SetTag(d.qube("mail").UUID(), "shown"); err != nil {
		t.Fatal(err)
	}
	ask := func(source, dest, method, arg string, shown bool) bool {
		q := admin.Question{Source: d.qube(source), Method: method, Arg: arg, Shown: shown}
		if dest != "" {
			q.Dest, q.Known = d.qube(dest), true
		}
		return d.Allows(q)
	}
	for _, c := range []struct {
		source, dest, method, arg string
		call, shown               bool
	}{
		{"dom0", "work", "admin.vm.Kill", "", true, true},
		{"dom0", "", "internal.Anything", "a/b", true, true},
		{"work", "dom0", "admin.vm.List", "", true, true},
		{"work", "mail", "admin.vm.List", "", true, true},
		{"work", "work", "admin.vm.List", "", false, false},
		{"work", "dvm", "admin.vm.List", "", true, false}, // a person was asked about the call, not about the list
		{"work", "mail", "admin.vm.Start", "", true, true},
		{"work", "dvm", "admin.vm.Start", "", false, false},
		{"work", "", "admin.vm.Start", "", false, false},
		{"work", "mail", "admin.vm.Kill", "now", true, false},
		{"work", "mail", "admin.vm.Kill", "", false, false},
		{"work", "mail", "admin.vm.Pause", "", false, false}, // it may call it in mail, not in dom0
		{"work", "dom0", "qubes.FeaturesRequest", "", true, true},
		{"work", "mail", "admin.Events", "domain-start", true, true},
		{"work", "mail", "admin.Events", "domain-shutdown", false, false},
		{"work", "mail", "admin.vm.Start", "a/b", false, false},
		{"mail", "dom0", "admin.vm.Kill", "", true, true},
		{"mail", "dom0", "internal.GetSystemInfo", "", false, false},
	} {
		for range 2 { // the second one is remembered
			if got := ask(c.source, c.dest, c.method, c.arg, false); got != c.call {
				t.Errorf("%s calls %s+%s of %q: %v", c.source, c.method, c.arg, c.dest, got)
			}
			if got := ask(c.source, c.dest, c.method, c.arg, true); got != c.shown {
				t.Errorf("%s is shown %s+%s of %q: %v", c.source, c.method, c.arg, c.dest, got)
			}
		}
	}
	// What is remembered follows the qubes and the policy.
	if err := d.RemoveTag(d.qube("mail").UUID(), "shown"); err != nil {
		t.Fatal(err)
	}
	if ask("work", "mail", "admin.vm.List", "", true) {
		t.Error("a tag that was taken away still counts")
	}
	d.write("30-user.policy", "wrong\n")
	await(t, "a wrong policy counts", func() bool { return !ask("work", "dom0", "admin.vm.List", "", false) })
}

// BenchmarkAllows filters one list of 500 qubes.
func BenchmarkAllows(b *testing.B) {
	s := coretest.NewSystem(b)
	if _, err := s.NewQube("work", "red"); err != nil {
		b.Fatal(err)
	}
	c := benchmarked(b, s, 500)
	v := s.View()
	work, _ := v.Named("work")
	qubes := v.Qubes()
	b.ResetTimer()
	for b.Loop() {
		for _, q := range qubes {
			c.Allows(admin.Question{Source: work, Dest: q, Known: true, Method: "admin.vm.List", Shown: true})
		}
	}
}
