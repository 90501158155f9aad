package core_test

import (
	"errors"
	"slices"
	"testing"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
)

func TestAKeptRevisionIsKeptByTheRunThatGoesOnAndByTheNextDaemon(t *testing.T) {
	s, w, dir := newSystem(t, core.WallClock{})
	ctx := t.Context()
	work, _ := s.View().Named("work")
	id := work.UUID()
	if err := s.ClearVolume(ctx, id, "private"); err != nil {
		t.Fatal(err)
	}
	info, err := s.VolumeInfo(ctx, id, "private")
	if err != nil || len(info.Revisions) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	revision := info.Revisions[0]
	isKind(t, s.KeepRevision(ctx, id, "private", "7@2020-01-01T00:00:00Z", true), core.NoRevision)
	isKind(t, s.KeepRevision(ctx, id, "nothing", revision, true), core.PermissionDenied)

	// Decided while it runs.
	if err := s.Done(s.Start(id)); err != nil {
		t.Fatal(err)
	}
	if err := s.KeepRevision(ctx, id, "private", revision, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Shutdown(ctx, id, false)); err != nil {
		t.Fatal(err)
	}
	if got := w.Kept("appvms/work/private"); !slices.Equal(got, []string{revision}) {
		t.Errorf("the commit was told to keep %q", got)
	}
	if err := s.Done(s.Clone(id, "copy", "dom0")); err != nil {
		t.Fatal(err)
	}
	twin, _ := s.View().Named("copy")
	if v, _ := twin.Volume("private"); len(v.Spec.Kept) != 0 {
		t.Errorf("the clone keeps %q", v.Spec.Kept)
	}

	s = reopen(t, s, w, dir)
	info, err = s.VolumeInfo(ctx, id, "private")
	if err != nil || !slices.Equal(info.Spec.Kept, []string{revision}) {
		t.Errorf("the next daemon keeps %q, %v", info.Spec.Kept, err)
	}
	if err := s.KeepRevision(ctx, id, "private", revision, false); err != nil {
		t.Fatal(err)
	}
	if info, err := s.VolumeInfo(ctx, id, "private"); err != nil || len(info.Spec.Kept) != 0 {
		t.Errorf("let go, it still keeps %q, %v", info.Spec.Kept, err)
	}
}

// A standalone qube has a copy of its template's system, and the job that
// makes it says what it is at.
func TestTheJobOfAStandaloneQubeSaysWhatItCopies(t *testing.T) {
	s, w, _ := newSystem(t, core.WallClock{})
	t.Cleanup(func() { s.Close() })
	create := func() (uint64, error) {
		return s.Create(core.NewQube{Name: "solo", Class: "StandaloneVM", Label: "red", Template: "debian-12", Creator: "dom0"})
	}
	w.Set(func(w *coretest.World) {
		w.FailPool = map[string]error{"clone appvms/solo/private": errors.New("the disk is gone")}
	})
	id, err := create()
	if s.Done(id, err) == nil {
		t.Fatal("the copy did not fail")
	}
	if j, ok := s.View().Job(id); !ok || j.Text != "Creating solo — copying its files" || j.Progress <= 0.1 || j.Progress >= 0.9 {
		t.Errorf("the job says %+v", j)
	}
	w.Set(func(w *coretest.World) { w.FailPool = nil })
	if err := s.Done(create()); err != nil {
		t.Fatal(err)
	}
	solo, _ := s.View().Named("solo")
	if root, _ := solo.Volume("root"); !root.Spec.SaveOnStop || root.Spec.Source != "" {
		t.Errorf("its system is %+v, not its own", root.Spec)
	}
}
