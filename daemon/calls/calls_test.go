package calls

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/policy"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// A check is a small life of a system: fewer of them do, unless the command
// line wants more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// desk is a system with a decider and a policy agent that does as it is told.
type desk struct {
	t *testing.T
	*coretest.System
	*Calls
	dir   string
	agent *agent
}

// newDesk has the halted qubes work and mail, and dvm, which is work's base of
// disposables.
func newDesk(t *testing.T, rules string) *desk {
	t.Helper()
	return newDeskOn(t, coretest.NewSystem(t), rules)
}

func newDeskOn(t *testing.T, s *coretest.System, rules string) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "calls") // a short path: it becomes a socket's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, System: s, dir: dir, agent: newAgent(t, filepath.Join(dir, "agent"))}
	for _, sub := range []string{"etc/include", "run", "old"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.write("30-user.policy", rules)
	for _, name := range []string{"work", "mail", "dvm"} {
		if _, err := s.NewQube(name, "red"); err != nil {
			t.Fatal(err)
		}
	}
	d.set("dvm", "template_for_dispvms", "True")
	d.set("work", "default_dispvm", "dvm")
	d.open(Options{})
	return d
}

// open begins a decider.
func (d *desk) open(o Options) {
	d.t.Helper()
	o.Core, o.Log = d.Core, slog.New(slog.DiscardHandler)
	o.Dirs = policy.Dirs{Policy: []string{d.path(""), filepath.Join(d.dir, "run")}, Legacy: filepath.Join(d.dir, "old")}
	o.Agent, o.AgentUsers, o.Disposables = d.agent.path, []int{os.Getuid()}, filepath.Join(d.dir, "disposables")
	c, err := New(o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.Calls = c
	d.t.Cleanup(c.Close)
}

func (d *desk) Close() { d.Calls.Close() }

func (d *desk) path(name string) string { return filepath.Join(d.dir, "etc", name) }

func (d *desk) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) qube(name string) core.Qube {
	d.t.Helper()
	q, ok := d.View().Named(qube.Name(name))
	if !ok {
		d.t.Fatalf("there is no %s", name)
	}
	return q
}

func (d *desk) set(name, property, value string) {
	d.t.Helper()
	if err := d.SetProperty(d.qube(name).UUID(), property, value); err != nil {
		d.t.Fatal(err)
	}
}

// run starts a qube and returns its domain.
func (d *desk) run(name string) vchan.Domain {
	d.t.Helper()
	if err := d.Done(d.Start(d.qube(name).UUID())); err != nil {
		d.t.Fatal(err)
	}
	return vchan.Domain(d.qube(name).XID())
}

// call is a call of work's.
func (d *desk) call(ctx context.Context, service, target string) (control.Verdict, func(control.End)) {
	d.t.Helper()
	return d.Decide(ctx, control.Call{Number: 5, Source: vchan.Domain(d.qube("work").XID()), Service: service, Target: target})
}

// disposables are the names of those that exist.
func (d *desk) disposables() []string {
	var names []string
	for _, q := range d.View().Qubes() {
		if q.Class() == qube.DispVM {
			names = append(names, string(q.Name()))
		}
	}
	return names
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// heard is what the agent was told.
type heard struct {
	Service string `json:"-"`
	Text    string `json:"-"`

	Source     string            `json:"source"`
	Name       string            `json:"service"`
	Argument   string            `json:"argument"`
	Targets    []string          `json:"targets"`
	Default    string            `json:"default_target"`
	Icons      map[string]string `json:"icons"`
	Rule       string            `json:"rule"`
	Resolution string            `json:"resolution"`
	Target     string            `json:"target"`
}

// agent is a policy agent.
type agent struct {
	path string
	l    net.Listener

	mu    sync.Mutex
	heard []heard
	gone  int // callers that hung up before the answer
	// answer gives the answer; it may wait for the end of the context, which
	// is the caller's hanging up.
	answer func(context.Context, heard) string
}

func newAgent(t *testing.T, path string) *agent {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{path: path, l: l, answer: func(context.Context, heard) string { return "deny" }}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(c)
		}
	}()
	return a
}

func (a *agent) serve(c net.Conn) {
	defer c.Close()
	raw, err := io.ReadAll(c)
	if err != nil {
		return
	}
	header, body, _ := strings.Cut(string(raw), "\x00")
	h := heard{Service: header, Text: body}
	if json.Unmarshal([]byte(body), &h) != nil {
		return
	}
	a.mu.Lock()
	a.heard = append(a.heard, h)
	answer := a.answer
	a.mu.Unlock()
	if !strings.HasPrefix(header, "policy.Ask") {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		awaitHangup(ctx, c)
		if ctx.Err() == nil {
			a.mu.Lock()
			a.gone++
			a.mu.Unlock()
			cancel()
		}
	}()
	io.WriteString(c, answer(ctx, h))
}

func (a *agent) says(answer func(context.Context, heard) string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// told are the conversations of a service.
func (a *agent) told(service string) []heard {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []heard
	for _, h := range a.heard {
		if h.Service == service+" dom0 name dom0" {
			list = append(list, h)
		}
	}
	return list
}

func (a *agent) hungUp() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gone
}

func TestVerdicts(t *testing.T) {
	d := newDesk(t, `
t.Svc * work mail allow
t.Svc * relay mail allow
t.Svc * far mail allow
t.Root * work mail allow user=root
t.Odd * work mail allow user=a:b
t.Far * work far allow
t.Home * work @default allow target=dom0
t.Home * work mail allow target=dom0
t.Home * work @adminvm allow
t.Home * work @dispvm allow target=dom0
t.Off * work mail allow autostart=no
`)
	if err := d.Done(d.Create(core.NewQube{Name: "far", Class: "RemoteVM", Label: "red", Creator: qube.Dom0})); err != nil {
		t.Fatal(err)
	}
	if _, err := d.NewQube("relay", "red"); err != nil {
		t.Fatal(err)
	}
	d.set("far", "relayvm", "relay")
	d.set("far", "transport_rpc", "tunnel.SSH")
	d.set("mail", "default_user", "mia")
	work, mail, relay := d.run("work"), d.run("mail"), d.run("relay")
	far, none := "far", ""
	for _, c := range []struct {
		call control.Call
		want control.Verdict
	}{
		{control.Call{Source: work, Service: "t.Svc", Target: "mail"}, control.Verdict{Allowed: true, Target: mail, Command: "mia:QUBESRPC t.Svc+ work"}},
		{control.Call{Source: work, Service: "t.Svc+k+l", Target: "mail", RequestedSource: &none}, control.Verdict{Allowed: true, Target: mail, Command: "mia:QUBESRPC t.Svc+k+l work"}},
		{control.Call{Source: work, Service: "t.Root", Target: "uuid:" + string(d.qube("mail").UUID())}, control.Verdict{Allowed: true, Target: mail, Command: "root:QUBESRPC t.Root+ work"}},
		{control.Call{Source: relay, Service: "t.Svc", Target: "mail", RequestedSource: &far}, control.Verdict{Allowed: true, Target: mail, Command: "mia:QUBESRPC t.Svc+ far"}},
		{control.Call{Source: work, Service: "t.Svc", Target: "mail", RequestedSource: &far}, control.Verdict{Reason: policy.WrongRelay.Explain()}},
		{control.Call{Source: work, Service: "t.Far+x", Target: "far"}, control.Verdict{Allowed: true, Target: relay, Command: "user:QUBESRPC tunnel.SSH+far+t.Far+x work"}},
		{control.Call{Source: work, Service: "t.Home", Target: "dom0"}, control.Verdict{Allowed: true, Command: "QUBESRPC t.Home+ work name dom0"}},
		{control.Call{Source: work, Service: "t.Home", Target: "@adminvm"}, control.Verdict{Allowed: true, Command: "QUBESRPC t.Home+ work keyword adminvm"}},
		{control.Call{Source: work, Service: "t.Home+a", Target: ""}, control.Verdict{Allowed: true, Command: "QUBESRPC t.Home+a work keyword default"}},
		{control.Call{Source: work, Service: "t.Home", Target: "nobody"}, control.Verdict{Allowed: true, Command: "QUBESRPC t.Home+ work keyword default"}},
		{control.Call{Source: work, Service: "t.Home", Target: "mail"}, control.Verdict{Allowed: true, Command: "QUBESRPC t.Home+ work name mail"}},
		{control.Call{Source: work, Service: "t.Home", Target: "@dispvm"}, control.Verdict{Allowed: true, Command: "QUBESRPC t.Home+ work keyword dispvm"}},
		{control.Call{Source: work, Service: "t.Svc", Target: "dom0"}, control.Verdict{Reason: policy.NoRule.Explain()}},
		{control.Call{Source: work, Service: "t.Svc", Target: "@anyvm"}, control.Verdict{Reason: policy.BadTarget.Explain()}},
		{control.Call{Source: work, Service: "t.Odd", Target: "mail"}, control.Verdict{Reason: `"a:b" cannot be a user of mail`}},
		{control.Call{Source: work, Service: "t/Svc", Target: "mail"}, control.Verdict{Reason: `"t/Svc" is not the name of a service`}},
		{control.Call{Source: work, Service: "", Target: "mail"}, control.Verdict{Reason: `"" is not the name of a service`}},
		{control.Call{Source: 99, Service: "t.Svc", Target: "mail"}, control.Verdict{Reason: "there is no qube with the domain id 99"}},
	} {
		v, over := d.Decide(t.Context(), c.call)
		if v != c.want || (over != nil) != c.want.Allowed {
			t.Errorf("%+v:\n%+v, want\n%+v", c.call, v, c.want)
		}
	}
	if err := d.Done(d.Kill(d.qube("mail").UUID())); err != nil {
		t.Fatal(err)
	}
	if v, _ := d.call(t.Context(), "t.Off", "mail"); v.Allowed || v.Reason != policy.NoAutostart.Explain() {
		t.Errorf("%+v", v)
	}
}

func TestTargetsAreStarted(t *testing.T) {
	d := newDesk(t, "t.Svc * work mail allow\n")
	d.run("work")
	v, over := d.call(t.Context(), "t.Svc", "mail")
	if !v.Allowed || int(v.Target) != d.qube("mail").XID() || d.qube("mail").State() != qube.Running {
		t.Fatalf("%+v", v)
	}
	over(control.End{Connect: 1e6, Service: 2e6})
	e := d.Recent("mail", 9)
	if len(e) != 1 || !e[0].Allowed || e[0].Running || e[0].Target != "mail" || e[0].Connect != time.Millisecond || e[0].Run != 2*time.Millisecond ||
		!strings.HasSuffix(e[0].Rule, "/30-user.policy:1") || e[0].Start <= 0 || e[0].Policy <= 0 {
		t.Errorf("%+v", e)
	}
	// A paused one gets the call, and does it when it goes on.
	if err := d.Done(d.Pause(d.qube("mail").UUID())); err != nil {
		t.Fatal(err)
	}
	if v, _ := d.call(t.Context(), "t.Svc", "mail"); !v.Allowed {
		t.Errorf("%+v", v)
	}
	if err := d.Done(d.Kill(d.qube("mail").UUID())); err != nil {
		t.Fatal(err)
	}
	d.World.Set(func(w *coretest.World) { w.FailStart = io.ErrNoProgress })
	v, over = d.call(t.Context(), "t.Svc", "mail")
	if v.Allowed || over != nil || !strings.Contains(v.Reason, "start mail for a call: ") || !strings.Contains(v.Reason, io.ErrNoProgress.Error()) {
		t.Errorf("%+v", v)
	}
	await(t, "people are told", func() bool {
		n := d.agent.told("policy.Notify")
		return len(n) == 1 && n[0].Resolution == "fail" && n[0].Target == "mail" && n[0].Source == "work"
	})
	// One that does not get ready in time.
	d.World.Set(func(w *coretest.World) { w.FailStart, w.Mute = nil, true })
	d.Close()
	d.open(Options{StartTime: 30 * time.Millisecond})
	if v, _ = d.call(t.Context(), "t.Svc", "mail"); v.Allowed || !strings.Contains(v.Reason, "it was not ready within 30ms") {
		t.Errorf("%+v", v)
	}
	if err := d.Done(d.Kill(d.qube("mail").UUID())); err != nil {
		t.Fatal(err)
	}
}
