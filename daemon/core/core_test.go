package core_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
)

// wait fails the test unless a condition comes true soon.
func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: " + what)
		}
	}
}

// begun is a new world with the template debian-12, on a folder, for tests that
// start the daemon anew.
func begun(t testing.TB) (*coretest.World, string, *coretest.System) {
	t.Helper()
	w, dir := coretest.New(), t.TempDir()
	s := again(t, w, dir)
	if err := s.Done(s.CreateTemplate("debian-12", "x")); err != nil {
		t.Fatal(err)
	}
	return w, dir, s
}

// again starts the daemon on a folder.
func again(t testing.TB, w *coretest.World, dir string) *coretest.System {
	t.Helper()
	s, err := coretest.Start(w, dir, core.WallClock{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newQube(t *testing.T, s *coretest.System, name string) qube.UUID {
	t.Helper()
	id, err := s.NewQube(name, "blue")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLifeOfAQube(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := coretest.NewSystem(t)
	defer s.Close()
	work := newQube(t, s, "work")
	sub := s.Subscribe()
	defer sub.Close()
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Fatal(err)
	}
	q, _ := s.View().Lookup(work)
	if q.State() != qube.Running || q.XID() < 0x8000 || q.Started().IsZero() {
		t.Errorf("%s, domain %d, since %v", q.State(), q.XID(), q.Started())
	}
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Errorf("a second start: %v", err)
	}
	if err := s.Done(s.StartApp(work, "xterm")); err != nil {
		t.Error(err)
	}
	if calls := s.World.Calls(); len(calls) != 1 || calls[0].Name != "qubes.StartApp+xterm" || int(calls[0].To) != q.XID() {
		t.Errorf("called: %+v", calls)
	}
	if err := s.Done(s.Pause(work)); err != nil || s.State(work) != qube.Paused {
		t.Error(err, s.State(work))
	}
	if _, err := s.Shutdown(context.Background(), work, false); core.KindOf(err) != core.NotRunning {
		t.Errorf("shutdown of a paused qube: %v", err)
	}
	if err := s.Done(s.Unpause(work)); err != nil || s.State(work) != qube.Running {
		t.Error(err, s.State(work))
	}
	if err := s.Done(s.Shutdown(context.Background(), work, false)); err != nil || s.State(work) != qube.Halted {
		t.Error(err, s.State(work))
	}
	if left := s.World.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if n := s.World.Commits("appvms/work/private"); n != 1 {
		t.Errorf("the private volume was committed %d times", n)
	}
	var names []string
	batch, _, err := sub.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range batch {
		if strings.HasPrefix(e.Name, "domain-") && e.Subject == "work" {
			names = append(names, e.Name)
		}
	}
	want := "domain-pre-start domain-pre-spawn domain-spawn domain-start domain-pre-paused domain-paused domain-pre-unpaused domain-unpaused " +
		"domain-pre-shutdown domain-stopped domain-shutdown"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("events:\n%s\nwant\n%s", got, want)
	}
}

func TestEveryFailureOfAStartIsUndone(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		set, reset func(*coretest.World)
		kind       core.Kind
	}{
		"root":    {func(w *coretest.World) { w.FailPool["start appvms/work/root"] = boom }, func(w *coretest.World) { clear(w.FailPool) }, core.VMError},
		"private": {func(w *coretest.World) { w.FailPool["start appvms/work/private"] = boom }, func(w *coretest.World) { clear(w.FailPool) }, core.VMError},
		"link":    {func(w *coretest.World) { w.FailUp = boom }, func(w *coretest.World) { w.FailUp = nil }, core.VMError},
		"prepare": {func(w *coretest.World) { w.FailPrepare = engine.ErrNoMemory }, func(w *coretest.World) { w.FailPrepare = nil }, core.NoMemory},
		"start":   {func(w *coretest.World) { w.FailStart = boom }, func(w *coretest.World) { w.FailStart = nil }, core.VMError},
	} {
		t.Run(name, func(t *testing.T) {
			s := coretest.NewSystem(t)
			work := newQube(t, s, "work")
			s.World.Set(c.set)
			err := s.Done(s.Core.Start(work))
			if core.KindOf(err) != c.kind || !strings.Contains(err.Error(), "work") {
				t.Errorf("%s: %v", core.KindOf(err), err)
			}
			if s.State(work) != qube.Halted {
				t.Errorf("the qube is %s", s.State(work))
			}
			if left := s.World.Leftovers(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			for _, dir := range []string{"links", "runs"} {
				if entries, _ := os.ReadDir(filepath.Join(s.Dir, dir)); len(entries) > 0 {
					t.Errorf("%s holds %v", dir, entries)
				}
			}
			s.World.Set(c.reset)
			if err := s.Done(s.Core.Start(work)); err != nil {
				t.Errorf("the next start: %v", err)
			}
		})
	}
}

func TestAnAgentThatNeverAnswersEndsTheStart(t *testing.T) {
	clock := coretest.NewClock()
	w := coretest.New()
	s, err := coretest.Start(w, t.TempDir(), clock)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Done(s.CreateTemplate("debian-12", "x")); err != nil {
		t.Fatal(err)
	}
	work := newQube(t, s, "work")
	if err := s.SetProperty(work, "qrexec_timeout", "5"); err != nil {
		t.Fatal(err)
	}
	w.Set(func(w *coretest.World) { w.Mute = true })
	job, err := s.Core.Start(work)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the machine runs", func() bool { q, _ := s.View().Lookup(work); return q.XID() > 0 })
	time.Sleep(5 * time.Millisecond) // the start reaches its wait
	clock.Advance(6 * time.Second)
	if err := s.Wait(context.Background(), job); err == nil || !strings.Contains(err.Error(), "5 s") {
		t.Errorf("%v", err)
	}
	if left := w.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestKillAndCancelEndAStart(t *testing.T) {
	s := coretest.NewSystem(t)
	work := newQube(t, s, "work")
	s.World.Set(func(w *coretest.World) { w.Mute = true })
	for name, end := range map[string]func(job uint64) error{
		"kill":     func(uint64) error { return s.Done(s.Kill(work)) },
		"shutdown": func(uint64) error { return s.Done(s.Shutdown(context.Background(), work, false)) },
		"cancel":   func(job uint64) error { return s.Cancel(job) },
	} {
		job, err := s.Start(work)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, name+": the machine runs", func() bool { q, _ := s.View().Lookup(work); return q.XID() > 0 })
		if err := end(job); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		err = s.Wait(context.Background(), job)
		if core.KindOf(err) != core.Cancelled || strings.Contains(err.Error(), "killed") == (name == "cancel") {
			t.Errorf("%s: the start ended with %v", name, err)
		}
		if left := s.World.Leftovers(); len(left) > 0 || s.State(work) != qube.Halted {
			t.Errorf("%s: %s, left: %v", name, s.State(work), left)
		}
	}
}

func TestWantOfMemoryIsToldWhileTheQubeRuns(t *testing.T) {
	s := coretest.NewSystem(t)
	work := newQube(t, s, "work")
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Fatal(err)
	}
	s.Engine.Starve(string(work))
	trouble := func() string {
		q, _ := s.View().Lookup(work)
		return q.Trouble()
	}
	wait(t, "the trouble is told", func() bool { return strings.Contains(trouble(), "out of memory: a program was ended") })
	if s.State(work) != qube.Running {
		t.Errorf("the qube is %s", s.State(work))
	}
	for _, change := range []func(qube.UUID) (uint64, error){func(id qube.UUID) (uint64, error) { return s.Core.Kill(id) }, s.Core.Start} {
		if err := s.Done(change(work)); err != nil {
			t.Fatal(err)
		}
	}
	if got := trouble(); got != "" {
		t.Errorf("the next run is in trouble: %s", got)
	}
}

func TestACrashIsToldAndCleanedUp(t *testing.T) {
	s := coretest.NewSystem(t)
	work := newQube(t, s, "work")
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Fatal(err)
	}
	s.Engine.Crash(string(work), engine.OutOfMemory)
	wait(t, "the qube is halted", func() bool { return s.State(work) == qube.Halted })
	q, _ := s.View().Lookup(work)
	if !strings.Contains(q.Trouble(), "out of memory") {
		t.Errorf("trouble: %q", q.Trouble())
	}
	if left := s.World.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if s.World.Commits("appvms/work/private") != 1 {
		t.Error("the user's data was not kept")
	}
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Fatal(err)
	}
	if q, _ := s.View().Lookup(work); q.Trouble() != "" {
		t.Errorf("still in trouble: %s", q.Trouble())
	}
}

func TestATemplateIsCommittedOnlyAtAnOrderlyEnd(t *testing.T) {
	s := coretest.NewSystem(t)
	q, _ := s.View().Named("debian-12")
	for _, c := range []struct {
		end  func() error
		want int
	}{
		{func() error { return s.Done(s.Kill(q.UUID())) }, 0},
		{func() error { return s.Done(s.Shutdown(context.Background(), q.UUID(), false)) }, 1},
	} {
		if err := s.Done(s.Core.Start(q.UUID())); err != nil {
			t.Fatal(err)
		}
		if err := c.end(); err != nil {
			t.Fatal(err)
		}
		if n := s.World.Commits("vm-templates/debian-12/root"); n != c.want {
			t.Errorf("%d commits, want %d", n, c.want)
		}
	}
}

func TestADeafQubeTimesOutAndRunsOn(t *testing.T) {
	clock := coretest.NewClock()
	w := coretest.New()
	s, err := coretest.Start(w, t.TempDir(), clock)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Done(s.CreateTemplate("debian-12", "x")); err != nil {
		t.Fatal(err)
	}
	work := newQube(t, s, "work")
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Fatal(err)
	}
	w.Set(func(w *coretest.World) { w.Deaf = true })
	job, err := s.Shutdown(context.Background(), work, false)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond) // the job reaches its wait
	clock.Advance(61 * time.Second)
	if err := s.Wait(context.Background(), job); core.KindOf(err) != core.ShutdownTimeout {
		t.Errorf("%v", err)
	}
	if s.State(work) != qube.Running {
		t.Errorf("the qube is %s", s.State(work))
	}
	if err := s.Done(s.Kill(work)); err != nil || s.State(work) != qube.Halted {
		t.Error(err, s.State(work))
	}
}

func TestARestartedDaemonFindsItsQubes(t *testing.T) {
	w, dir, s := begun(t)
	work, personal, vault := newQube(t, s, "work"), newQube(t, s, "personal"), newQube(t, s, "vault")
	for _, id := range []qube.UUID{work, personal, vault} {
		if err := s.Done(s.Core.Start(id)); err != nil {
			t.Fatal(err)
		}
	}
	domain := w.Up()[string(work)]
	if err := s.Done(s.Pause(personal)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Engine.Crash(string(vault), engine.Crashed) // while nobody looks

	s = again(t, w, dir)
	defer s.Close()
	wait(t, "work runs", func() bool { return s.State(work) == qube.Running })
	q, _ := s.View().Lookup(work)
	if q.XID() != int(domain) || s.State(personal) != qube.Paused || s.State(vault) != qube.Halted {
		t.Errorf("domain %d, was %d; personal %s, vault %s", q.XID(), domain, s.State(personal), s.State(vault))
	}
	if err := s.Done(s.Core.Start(vault)); err != nil {
		t.Fatal(err)
	}
	if err := s.StopAll(context.Background(), time.Second); err != nil {
		t.Error(err)
	}
	if left := w.Leftovers(); len(left) > 0 || len(w.Breaches()) > 0 {
		t.Errorf("left: %v; breaches: %v", left, w.Breaches())
	}
}

func TestAnInterruptedCreationLeavesNothing(t *testing.T) {
	w, dir, s := begun(t)
	// Failure half-way.
	w.Set(func(w *coretest.World) { w.FailPool["create appvms/work/private"] = errors.New("boom") })
	if _, err := s.NewQube("work", "red"); err == nil {
		t.Fatal("no error")
	}
	if _, ok := s.View().Named("work"); ok {
		t.Error("a qube that could not be made is there")
	}
	// A crash half-way: the file says that the qube is not whole.
	w.Set(func(w *coretest.World) { clear(w.FailPool) })
	newQube(t, s, "work")
	s.Close()
	path := filepath.Join(dir, "state/appvms/work/qube.toml")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("pending = \"create\"\n"), raw...), 0o600); err != nil {
		t.Fatal(err)
	}
	s = again(t, w, dir)
	defer s.Close()
	if _, ok := s.View().Named("work"); ok {
		t.Error("half a qube was loaded")
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is there: %v", err)
	}
	for _, v := range w.Volumes() {
		if strings.HasPrefix(v, "appvms/work") {
			t.Errorf("volume %s is there", v)
		}
	}
	if _, err := s.NewQube("work", "red"); err != nil {
		t.Errorf("the name cannot be used again: %v", err)
	}
}

func TestABrokenQubeIsShownAndCanBeRemoved(t *testing.T) {
	w, dir, s := begun(t)
	newQube(t, s, "work")
	newQube(t, s, "personal")
	s.Close()
	if err := os.WriteFile(filepath.Join(dir, "state/appvms/work/qube.toml"), []byte("uuid = 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = again(t, w, dir)
	defer s.Close()
	q, _ := s.View().Named("work")
	if q.State() != qube.NA || !strings.Contains(q.Trouble(), "qube.toml") {
		t.Errorf("%s: %q", q.State(), q.Trouble())
	}
	if err := s.Done(s.Core.Start(q.UUID())); err == nil || s.SetProperty(q.UUID(), "memory", "1") == nil {
		t.Error("a broken qube was started or changed")
	}
	p, _ := s.View().Named("personal")
	if err := s.Done(s.Core.Start(p.UUID())); err != nil {
		t.Errorf("the other qube: %v", err)
	}
	if err := s.Done(s.Remove(q.UUID())); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func TestCloneCopiesSettingsAndData(t *testing.T) {
	s := coretest.NewSystem(t)
	work := newQube(t, s, "work")
	if err := errors.Join(s.SetProperty(work, "memory", "700"), s.SetFeature(work, "menu-items", "xterm"), s.SetTag(work, "mine")); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Clone(work, "copy", qube.Dom0)); err != nil {
		t.Fatal(err)
	}
	q, ok := s.View().Named("copy")
	if !ok || q.Number("memory") != 700 || q.Label().Name != "blue" || !slices.Contains(q.Tags(), "mine") || q.UUID() == work {
		t.Errorf("%+v", q)
	}
	if !slices.Contains(s.World.Volumes(), "appvms/copy/private") {
		t.Errorf("volumes: %v", s.World.Volumes())
	}
	template, _ := s.View().Named("debian-12")
	if err := s.Done(s.Remove(template.UUID())); core.KindOf(err) != core.InUse {
		t.Errorf("a template in use was removed: %v", err)
	}
	for _, n := range []qube.Name{"work", "copy"} {
		q, _ := s.View().Named(n)
		if err := s.Done(s.Remove(q.UUID())); err != nil {
			t.Error(err)
		}
	}
	if v := s.World.Volumes(); len(v) != 3 {
		t.Errorf("left: %v", v)
	}
}

func TestTemplateHasTheFeaturesOfItsRecipe(t *testing.T) {
	s := coretest.NewSystem(t)
	s.World.Set(func(w *coretest.World) { w.Made = map[string]string{"qrexec": "1", "os": "Linux"} })
	if err := s.Done(s.CreateTemplate("other", "other")); err != nil {
		t.Fatal(err)
	}
	q, _ := s.View().Named("other")
	if got := q.Features(); got["qrexec"] != "1" || got["os"] != "Linux" {
		t.Errorf("%v", got)
	}
	s.World.Set(func(w *coretest.World) { w.Made = map[string]string{"a b": "1"} })
	if _, err := s.CreateTemplate("third", "third"); core.KindOf(err) != core.BadValue {
		t.Errorf("a feature that cannot be: %v", err)
	}
}

func TestTemplateBuildCanBeCancelled(t *testing.T) {
	s := coretest.NewSystem(t)
	s.World.Set(func(w *coretest.World) { w.BuildWait = make(chan struct{}) })
	job, err := s.CreateTemplate("other", "other")
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "progress is told", func() bool { j, _ := s.View().Job(job); return j.Progress > 0.4 })
	if _, err := s.CreateTemplate("other", "other"); core.KindOf(err) != core.AlreadyExists {
		t.Errorf("a second one at once: %v", err)
	}
	if err := s.Cancel(job); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(context.Background(), job); core.KindOf(err) != core.Cancelled {
		t.Errorf("%v", err)
	}
	if j, _ := s.View().Job(job); j.State != core.JobCancelled {
		t.Errorf("the job is %s", j.State)
	}
	if _, ok := s.View().Named("other"); ok {
		t.Error("the template is there")
	}
}

func TestRulesOfProperties(t *testing.T) {
	s := coretest.NewSystem(t)
	work := newQube(t, s, "work")
	for _, c := range []struct {
		name, value string
		kind        core.Kind
	}{
		{"memory", "none", core.BadProperty}, {"name", "other", core.BadProperty}, {"xid", "3", core.BadProperty},
		{"template", "work", core.BadProperty}, {"template", "gone", core.NotFound}, {"nonsense", "1", core.NoProperty},
		{"engine", "xen", core.BadProperty}, {"netvm", "debian-12", core.BadProperty}, {"label", "pink", core.LabelNotFound},
	} {
		if err := s.SetProperty(work, c.name, c.value); core.KindOf(err) != c.kind {
			t.Errorf("%s=%s: %s (%v)", c.name, c.value, core.KindOf(err), err)
		}
	}
	if err := errors.Join(s.SetProperty(work, "netvm", ""), s.SetProperty(work, "label", "green"), s.ResetProperty(work, "netvm")); err != nil {
		t.Error(err)
	}
	if q, _ := s.View().Lookup(work); q.Property("icon") != "appvm-green" {
		t.Errorf("icon %s", q.Property("icon"))
	}
	if err := s.Done(s.Core.Start(work)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetProperty(work, "template", "debian-12"); core.KindOf(err) != core.NotHalted {
		t.Errorf("the template of a running qube: %v", err)
	}
}
