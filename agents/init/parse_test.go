package pid1

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMountInfo(t *testing.T) {
	const text = `36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/root rw
37 36 0:32 / /run/with\040blank rw - tmpfs tmpfs rw
38 36 0:33 / /back\134slash\011tab rw - tmpfs tmpfs rw
broken line
39 36 0:34 / /end\04 rw - tmpfs tmpfs rw
`
	want := []string{"/", "/run/with blank", "/back\\slash\ttab", `/end\04`}
	if diff := cmp.Diff(want, parseMountInfo(text)); diff != "" {
		t.Error(diff)
	}
}

func TestMountsAreNotHidden(t *testing.T) {
	points := []string{"/", "/run/cubicle", "/proc"}
	for target, want := range map[string]bool{"/run": true, "/proc": true, "/dev/shm": false, "/run/cub": false} {
		if got := isMounted(points, target); got != want {
			t.Errorf("isMounted(%s) = %v", target, got)
		}
	}
}

func FuzzParseMountInfo(f *testing.F) {
	f.Add("36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n")
	f.Add(`1 2 3 4 \ \777 \04` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range parseMountInfo(text) {
			if len(p) > len(text) {
				t.Errorf("%q is longer than what it was read from", p)
			}
		}
	})
}

func TestParseStat(t *testing.T) {
	for line, want := range map[string]struct {
		session int
		alive   bool
	}{
		"42 (dconf-service) S 1 10 11 0 -1": {11, true},
		"42 (a) R (b) Z) S 1 10 12 0 -1":    {12, true},
		"42 (gone) Z 1 10 10 0 -1":          {0, false},
		"42 (cut) S 1":                      {0, false},
		"":                                  {0, false},
	} {
		session, alive := parseStat([]byte(line))
		if session != want.session || alive != want.alive {
			t.Errorf("%q: %d, %v", line, session, alive)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (dconf-service) S 1 10 11 0 -1"))
	f.Add([]byte("42 (x) ) Z"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if session, alive := parseStat(line); !alive && session != 0 {
			t.Errorf("a dead process with session %d", session)
		}
	})
}

func TestHostsNamesTheQubeOnce(t *testing.T) {
	for before, want := range map[string]string{
		"":                    "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 work\n",
		"127.0.0.1 localhost": "127.0.0.1 localhost\n127.0.1.1 work\n",
		"127.0.1.1 template\n# kept\n127.0.0.1\tlocalhost\n": "# kept\n127.0.0.1\tlocalhost\n127.0.1.1 work\n",
	} {
		got := withHost(before, "work")
		if got != want {
			t.Errorf("%q becomes %q", before, got)
		}
		if again := withHost(got, "work"); again != got {
			t.Errorf("a second start makes %q", again)
		}
	}
}

func TestMachineIDIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine-id")
	for _, before := range []string{"", "uninitialized\n"} {
		if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := setUpMachineID(path); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := os.ReadFile(path)
	if len(strings.TrimSpace(string(first))) != 32 {
		t.Fatalf("the id is %q", first)
	}
	if err := setUpMachineID(path); err != nil {
		t.Fatal(err)
	}
	if second, _ := os.ReadFile(path); string(second) != string(first) {
		t.Errorf("the id changed from %q to %q", first, second)
	}
}

func TestLayOutIsWholeOrNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	broken := os.ErrInvalid
	err := layOut(dir, func(tmp string) error {
		os.WriteFile(filepath.Join(tmp, "half"), nil, 0o644)
		return broken
	})
	if err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Fatal("half a folder is there")
	}
	if err := layOut(dir, func(tmp string) error { return os.WriteFile(filepath.Join(tmp, "whole"), nil, 0o644) }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
	if err := layOut(dir, func(string) error { t.Error("laid out twice"); return nil }); err != nil {
		t.Error(err)
	}
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "a/b"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "a/b/file"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b/file", filepath.Join(from, "a/link")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to, os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(to, "a/link"))
	if err != nil || string(b) != "text" {
		t.Errorf("through the link: %q, %v", b, err)
	}
	info, err := os.Stat(filepath.Join(to, "a/b/file"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := copyTree(filepath.Join(from, "none"), to, 0, 0); err != nil {
		t.Errorf("a missing skeleton: %v", err)
	}
}

func TestConditionTellsEachChange(t *testing.T) {
	c := newCondition()
	changes := 0
	c.notify = func() { changes++ }
	for _, v := range []bool{false, true, true, false} {
		c.set(v)
		if c.get() != v {
			t.Errorf("after set(%v): %v", v, c.get())
		}
	}
	if changes != 2 {
		t.Errorf("%d changes, not 2", changes)
	}
}
