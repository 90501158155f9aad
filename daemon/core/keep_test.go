package core_test

import (
	"slices"
	"testing"

	"cubicle/daemon/core"
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
