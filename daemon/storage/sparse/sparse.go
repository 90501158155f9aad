// Package sparse copies disk images: as a reflink where the file system can
// share blocks, otherwise block by block with the holes left out.
package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// step is how many bytes are copied between two looks at the context.
const step = 16 << 20

// Copy makes dst a copy of src with the mode 0600 and syncs it. dst must not
// exist; it is removed again when the copy fails or ctx ends.
func Copy(ctx context.Context, dst, src string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy %s to %s: %w", src, dst, err)
		}
	}()
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(dst)
		}
	}()
	if err := copyData(ctx, out, in); err != nil {
		return err
	}
	return out.Sync()
}

func copyData(ctx context.Context, out, in *os.File) error {
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if err := out.Truncate(size); err != nil {
		return err
	}
	for pos := int64(0); pos < size; {
		start, err := unix.Seek(int(in.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := copyRange(ctx, out, in, start, end); err != nil {
			return err
		}
		pos = end
	}
	return nil
}

func copyRange(ctx context.Context, out, in *os.File, pos, end int64) error {
	if _, err := in.Seek(pos, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(pos, io.SeekStart); err != nil {
		return err
	}
	for pos < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(end-pos, step)
		if _, err := io.CopyN(out, in, n); err != nil {
			return err
		}
		pos += n
	}
	return nil
}

// block is what Fill leaves out when it is all zeros.
const block = 1 << 20

// Fill writes exactly size bytes of data to f, which is empty or all zeros, and
// leaves out blocks of zeros. Data that is shorter or longer is an error.
func Fill(ctx context.Context, f *os.File, data io.Reader, size int64) error {
	buf, zeros := make([]byte, block), make([]byte, block)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(data, buf[:min(block, size-at)])
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("not enough data: %d bytes instead of %d", at, size)
		case err != nil:
			return fmt.Errorf("read the data: %w", err)
		}
	}
	switch n, err := io.ReadFull(data, buf[:1]); {
	case n > 0:
		return fmt.Errorf("too much data: more than %d bytes", size)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read the data: %w", err)
	}
	return nil
}
