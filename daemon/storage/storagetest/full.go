package storagetest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cubicle/daemon/storage"
)

// testFull runs the pool on a tiny file system: what does not fit is
// ErrNoSpace and leaves everything as it was.
func testFull(t *testing.T, open Open) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tiny file system needs root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	for _, err := range []error{os.Mkdir(mount, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 24*mib)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tool := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Skipf("no tiny file system here: %s: %v: %s", name, err, out)
		}
	}
	tool("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", image)
	tool("mount", "-o", "loop", image, mount)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	p := newPool(t, open, mount)
	s := p.create(templateRoot())
	p.run(s, strings.Repeat("full", 2*mib), true) // 8 MiB, a copy beside it
	before, files := p.info(s), p.files()

	dst := templateRoot()
	dst.VID = "vm-templates/copy/root"
	var err error
	for range 4 {
		if err = p.Clone(t.Context(), dst, s.VID); err != nil {
			break
		}
		files = p.files()
		dst.VID += "x"
	}
	if !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("a copy that does not fit: %v", err)
	}
	if after := p.files(); !slices.Equal(files, after) {
		t.Errorf("the failed copy left %v, before there was %v", after, files)
	}
	if _, err := p.Start(t.Context(), s); !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("a start that does not fit: %v", err)
	}
	if after := p.info(s); after.Version != before.Version || after.Running {
		t.Errorf("the failed start made %+v of %+v", after, before)
	}
	if after := p.files(); !slices.Equal(files, after) {
		t.Errorf("the failed start left %v, before there was %v", after, files)
	}
}
