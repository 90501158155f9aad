package pid1

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinkTools(t *testing.T) {
	root := t.TempDir()
	own := filepath.Join(root, "usr/bin/qvm-copy")
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, []byte("the image's own"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // each start does it again
		if err := linkTools(root, "/agent"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"usr/bin/qvm-move", "usr/bin/qrexec-client-vm", "usr/lib/qubes/qrexec-client-vm", "usr/lib/qubes/qfile-agent"} {
		if to, err := os.Readlink(filepath.Join(root, name)); err != nil || to != "/agent" {
			t.Errorf("%s leads to %q, %v", name, to, err)
		}
	}
	if b, err := os.ReadFile(own); err != nil || string(b) != "the image's own" {
		t.Errorf("%q, %v", b, err)
	}
}
