package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"cubicle/daemon/paths"
)

// A runtime that passed is not tried again; one that took its place is, and
// so is one that is gone.
func TestProbeOnceTriesEachRuntimeOnce(t *testing.T) {
	root := paths.Root(t.TempDir())
	if err := os.MkdirAll(root.RunQubes(), 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), Crun)
	install := func() {
		t.Helper()
		os.Remove(binary)
		if err := os.WriteFile(binary, []byte("#!/bin/false\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install()
	e, err := New(Options{Runtime: Crun, Binary: binary, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ProbeOnce(t.Context()); err == nil {
		t.Fatal("a runtime that does nothing passes")
	}
	note := filepath.Join(root.RunQubes(), "probed-"+Crun)
	if _, err := os.Stat(note); err == nil {
		t.Fatal("a failure is noted as passed")
	}
	if err := os.WriteFile(note, []byte(fingerprint(binary)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.ProbeOnce(t.Context()); err != nil {
		t.Errorf("one that passed is tried again: %v", err)
	}
	install()
	if err := e.ProbeOnce(t.Context()); err == nil {
		t.Error("one that took its place is not tried")
	}
	os.Remove(binary)
	if err := e.ProbeOnce(t.Context()); err == nil {
		t.Error("one that is gone is not missed")
	}
}
