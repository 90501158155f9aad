package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// VolumeInfo is a volume's description as pairs, in the server's order.
func (c *Client) VolumeInfo(ctx context.Context, vm, volume string) ([][2]string, error) {
	return c.Pairs(ctx, vm, "admin.vm.volume.Info", volume)
}

// Lookup is the value of a key in a list of pairs, or empty.
func Lookup(pairs [][2]string, key string) string {
	for _, p := range pairs {
		if p[0] == key {
			return p[1]
		}
	}
	return ""
}

// CloneVolume copies a volume of one qube to that of another.
func (c *Client) CloneVolume(ctx context.Context, from, to, volume string) error {
	token, err := c.Call(ctx, from, "admin.vm.volume.CloneFrom", volume, nil)
	if err != nil {
		return err
	}
	_, err = c.Call(ctx, to, "admin.vm.volume.CloneTo", volume, []byte(token))
	return err
}

// ImportVolume replaces a volume's content. A size of 0 or more becomes the
// volume's size, and data must have exactly that many bytes; -1 keeps the size
// that the volume has. The data is written to a file that the server names
// (spec/admin-api.md §2.5), so that only dom0's own trusted programs can do it.
func (c *Client) ImportVolume(ctx context.Context, vm, volume string, size int64, data io.Reader) error {
	inner := &Client{Socket: c.Internal}
	var payload []byte
	if size >= 0 {
		payload = strconv.AppendInt(nil, size, 10)
	}
	reply, err := inner.Call(ctx, vm, "internal.vm.volume.ImportBegin", volume, payload)
	if err != nil {
		return err
	}
	verdict := []byte("ok")
	if err := fill(ctx, reply, data); err != nil {
		verdict = []byte("fail\n" + err.Error())
	}
	_, err = inner.Call(context.WithoutCancel(ctx), vm, "internal.vm.volume.ImportEnd", volume, verdict)
	return err
}

// fill copies data into the file of ImportBegin's reply, "SIZE SP PATH".
func fill(ctx context.Context, reply string, data io.Reader) error {
	number, path, ok := strings.Cut(strings.TrimSuffix(reply, "\n"), " ")
	want, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || want < 0 {
		return fmt.Errorf("unexpected reply to ImportBegin: %.64q", reply)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := copySparse(ctx, f, data, want); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return f.Close()
}

// copySparse copies exactly want bytes, leaving out blocks of zeros: the file
// is empty before.
func copySparse(ctx context.Context, f *os.File, data io.Reader, want int64) error {
	block := make([]byte, 1<<20)
	zeros := make([]byte, len(block))
	for at := int64(0); at < want; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(data, block[:min(int64(len(block)), want-at)])
		if string(block[:n]) != string(zeros[:n]) {
			if _, err := f.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("the data ends after %d of %d bytes", at, want)
		case err != nil:
			return fmt.Errorf("read the data: %w", err)
		}
	}
	if n, err := data.Read(block[:1]); n > 0 || err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("the data is longer than %d bytes", want)
	}
	return nil
}
