package qrexec

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cubicle/daemon/paths"
)

func TestClearStale(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "stale-*") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root := paths.Root(dir)
	if err := os.MkdirAll(root.RunQubes(), 0o755); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(root.RunQubes(), name) }
	for _, name := range []string{"qrexec.32768", "qrexec.32769", "qubesdb.work.sock", "qubesdb.work.ro.sock", "other.sock"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: in(name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		if name == "qrexec.32769" {
			t.Cleanup(func() { l.Close() })
			continue
		}
		l.SetUnlinkOnClose(false) // as after a kill
		l.Close()
	}
	if err := errors.Join(os.Symlink("qrexec.32768", in("qrexec.dead")), os.Symlink("qrexec.32769", in("qrexec.alive"))); err != nil {
		t.Fatal(err)
	}
	if err := ClearStale(root); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root.RunQubes())
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"other.sock", "qrexec.32769", "qrexec.alive"}; !slices.Equal(left, want) {
		t.Errorf("left: %v, not %v", left, want)
	}
}
