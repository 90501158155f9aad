package file

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// An overlay that is written from memory is the file system that mke2fs made.
func TestOverlayFromMemory(t *testing.T) {
	dir := t.TempDir()
	p, err := New("pool", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{16 << 20, 10 << 30, 200 << 30} {
		first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
		for _, path := range []string{first, second} {
			if err := p.makeOverlay(t.Context(), path, size); err != nil {
				t.Fatal(err)
			}
		}
		if p.blanks[size] == nil {
			t.Errorf("nothing is kept of %d bytes", size)
		}
		if size < 1<<30 { // the other is long to read
			if out, err := exec.Command("cmp", first, second).CombinedOutput(); err != nil {
				t.Errorf("they differ: %s", out)
			}
		}
		if out, err := exec.Command("/sbin/e2fsck", "-f", "-n", second).CombinedOutput(); err != nil {
			t.Errorf("e2fsck: %v\n%s", err, out)
		}
		var a, b unix.Stat_t
		if err := errors.Join(unix.Stat(first, &a), unix.Stat(second, &b)); err != nil {
			t.Fatal(err)
		}
		if b.Blocks > a.Blocks {
			t.Errorf("%d blocks are in use, not %d", b.Blocks, a.Blocks)
		}
		for _, path := range []string{first, second} {
			if err := remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}
