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

	"cubicle/daemon/storage/sparse"
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
// (spec/admin-api.md §2.5); whoever may not use the internal socket sends it
// instead, as a qube does.
func (c *Client) ImportVolume(ctx context.Context, vm, volume string, size int64, data io.Reader) error {
	if c.Remote != nil || c.Internal == "" || errors.Is(unix.Access(c.Internal, unix.W_OK), unix.EACCES) {
		return c.sendVolume(ctx, vm, volume, size, data)
	}
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

// sendVolume is ImportVolume with the data in the request.
func (c *Client) sendVolume(ctx context.Context, vm, volume string, size int64, data io.Reader) error {
	method := "admin.vm.volume.Import"
	head := ""
	if size >= 0 {
		method, head = "admin.vm.volume.ImportWithSize", strconv.FormatInt(size, 10)+"\n"
	}
	_, err := c.exchange(ctx, vm, method, volume, io.MultiReader(strings.NewReader(head), data))
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
	if err := sparse.Fill(ctx, f, data, want); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return f.Close()
}
