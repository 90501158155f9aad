package qvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/filecopy/send"
)

// answer is what a receiver says (spec/services.md §2).
func answer(code uint32, received []byte, name string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, code)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(crc32.ChecksumIEEE(received)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	return append(b, name...)
}

func TestDeliver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789"), 500_000), 0o644); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("the qube is gone")
	for name, c := range map[string]struct {
		call func(context.Context, io.Reader, io.Writer) (int, error)
		ok   func(error) bool
	}{
		"all arrives": {func(_ context.Context, in io.Reader, out io.Writer) (int, error) {
			got := make([]byte, 32+len("file\x00")+5_000_000+32) // a record and the end's
			if _, err := io.ReadFull(in, got); err != nil {
				return 1, err
			}
			_, err := out.Write(answer(0, got, "file"))
			return 0, err
		}, func(err error) bool { return err == nil }},
		"refused at once": {func(_ context.Context, in io.Reader, out io.Writer) (int, error) {
			_, err := out.Write(answer(uint32(unix.EEXIST), nil, "file"))
			return 17, err
		}, func(err error) bool {
			refused, ok := errors.AsType[*send.RefusedError](err)
			return ok && refused.Name == "file"
		}},
		"no such service": {func(context.Context, io.Reader, io.Writer) (int, error) { return 127, nil },
			func(err error) bool { return errors.Is(err, send.ErrNoAnswer) }},
		"the call fails": {func(context.Context, io.Reader, io.Writer) (int, error) { return 1, lost },
			func(err error) bool { return errors.Is(err, lost) }},
	} {
		files, err := send.Inspect(t.Context(), []string{path})
		if err != nil {
			t.Fatal(err)
		}
		if err := deliver(t.Context(), files, nil, c.call); !c.ok(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	files, err := send.Inspect(ctx, []string{path})
	if err != nil {
		t.Fatal(err)
	}
	err = deliver(ctx, files, nil, func(ctx context.Context, in io.Reader, _ io.Writer) (int, error) {
		cancel()
		<-ctx.Done()
		return 1, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
