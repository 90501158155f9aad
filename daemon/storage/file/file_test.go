package file

import (
	"os"
	"path/filepath"
	"testing"

	"cubicle/daemon/storage"
	"cubicle/daemon/storage/storagetest"
)

func open(t *testing.T, dir string) storage.Pool {
	t.Helper()
	p, err := New("test", dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFile(t *testing.T) { storagetest.TestPool(t, open) }

// Each step of each operation may be the last one: what it leaves is
// recovered.
func TestInterrupted(t *testing.T) {
	spec := storage.Spec{VID: "vm-templates/t/root", Size: 8 << 20, SaveOnStop: true, ReadWrite: true, Revisions: 1}
	for what, leave := range map[string]func(t *testing.T, f files){
		"create": func(t *testing.T, f files) { touch(t, string(files(filepath.Dir(string(f))+"/other").clean())+"~") },
		"start":  func(t *testing.T, f files) { touch(t, f.dirty()+"~") },
		"resize": func(t *testing.T, f files) { touch(t, f.clean()+"~") },
		"commit": func(t *testing.T, f files) {
			if err := os.Link(f.clean(), f.clean()+".1@2026-01-01T00:00:00Z"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir).(*Pool)
			if err := p.Create(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			leave(t, p.files(spec.VID))
			p = open(t, dir).(*Pool)
			if err := p.Recover(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(filepath.Join(dir, "vm-templates/t"))
			if err != nil || len(entries) != 1 || entries[0].Name() != "root.img" {
				t.Errorf("there is %v, %v", entries, err)
			}
			if info, err := p.Info(t.Context(), spec); err != nil || len(info.Revisions) != 0 {
				t.Errorf("Info() = %+v, %v", info, err)
			}
		})
	}
}

// A stop that a crash interrupted after its commit is finished by the next.
func TestStopAgainAfterCommit(t *testing.T) {
	spec := storage.Spec{VID: "appvms/work/private", Size: 8 << 20, SaveOnStop: true, ReadWrite: true, Revisions: 1}
	dir := t.TempDir()
	p := open(t, dir).(*Pool)
	if err := p.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), spec, true); err != nil {
		t.Fatal(err)
	}
	before, err := p.Info(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	p = open(t, dir).(*Pool)
	if err := p.Recover(t.Context(), []storage.VID{spec.VID}); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), spec, true); err != nil {
		t.Error(err)
	}
	after, err := p.Info(t.Context(), spec)
	if err != nil || after.Running || after.Version != before.Version || len(after.Revisions) != len(before.Revisions) {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
}

// Recover leaves alone what is not the pool's.
func TestRecoverTouchesNothingElse(t *testing.T) {
	dir := t.TempDir()
	foreign := []string{"qubes.toml~", "appvms/work/qube.toml", "appvms/work/notes.txt~", "vm-kernels/6.1/modules.img", "note-overlay.img"}
	for _, name := range foreign {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		touch(t, filepath.Join(dir, name))
	}
	if err := open(t, dir).Recover(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range foreign {
		if !present(filepath.Join(dir, name)) {
			t.Errorf("%s is gone", name)
		}
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzVID(f *testing.F) {
	for _, seed := range []string{"appvms/work/private", "", "a/b", "a/../b", "a/b-dirty", "a/b.img", "a/b.img.1@x", "a//b", "a/b~"} {
		f.Add(seed)
	}
	p := &Pool{dir: "/pool"}
	f.Fuzz(func(t *testing.T, text string) {
		vid := storage.VID(text)
		if checkVID(vid) != nil {
			return
		}
		// Every file of a valid volume lies below the pool and is found to
		// be that volume's.
		for _, path := range []string{p.files(vid).clean(), p.files(vid).dirty(), p.files(vid).base(), p.files(vid).overlay(), p.files(vid).marker()} {
			if got, _, ok := p.vidOf(path); !ok || got != vid {
				t.Errorf("%s is taken for a file of %q", path, got)
			}
			if filepath.Clean(path) != path {
				t.Errorf("%s is not a plain path", path)
			}
		}
	})
}
