package sparse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCopyKeepsBytesAndHoles(t *testing.T) {
	dir := t.TempDir()
	for what, fill := range map[string]func(*os.File) error{
		"empty":     func(*os.File) error { return nil },
		"only hole": func(f *os.File) error { return f.Truncate(64 << 20) },
		"data between holes": func(f *os.File) error {
			_, err := f.WriteAt(bytes.Repeat([]byte("x"), 100_000), 20<<20)
			return errors.Join(err, f.Truncate(64<<20))
		},
		"data at both ends": func(f *os.File) error {
			_, err := f.WriteAt([]byte("begin"), 0)
			_, err2 := f.WriteAt([]byte("end"), 40<<20)
			return errors.Join(err, err2)
		},
	} {
		src, dst := filepath.Join(dir, what), filepath.Join(dir, what+" copy")
		f, err := os.Create(src)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fill(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		if err := Copy(t.Context(), dst, src); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(src)
		got, err2 := os.ReadFile(dst)
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the copy differs", what)
		}
		var a, b unix.Stat_t
		if err := errors.Join(unix.Stat(src, &a), unix.Stat(dst, &b)); err != nil {
			t.Fatal(err)
		}
		if b.Blocks > a.Blocks+64 {
			t.Errorf("%s: the copy takes %d blocks, the original %d", what, b.Blocks, a.Blocks)
		}
	}
}

func TestCopyFailsWhole(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := os.WriteFile(src, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, dst, src); err != nil {
		if _, err := os.Stat(dst); err == nil {
			t.Error("a cancelled copy is left")
		}
	}
	if err := os.WriteFile(dst, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Copy(t.Context(), dst, src); !errors.Is(err, os.ErrExist) {
		t.Errorf("onto an existing file: %v", err)
	}
	if got, err := os.ReadFile(dst); err != nil || string(got) != "mine" {
		t.Errorf("the existing file holds %q, %v", got, err)
	}
}

func TestFillTakesExactlyWhatItIsToldTo(t *testing.T) {
	text := strings.Repeat("a", 10) + strings.Repeat("\x00", 3<<20) + "b"
	for _, c := range []struct {
		data string
		size int
		ok   bool
	}{{text, len(text), true}, {text, len(text) - 1, false}, {text, len(text) + 1, false}, {"", 0, true}, {"x", 0, false}} {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		err = errors.Join(f.Truncate(int64(c.size)), Fill(t.Context(), f, strings.NewReader(c.data), int64(c.size)))
		if (err == nil) != c.ok {
			t.Errorf("%d of %d bytes: %v", c.size, len(c.data), err)
		}
		got, rerr := os.ReadFile(f.Name())
		if rerr != nil || c.ok && string(got) != c.data {
			t.Errorf("%d of %d bytes: other data (%v)", c.size, len(c.data), rerr)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 2<<20+65536 {
			t.Errorf("%d bytes take %d blocks (%v)", c.size, st.Blocks, err)
		}
	}
}
