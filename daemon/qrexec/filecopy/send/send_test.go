package send

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/filecopy"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/plain/a", "12345")
	put(t, dir+"/plain/b/c", "678")
	put(t, dir+"/odd/a\nb", "")
	put(t, dir+"/bad/x", "")
	put(t, dir+"/pipe/x", "")
	put(t, dir+"/other/plain", "")
	for link, target := range map[string]string{"plain/b/l": "../a", "bad/l": "../plain", "odd/l": "\x01"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(dir+"/pipe/p", 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Inspect(t.Context(), []string{dir + "/plain/", dir + "/bad/x"})
	if err != nil || f.Bytes != 8 || f.Count != 6 || f.Service() != "qubes.Filecopy" {
		t.Errorf("%+v, %v", f, err)
	}
	f, err = Inspect(t.Context(), []string{dir + "/odd"})
	if err != nil || f.Service() != "qubes.Filecopy+allow-all-names" {
		t.Errorf("%+v, %v", f, err)
	}
	for _, paths := range [][]string{{dir + "/bad"}, {dir + "/pipe"}, {dir + "/none"}, {dir + "/plain/b/l"}, {"/"}, {dir + "/plain", dir + "/other/plain"}} {
		if _, err := Inspect(t.Context(), paths); err == nil {
			t.Errorf("%q may be sent", paths)
		}
	}
}

// stream sends path to a receiver that answers at the end.
func stream(t *testing.T, f *Files, answer func(received []byte) []byte) ([]byte, error) {
	t.Helper()
	r, w := io.Pipe()
	back, answers := io.Pipe()
	var got []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, _ = io.ReadAll(r)
		_, _ = answers.Write(answer(got))
		answers.Close()
	}()
	var told uint64
	err := f.Send(t.Context(), closing{w}, back, func(n uint64) { told = n })
	w.Close()
	<-done
	if told > f.Bytes {
		t.Errorf("%d of %d bytes are told", told, f.Bytes)
	}
	return got, err
}

// closing closes the pipe once the end record has come, as a channel's end.
type closing struct{ w *io.PipeWriter }

func (c closing) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if bytes.HasSuffix(b, filecopy.End()) {
		c.w.Close()
	}
	return n, err
}

func ok(b []byte) []byte {
	return filecopy.Answer{CRC: crc32.ChecksumIEEE(b), Name: "x", HasName: true}.Bytes()
}

func TestSend(t *testing.T) {
	dir := t.TempDir()
	big := strings.Repeat("x", 5<<20)
	put(t, dir+"/d/a", "hi\n")
	put(t, dir+"/d/big", big)
	if err := os.Symlink("a", dir+"/d/l"); err != nil {
		t.Fatal(err)
	}
	f, err := Inspect(t.Context(), []string{dir + "/d"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := stream(t, f, ok)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for len(got) > filecopy.HeaderSize {
		h := filecopy.ParseHeader([filecopy.HeaderSize]byte(got[:filecopy.HeaderSize]))
		if h.NameLen == 0 {
			break
		}
		got = got[filecopy.HeaderSize:]
		names = append(names, string(got[:h.NameLen-1]))
		got = got[uint64(h.NameLen)+h.Size*btou(h.Mode&filecopy.TypeMask != filecopy.TypeDir):]
	}
	if s := strings.Join(names, " "); s != "d d/a d/big d/l d" || !bytes.Equal(got, filecopy.End()) {
		t.Errorf("%s, then %d bytes", s, len(got))
	}

	for _, c := range []struct {
		name   string
		answer []byte
		want   error
	}{
		{"checksum", filecopy.Answer{CRC: 1}.Bytes(), ErrDamaged},
		{"none", nil, ErrNoAnswer},
		{"half", []byte{0, 0, 0}, ErrNoAnswer},
		{"full disk", filecopy.Answer{Code: filecopy.Code(unix.ENOSPC), Name: "d/big", HasName: true}.Bytes(), filecopy.Code(unix.ENOSPC)},
	} {
		if _, err := stream(t, f, func([]byte) []byte { return c.answer }); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func btou(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// TestEarlyAnswer: a receiver that says no is heard before all has been sent.
func TestEarlyAnswer(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a", "")
	if err := os.Truncate(dir+"/a", 1<<40); err != nil { // sparse: sending it would take minutes
		t.Fatal(err)
	}
	f, err := Inspect(t.Context(), []string{dir + "/a"})
	if err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	err = f.Send(t.Context(), io.Discard, bytes.NewReader(filecopy.Answer{Code: filecopy.Code(unix.EEXIST), Name: "a", HasName: true}.Bytes()), nil)
	if !errors.As(err, &refused) || refused.Name != "a" || !strings.Contains(err.Error(), "there already") {
		t.Errorf("%v", err)
	}
	// An early "success" is a lie.
	if err := f.Send(t.Context(), io.Discard, bytes.NewReader(filecopy.Answer{}.Bytes()), nil); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	// A peer that neither reads nor answers holds nobody whose patience ends.
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() { cancel(); r.Close() }()
	if err := f.Send(ctx, w, r, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestChanged: what has changed since it was looked at is found.
func TestChanged(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/d/a", "x")
	f, err := Inspect(t.Context(), []string{dir + "/d"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", dir+"/d/l"); err != nil {
		t.Fatal(err)
	}
	if _, err := stream(t, f, ok); err == nil || !strings.Contains(err.Error(), "lead out") {
		t.Errorf("%v", err)
	}
	if err := f.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/d"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
