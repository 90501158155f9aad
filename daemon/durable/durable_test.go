package durable

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.toml")
	for _, text := range []string{"one", "", "three"} {
		if err := Write(path, []byte(text), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := Write(path, []byte("four"), func(f *os.File) error { return f.Chmod(0o644) }); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o644 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	refused := errors.New("refused")
	if err := Write(path, []byte("five"), func(*os.File) error { return refused }); !errors.Is(err, refused) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := Write(filepath.Join(dir, "none", "x"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "folder"), []byte("x"), nil); err == nil {
		t.Error("a folder was replaced")
	}
	if got := names(t, dir); got != "a.toml folder" {
		t.Errorf("left: %s", got)
	}
}

func TestTempIsSeenAsSuch(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.toml")
	tmp, err := Temp(path, []byte("x"), nil)
	if err != nil || filepath.Dir(tmp) != dir || !strings.HasPrefix(filepath.Base(tmp), TempPrefix(path)) || TempPrefix(path) != ".a.toml." {
		t.Errorf("%s, %v", tmp, err)
	}
	if err := Rename(tmp, path); err != nil || names(t, dir) != "a.toml" {
		t.Errorf("%s, %v", names(t, dir), err)
	}
	if err := SyncDir(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
