package core_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/device"
	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qube"
)

// newSystem is a system with the qube work in a world that outlives it.
func newSystem(t *testing.T, clock core.Clock) (*coretest.System, *coretest.World, string) {
	t.Helper()
	w, dir := coretest.New(), t.TempDir()
	s, err := coretest.Start(w, dir, clock)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.CreateTemplate("debian-12", "debian-12")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewQube("work", "blue"); err != nil {
		t.Fatal(err)
	}
	return s, w, dir
}

// reopen is a restart of the daemon.
func reopen(t *testing.T, s *coretest.System, w *coretest.World, dir string) *coretest.System {
	t.Helper()
	s.Close()
	next, err := coretest.Start(w, dir, s.Clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	return next
}

func isKind(t *testing.T, err error, want core.Kind) {
	t.Helper()
	if err == nil || core.KindOf(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPoolsAndTheirVolumesSurviveARestart(t *testing.T) {
	s, w, dir := newSystem(t, core.WallClock{})
	ctx, keep := t.Context(), 4
	if err := s.AddPool(ctx, core.NewPool{Name: "fast", Driver: "test", Options: map[string]string{"dir_path": "/x"}, Revisions: &keep}); err != nil {
		t.Fatal(err)
	}
	quick := core.NewQube{Name: "quick", Class: "AppVM", Label: "red", Pools: map[string]string{"private": "fast"}}
	if err := s.Done(s.Create(quick)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, w, dir)
	info, err := s.PoolInfo(ctx, "fast")
	if err != nil || info.Options["revisions_to_keep"] != "4" || info.Driver != "test" {
		t.Errorf("%+v, %v", info, err)
	}
	q, _ := s.View().Named("quick")
	if err := s.Done(s.Start(q.UUID())); err != nil {
		t.Error(err)
	}
	isKind(t, s.RemovePool("fast"), core.PoolInUse)
	if err := errors.Join(s.Done(s.Kill(q.UUID())), s.Done(s.Remove(q.UUID())), s.RemovePool("fast")); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, w, dir)
	if names := s.PoolNames(); !slices.Equal(names, []string{"varlibqubes"}) {
		t.Errorf("%q", names)
	}
}

// A pool that cannot be opened any more takes nothing else down.
func TestAPoolThatIsLost(t *testing.T) {
	s, w, dir := newSystem(t, core.WallClock{})
	if err := s.AddPool(t.Context(), core.NewPool{Name: "disk", Driver: "test", Options: map[string]string{"dir_path": "/x"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Create(core.NewQube{Name: "quick", Class: "AppVM", Label: "red", Pools: map[string]string{"private": "disk"}})); err != nil {
		t.Fatal(err)
	}
	// Its driver refuses what is in that folder from now on.
	path := dir + "/state/qubes.toml"
	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(raw), `"/x"`, `"/full"`, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, w, dir)
	q, _ := s.View().Named("quick")
	isKind(t, s.Done(s.Start(q.UUID())), core.PoolFailure)
	isKind(t, s.SetSystemProperty("default_pool", "disk"), core.BadProperty)
	work, _ := s.View().Named("work")
	if err := s.Done(s.Start(work.UUID())); err != nil {
		t.Error(err)
	}
	if names := s.PoolNames(); !slices.Equal(names, []string{"varlibqubes", "disk"}) {
		t.Errorf("%q", names)
	}
	if info, err := s.PoolInfo(t.Context(), "disk"); err != nil || info.Known || info.Driver != "test" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestDevicesSurviveARestart(t *testing.T) {
	s, w, dir := newSystem(t, core.WallClock{})
	work, _ := s.View().Named("work")
	d := device.Device{Class: device.Block, Backend: "debian-12", Port: "sda", ID: device.Any}
	a := device.Assignment{Device: d, Mode: device.Required, Options: map[string]string{"read-only": "yes"}}
	if err := s.AssignDevice(work.UUID(), a); err != nil {
		t.Fatal(err)
	}
	isKind(t, s.AssignDevice(work.UUID(), a), core.DeviceAssigned)
	s = reopen(t, s, w, dir)
	work, _ = s.View().Named("work")
	if got := work.Devices(); len(got) != 1 || got[0].Device != d || got[0].Options["read-only"] != "yes" {
		t.Errorf("%+v", got)
	}
	isKind(t, s.Done(s.Start(work.UUID())), core.NotImplemented)
	if err := s.SetDeviceMode(work.UUID(), d, device.Auto); err != nil {
		t.Error(err)
	}
	if err := s.Done(s.Start(work.UUID())); err != nil {
		t.Error(err)
	}
	if err := s.UnassignDevice(work.UUID(), d); err != nil {
		t.Error(err)
	}
	isKind(t, s.UnassignDevice(work.UUID(), d), core.DeviceNotAssigned)
}

func TestARuleThatExpiresIsTold(t *testing.T) {
	clock := coretest.NewClock()
	s, w, dir := newSystem(t, clock)
	work, _ := s.View().Named("work")
	rules := []firewall.Rule{{Action: firewall.Accept, Expire: clock.Now().Unix() + 60}, {Action: firewall.Drop}}
	if err := s.SetFirewall(t.Context(), work.UUID(), rules); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, w, dir)
	sub := s.Subscribe()
	defer sub.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	// The daemon may not wait for it yet: time passes until it has told.
	told := make(chan struct{})
	go func() {
		for {
			select {
			case <-told:
				return
			case <-time.After(time.Millisecond):
				clock.Advance(10 * time.Second)
			}
		}
	}()
	defer close(told)
	for {
		batch, _, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(batch, func(e core.Event) bool { return e.Name == "firewall-changed" && e.Subject == "work" }) {
			break
		}
	}
	if got, err := s.Firewall(work.UUID()); err != nil || len(got) != 1 || got[0].Action != firewall.Drop {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAFirewallThatCannotBeReadIsAnError(t *testing.T) {
	s, _, dir := newSystem(t, core.WallClock{})
	defer s.Close()
	work, _ := s.View().Named("work")
	if err := os.WriteFile(dir+"/state/appvms/work/firewall.xml", []byte("<firewall"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Firewall(work.UUID()); err == nil {
		t.Errorf("%v", got)
	}
}

// An import that nobody goes on with is in the way of others for a while only.
func TestAnAbandonedImport(t *testing.T) {
	clock := coretest.NewClock()
	s, _, _ := newSystem(t, clock)
	defer s.Close()
	work, _ := s.View().Named("work")
	path, size, err := s.BeginImport(t.Context(), work.UUID(), "private", 0)
	if err != nil || size != 2<<30 {
		t.Fatal(size, err)
	}
	if err := os.Chtimes(path, clock.Now(), clock.Now()); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.BeginImport(t.Context(), work.UUID(), "private", 0)
	isKind(t, err, core.PoolFailure)
	clock.Advance(11 * time.Minute)
	next, _, err := s.BeginImport(t.Context(), work.UUID(), "private", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the abandoned file: %v", err)
	}
	// The qube was started meanwhile.
	if err := s.Done(s.Start(work.UUID())); err != nil {
		t.Fatal(err)
	}
	isKind(t, s.EndImport(t.Context(), work.UUID(), "private", nil), core.NotHalted)
	if _, err := os.Stat(next); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a failed import: %v", err)
	}
	isKind(t, s.EndImport(t.Context(), work.UUID(), "private", nil), core.General)
}

func TestTheHostSleepsAndWakes(t *testing.T) {
	s, w, _ := newSystem(t, core.WallClock{})
	defer s.Close()
	ids := map[string]qube.UUID{}
	for _, name := range []string{"one", "two", "three"} {
		id, err := s.NewQube(name, "red")
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = id
	}
	for _, name := range []string{"one", "two"} {
		if err := s.Done(s.Core.Start(ids[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Done(s.Pause(ids["two"])); err != nil {
		t.Fatal(err)
	}
	if err := s.SuspendAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.State(ids["one"]) != qube.Paused || s.State(ids["two"]) != qube.Paused {
		t.Errorf("one is %s, two is %s", s.State(ids["one"]), s.State(ids["two"]))
	}
	if err := s.ResumeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.State(ids["one"]) != qube.Running || s.State(ids["two"]) != qube.Paused || s.State(ids["three"]) != qube.Halted {
		t.Errorf("one is %s, two is %s, three is %s", s.State(ids["one"]), s.State(ids["two"]), s.State(ids["three"]))
	}
	var called []string
	for _, c := range w.Calls() {
		called = append(called, c.User+" "+c.Name)
	}
	if want := []string{"root qubes.SuspendPreAll", "root qubes.SuspendPre", "root qubes.SuspendPost", "root qubes.SuspendPostAll"}; !slices.Equal(called, want) {
		t.Errorf("%q", called)
	}
	isKind(t, s.Suspend(t.Context(), ids["three"]), core.NotRunning)
	isKind(t, s.Resume(t.Context(), ids["one"]), core.NotPaused)
}

// What is to become foreign is so before the first byte of it is there, and is
// not when nothing came of it.
func TestAFailedImportTaintsNothing(t *testing.T) {
	s, w, _ := newSystem(t, core.WallClock{})
	defer s.Close()
	work, _ := s.View().Named("work")
	foreign := func() bool {
		q, _ := s.View().Lookup(work.UUID())
		v, _ := q.Volume("private")
		return v.Spec.Foreign
	}
	try := func() error {
		if _, _, err := s.BeginImport(t.Context(), work.UUID(), "private", 1<<20); err != nil {
			t.Fatal(err)
		}
		return s.EndImport(t.Context(), work.UUID(), "private", nil)
	}
	w.Set(func(w *coretest.World) { w.FailPool["import appvms/work/private"] = errors.New("the disk is on fire") })
	if err := try(); err == nil || foreign() {
		t.Errorf("%v, foreign: %v", err, foreign())
	}
	w.Set(func(w *coretest.World) { clear(w.FailPool) })
	if err := try(); err != nil || !foreign() {
		t.Errorf("%v, foreign: %v", err, foreign())
	}
}
