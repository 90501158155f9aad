package service

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cubicle/daemon/qrexec/wire"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Config
		unknown    []string
		bad        bool
	}{
		{"empty", "", Config{}, nil, false},
		{"all", "# a comment\nwait-for-session = true # why\nskip-service-descriptor=1\nexit-on-client-eof = false\nexit-on-service-eof=true\n",
			Config{WaitForSession: true, SkipDescriptor: true, ExitOnServiceEOF: true}, nil, false},
		{"user", "force-user = 'root'  # quoted\n", Config{ForceUser: "root"}, nil, false},
		{"unknown key", "colour = red\n", Config{}, []string{"colour"}, false},
		{"no last line break", "wait-for-session=0", Config{}, nil, false},
		{"twice", "wait-for-session=0\nwait-for-session=0\n", Config{}, nil, true},
		{"unknown twice", "a=0\na=0\n", Config{}, nil, true},
		{"leading blank", " wait-for-session=0\n", Config{}, nil, true},
		{"no value", "wait-for-session\n", Config{}, nil, true},
		{"bad flag", "wait-for-session=yes\n", Config{}, nil, true},
		{"open quote", "force-user='root\n", Config{}, nil, true},
		{"after the quote", "force-user='root' x\n", Config{}, nil, true},
		{"double quotes", "force-user=\"root\"\n", Config{}, nil, true},
		{"two words", "force-user=a b\n", Config{}, nil, true},
		{"empty user", "force-user=\n", Config{}, nil, true},
		{"user of a socket", "force-user=root\nexit-on-client-eof=1\n", Config{}, nil, true},
		{"section", "[x]\n", Config{}, nil, true},
	} {
		got, unknown, err := ParseConfig(c.text)
		if (err != nil) != c.bad || !c.bad && (got != c.want || !slices.Equal(unknown, c.unknown)) {
			t.Errorf("%s: %+v, %v, %v", c.name, got, unknown, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("wait-for-session = true # why\nforce-user='root'\n")
	f.Add("=\n'=")
	f.Fuzz(func(t *testing.T, s string) {
		c, _, err := ParseConfig(s)
		if err == nil && c.ForceUser != "" && (c.SkipDescriptor || c.ExitOnClientEOF || c.ExitOnServiceEOF) {
			t.Fatalf("%q gives %+v", s, c)
		}
	})
}

func TestTCPAddress(t *testing.T) {
	for _, c := range []struct{ rest, arg, want string }{
		{"/127.0.0.1/8082", "", "tcp4 127.0.0.1:8082"},
		{"/127.0.0.1", "80", "tcp4 127.0.0.1:80"},
		{"/::1/80", "", "tcp6 [::1]:80"},
		{"", "127.0.0.1+80", "tcp4 127.0.0.1:80"},
		{"", "++1+80", "tcp6 [::1]:80"},
		{"/127.0.0.1/80", "81", ""},
		{"/localhost/80", "", ""},
		{"/127.0.0.1", "080", ""},
		{"/127.0.0.1", "0", ""},
		{"/127.0.0.1", "65536", ""},
		{"/127.0.0.1", "", ""},
		{"/", "80", ""},
		{"", "80", ""},
		{"", "_+80", ""},
	} {
		addr, err := TCPAddress(c.rest, &wire.RPC{Argument: c.arg})
		got := ""
		if err == nil {
			got = addr.Network() + " " + addr.String()
		}
		if got != c.want {
			t.Errorf("/dev/tcp%s with %q: %q, %v; want %q", c.rest, c.arg, got, err, c.want)
		}
	}
}

func TestFindService(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	put := func(dir, name string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(dir, name, to string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	plain := put(first, "t.A", 0o755)
	special := put(second, "t.A+x", 0o755)
	empty := put(second, "t.B+", 0o755)
	put(first, "t.B", 0o755)
	put(first, "t.Data", 0o644)
	link(first, "t.Dangling", "/nowhere")
	dangling := put(second, "t.Dangling", 0o755)
	link(first, "t.TCP", "/dev/tcp/127.0.0.1")
	if err := os.Mkdir(filepath.Join(first, "t.Dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(first, "t.Sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		call string
		kind foundKind
		path string
		bad  bool
	}{
		{"t.A+y", foundFile, plain, false},
		{"t.A+x", foundFile, special, false}, // the second folder's, before the first's bare name
		{"t.B", foundFile, empty, false},
		{"t.Dangling", foundFile, dangling, false},
		{"t.Sock", foundSocket, filepath.Join(first, "t.Sock"), false},
		{"t.TCP+80", foundSocket, filepath.Join(first, "t.TCP"), false},
		{"t.TCP+x", 0, "", true},
		{"t.Data", 0, "", true},
		{"t.Dir", 0, "", true},
		{"t.None", foundNothing, "", false},
		{"t.A+" + strings.Repeat("x", 300), foundFile, plain, false},
	} {
		r, err := wire.ParseRPC(c.call + " dom0")
		if err != nil {
			t.Fatal(err)
		}
		got, err := findService([]string{first, second}, r)
		if (err != nil) != c.bad || got.kind != c.kind || got.path != c.path {
			t.Errorf("%s: %+v, %v", c.call, got, err)
		}
	}
}

func TestLineLog(t *testing.T) {
	var b strings.Builder
	l := &lineLog{log: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key != "text" {
			return slog.Attr{}
		}
		return a
	}}))}
	for _, s := range []string{"one\ntw", "o\n", strings.Repeat("x", maxLogLine+3), "\n"} {
		if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	want := "text=one\ntext=two\ntext=" + strings.Repeat("x", maxLogLine) + "\ntext=xxx\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}
