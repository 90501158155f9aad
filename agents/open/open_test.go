package open

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHeader(t *testing.T) {
	long := strings.Repeat("x", 400) + ".tar.gz"
	for _, c := range []struct {
		name     string
		readOnly bool
		want     string // "": an error
	}{
		{"a.txt", false, "a.txt"},
		{"a b;$(x).txt", true, "a_b___x_.txt"},
		{"żółw", false, "______w"},
		{"-rf", false, "-rf"},
		{long, false, long[len(long)-255:]},
		{long, true, long[len(long)-245:]},
		{"", false, ""},
		{"..", false, ""},
		{".", true, ""},
		{"a/b", false, ""},
		{"/etc/passwd", true, ""},
	} {
		b := Header(c.name, c.readOnly)
		if len(b) != HeaderSize {
			t.Fatalf("%d bytes", len(b))
		}
		name, readOnly, err := ParseHeader([HeaderSize]byte(b))
		if (err != nil) != (c.want == "") || err == nil && (name != c.want || readOnly != c.readOnly) {
			t.Errorf("%.40q: %.40q, %v, %v", c.name, name, readOnly, err)
		}
	}
	if _, _, err := ParseHeader([HeaderSize]byte(bytes.Repeat([]byte("x"), HeaderSize))); err == nil {
		t.Error("a name without its NUL is taken")
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("view-only-a.txt"))
	f.Add([]byte("../../x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var head [HeaderSize]byte
		copy(head[:], b)
		name, _, err := ParseHeader(head)
		if err == nil && (filepath.Base(name) != name || name == ".." || name == "." || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+@") != "") {
			t.Errorf("%q", name)
		}
	})
}

func TestFile(t *testing.T) {
	edit := func(_ context.Context, path string) error { return os.WriteFile(path, []byte("changed"), 0o600) }
	for _, c := range []struct {
		name     string
		readOnly bool
		opener   Opener
		want     string
		bad      bool
	}{
		{"edited", false, edit, "changed", false},
		{"looked at", false, func(context.Context, string) error { return nil }, "", false},
		{"replaced", false, func(_ context.Context, path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("new"), 0o600), os.Rename(path+".new", path))
		}, "new", false},
		{"removed", false, func(_ context.Context, path string) error { return os.Remove(path) }, "", false},
		{"made a link", false, func(_ context.Context, path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path))
		}, "", true},
		{"view only", true, func(_ context.Context, path string) error {
			return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("changed"), 0o600))
		}, "", false},
		{"opener fails", false, func(context.Context, string) error { return errors.New("no program") }, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := t.TempDir()
			in := bytes.NewReader(append(Header("doc.txt", c.readOnly), "content"...))
			var out bytes.Buffer
			err := File(t.Context(), in, &out, tmp, "work", func(ctx context.Context, path string) error {
				b, err := os.ReadFile(path)
				fi, serr := os.Stat(path)
				if err != nil || serr != nil || string(b) != "content" || filepath.Base(path) != "doc.txt" || !strings.HasPrefix(path, filepath.Join(tmp, "work-")) {
					t.Errorf("%s: %q, %v, %v", path, b, err, serr)
				}
				if want := os.FileMode(0o600); !c.readOnly && fi.Mode() != want || c.readOnly && fi.Mode() != 0o400 {
					t.Errorf("mode %v", fi.Mode())
				}
				return c.opener(ctx, path)
			})
			if (err != nil) != c.bad || out.String() != c.want {
				t.Errorf("%q, %v", out.String(), err)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
				t.Errorf("%v stay, %v", left, err)
			}
		})
	}
	for _, in := range [][]byte{nil, Header("a", false)[:100], Header("../x", false)} {
		err := File(t.Context(), bytes.NewReader(in), &bytes.Buffer{}, t.TempDir(), "work", func(context.Context, string) error {
			t.Error("it is opened")
			return nil
		})
		if err == nil {
			t.Errorf("%q is a file", in)
		}
	}
	if err := File(t.Context(), bytes.NewReader(Header("a", false)), &bytes.Buffer{}, t.TempDir(), "../x", nil); err == nil {
		t.Error("a source with a slash")
	}
}

func TestURL(t *testing.T) {
	for _, c := range []struct{ in, opened string }{
		{"https://www.example.org/?a=b&c#d\n", "https://www.example.org/?a=b&c#d"},
		{"http://x", "http://x"},
		{"ftp://x/\nhttp://y\n", "ftp://x/"},
		{"https://żółw.example\n", "https://żółw.example"},
		{"file:///etc/passwd\n", ""},
		{"javascript:alert(1)\n", ""},
		{"--option\n", ""},
		{"", ""},
		{"\n", ""},
		{"http://a b\n", ""},
		{"http://a\x1b[31m\n", ""},
		{"http://a\u0085\n", ""},
		{"http://a\xff\n", ""},
		{" http://a\n", ""},
		{"http://" + strings.Repeat("x", maxURL), ""},
		{"HTTP://x\n", ""},
	} {
		opened := ""
		err := URL(t.Context(), strings.NewReader(c.in), func(_ context.Context, url string) error { opened = url; return nil })
		if opened != c.opened || (err != nil) != (c.opened == "") {
			t.Errorf("%.40q: %.40q, %v", c.in, opened, err)
		}
	}
	for s, want := range map[string]bool{"http://x": true, "a+1://": true, "git+ssh://x": true, "://x": false, "1a://x": false, "/a://x": false, "a": false, "a:/b": false, "a-b://x": false} {
		if LooksLikeURL(s) != want {
			t.Errorf("%q", s)
		}
	}
}

// desk makes a user's folders from files by name.
func desk(t *testing.T, files map[string]string) Desk {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Desk{DataDirs: []string{root + "/home", root + "/usr"}, ConfigDirs: []string{root + "/config"}}
}

func entry(exec, types string) string {
	return "[Desktop Entry]\nType=Application\nName=x\nNoDisplay=true\nExec=" + exec + "\nMimeType=" + types + ";\n"
}

func TestHandler(t *testing.T) {
	const globs = "# comment\n50:text/plain:*.txt\n50:text/x-python:*.py\n60:text/x-readme:README*\n50:application/gzip:*.gz\n50:application/x-compressed-tar:*.tar.gz\n50:text/x-c++src:*.C:cs\n50:text/x-csrc:*.c\n"
	files := map[string]string{
		"usr/mime/globs2":                        globs,
		"usr/mime/subclasses":                    "text/x-python application/x-executable\n",
		"usr/applications/edit.desktop":          entry("sh %f", "text/plain"),
		"usr/applications/python.desktop":        entry("sh -c %u", "text/x-python"),
		"usr/applications/web/browser.desktop":   entry("sh %u", "x-scheme-handler/https"),
		"usr/applications/other.desktop":         entry("sh --open=%u", "x-scheme-handler/https"),
		"usr/applications/archive.desktop":       entry("sh", "application/x-compressed-tar"),
		"usr/applications/missing.desktop":       entry("no-such-program %f", "application/gzip"),
		"usr/applications/hidden.desktop":        entry("sh %f", "image/png") + "Hidden=true\n",
		"config/mimeapps.list":                   "[Default Applications]\nx-scheme-handler/https=gone.desktop;other.desktop\n[Removed Associations]\ntext/x-python=python.desktop\n",
		"home/a.txt":                             "text",
		"home/README.txt":                        "",
		"home/s.py":                              "",
		"home/t.tar.gz":                          "",
		"home/g.gz":                              "",
		"home/plain":                             "only text, zażółć",
		"home/bytes":                             "\x00\x01",
		"home/applications/ignored.desktop.bak2": entry("sh", "text/plain"),
	}
	d := desk(t, files)
	for target, want := range map[string]string{
		"a.txt":           "edit",
		"README.txt":      "edit", // a kind of text
		"s.py":            "edit", // python was removed
		"t.tar.gz":        "archive",
		"g.gz":            "", // its program is not there
		"plain":           "edit",
		"bytes":           "",
		"https://x":       "other", // the user's choice
		"http://x":        "",
		"no-such-file.py": "edit",
	} {
		if !strings.Contains(target, "://") {
			target = filepath.Join(d.DataDirs[0], target)
		}
		e, err := d.Handler(target)
		if (err != nil) != (want == "") || err == nil && e.ID != want {
			t.Errorf("%s: %+v, %v; want %q", target, e, err, want)
		}
	}
	for name, want := range map[string]string{"x.C": "text/x-c++src", "x.c": "text/x-csrc", "X.PY": "text/x-python", "none": ""} {
		if got := (types{d.DataDirs}).byName(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestArgv(t *testing.T) {
	d := desk(t, map[string]string{"usr/applications/b.desktop": entry("sh --open=%u", "x-scheme-handler/http"), "usr/applications/c.desktop": entry("sh", "x-scheme-handler/ftp")})
	for url, want := range map[string]string{"http://x": "sh --open=http://x", "ftp://x": "sh ftp://x"} {
		e, err := d.Handler(url)
		if err != nil {
			t.Fatal(err)
		}
		argv, err := e.ArgvWith(url)
		if err != nil || strings.Join(argv, " ") != want {
			t.Errorf("%q, %v", argv, err)
		}
	}
}

// TestOpen has a handler that goes on after the program that was started: the
// person is done when nobody has the file any more.
func TestOpen(t *testing.T) {
	d := desk(t, map[string]string{"home/doc.txt": "x", "usr/mime/globs2": "50:text/plain:*.txt\n"})
	script := filepath.Join(d.DataDirs[0], "handler")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$2\" = later ] && { sleep 0.3; echo done >\"$1.said\"; exit; }\n\"$0\" \"$1\" later &\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.DataDirs[0], "applications", "h.desktop")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(entry(script+" %f", "text/plain")), 0o644)); err != nil {
		t.Fatal(err)
	}
	hideXDGOpen(t)
	doc := filepath.Join(d.DataDirs[0], "doc.txt")
	if err := d.Open(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(doc + ".said"); err != nil || string(b) != "done\n" {
		t.Errorf("it was taken for done before: %q, %v", b, err)
	}
}

// hideXDGOpen leaves of PATH only sh and sleep.
func hideXDGOpen(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sh", "sleep"} {
		if err := os.Symlink(filepath.Join("/bin", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}
