package core_test

import (
	"context"
	"path/filepath"
	"testing"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/engine/external"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// A qube of the engine external has neither volumes nor link while it runs; its
// agents come when they come, and it runs on without the daemon.
func TestForeignAgents(t *testing.T) {
	w, dir := coretest.New(), t.TempDir()
	open := func() *coretest.System {
		foreign, err := external.New(filepath.Join(dir, "external"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := coretest.Start(w, dir, core.WallClock{}, foreign)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	defer func() { s.Close() }()
	q := create(t, s, core.NewQube{Name: "guest", Class: "StandaloneVM", Properties: properties{"engine": "external", "external_domain": "7"}})
	id := q.UUID()
	if err := s.Done(s.Core.Start(id)); err != nil {
		t.Fatal(err)
	}
	if q = named(t, s, "guest"); q.State() != qube.Transient || q.XID() != 7 {
		t.Errorf("%s, domain %d", q.State(), q.XID())
	}
	if got := w.Announced(7); got != (control.Qube{Domain: 7, Name: "guest", UUID: string(id), DefaultUser: "user"}) {
		t.Errorf("the router was told %+v", got)
	}
	for _, v := range w.Leftovers() {
		if v != "link 7" {
			t.Errorf("it has taken: %s", v)
		}
	}
	s.Router.Hello(7, true)
	wait(t, "its agent is heard", func() bool { return s.State(id) == qube.Running })
	if err := s.Done(s.Core.Start(id)); err != nil {
		t.Error(err)
	}
	if err := s.Done(s.Pause(id)); core.KindOf(err) != core.NotImplemented || s.State(id) != qube.Running {
		t.Errorf("pause: %v, then %s", err, s.State(id))
	}
	// Another one cannot have the same domain; one without gets an id of ours.
	twin := create(t, s, core.NewQube{Name: "twin", Class: "StandaloneVM", Properties: properties{"engine": "external", "external_domain": "7"}})
	if err := s.Done(s.Core.Start(twin.UUID())); core.KindOf(err) != core.InUse {
		t.Errorf("two qubes have one domain: %v", err)
	}
	if err := s.ResetProperty(twin.UUID(), "external_domain"); err != nil {
		t.Error(err)
	}
	if err := s.Done(s.Core.Start(twin.UUID())); err != nil || named(t, s, "twin").XID() < int(vchan.FirstDomain) {
		t.Errorf("domain %d: %v", named(t, s, "twin").XID(), err)
	}

	s.Close()
	s = open()
	if q = named(t, s, "guest"); q.State() != qube.Transient || q.XID() != 7 {
		t.Errorf("after a restart: %s, domain %d", q.State(), q.XID())
	}
	wait(t, "the router is told again", func() bool { return w.Announced(7).LinkDir == "" && w.Announced(7).Name == "guest" })
	s.Router.Hello(7, true)
	wait(t, "its agent is heard again", func() bool { return s.State(id) == qube.Running })
	if err := s.Done(s.Shutdown(context.Background(), id, false)); err != nil || s.State(id) != qube.Halted {
		t.Errorf("shutdown: %v, then %s", err, s.State(id))
	}
	if err := s.Done(s.Kill(twin.UUID())); err != nil {
		t.Error(err)
	}
	if left := w.Leftovers(); len(left) > 0 || len(w.Breaches()) > 0 {
		t.Errorf("left: %v; breaches: %v", left, w.Breaches())
	}
}
