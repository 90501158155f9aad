package session

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.env")
	want := User{Name: "user", UID: 1000, GID: 1000, Home: "/home/user", Shell: "/bin/bash"}.Env()
	if err := WriteEnv(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadEnv(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := WriteEnv(path, []string{"A=b\nC=d"}); err == nil {
		t.Error("a value of two lines is written")
	}
	if again, _ := ReadEnv(path); len(again) != len(want) {
		t.Error("a refused write has changed the file")
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("DISPLAY=:0\n# comment=1\n\nLANG=C.UTF-8"))
	f.Add([]byte("=x\nnovalue\nA==\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kv := range parseEnv(b) {
			key, _, ok := strings.Cut(kv, "=")
			if !ok || key == "" || strings.Contains(kv, "\n") {
				t.Errorf("%q is no variable", kv)
			}
		}
	})
}

func TestXAuthFile(t *testing.T) {
	b := appendXAuth(nil, "0", bytes.Repeat([]byte{7}, 16))
	want := "\xff\xff" + "\x00\x00" + "\x00\x010" + "\x00\x12MIT-MAGIC-COOKIE-1" + "\x00\x10" + strings.Repeat("\x07", 16)
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to give the file away")
	}
	path := filepath.Join(t.TempDir(), "xauthority")
	if err := WriteXAuth(path, ":0", 1000); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(path)
	if err := WriteXAuth(path, ":0", 1000); err != nil {
		t.Fatal(err)
	}
	second, _ := os.ReadFile(path)
	if len(first) != len(b) || bytes.Equal(first, second) || binary.BigEndian.Uint16(first) != 0xffff {
		t.Error("the cookie is not fresh")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestModelineFitsItsScreen(t *testing.T) {
	if got, want := Modeline(1920, 1080), "128.94 1920 1936 1952 1968 1080 1083 1086 1092"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRootHasAShell(t *testing.T) {
	u, err := LookupUser("root")
	if err != nil {
		t.Fatal(err)
	}
	if u.UID != 0 || u.Home == "" || !strings.HasPrefix(u.Shell, "/") {
		t.Errorf("root is %+v", u)
	}
	if _, err := LookupUser("nobody-by-that-name"); err == nil {
		t.Error("an unknown user is found")
	}
}
