package admin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/core"
	"cubicle/daemon/storage/sparse"
)

// A volume's contents come over the public socket, as upstream's script in
// /etc/qubes-rpc takes them from a qube, or a helper of dom0 writes them to a
// file between ImportBegin and ImportEnd on the internal socket
// (spec/admin-api.md §2.5).

// publicName is the method whose permission a call needs.
func publicName(r Request) string {
	switch r.Method {
	case "internal.vm.volume.ImportBegin":
		if len(r.Payload) > 0 {
			return "admin.vm.volume.ImportWithSize"
		}
		return "admin.vm.volume.Import"
	case "internal.vm.volume.ImportEnd":
		return "admin.vm.volume.Import"
	}
	return r.Method
}

func importVolume(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	return "", c.importFrom(ctx, c.body, 0)
}

// maxSizeLine is the length of the line with the size, its end included.
const maxSizeLine = 21

func importWithSize(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	body := bufio.NewReader(c.body)
	var line []byte
	for {
		b, err := body.ReadByte()
		switch {
		case err != nil || len(line) == maxSizeLine:
			return "", core.Failf(core.ProtocolViolation, "the payload begins with a line that has the size in bytes")
		case b == '\n':
			size, err := number(string(line))
			if err != nil {
				return "", err
			}
			if size == 0 {
				return "", core.Failf(core.BadValue, "a volume cannot have 0 bytes")
			}
			return "", c.importFrom(ctx, body, size)
		}
		line = append(line, b)
	}
}

// importFrom makes what in has the contents of the volume. A size of 0 is the
// volume's own.
func (c *call) importFrom(ctx context.Context, in io.Reader, size int64) error {
	path, size, err := c.core.BeginImport(ctx, c.dest.UUID(), c.req.Arg, size)
	if err != nil {
		return err
	}
	failure := fill(ctx, path, in, size)
	return c.core.EndImport(context.WithoutCancel(ctx), c.dest.UUID(), c.req.Arg, failure)
}

// fill writes exactly size bytes to the file at path.
func fill(ctx context.Context, path string, in io.Reader, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sparse.Fill(ctx, f, in, size); err != nil {
		return err
	}
	return f.Sync()
}

func importBegin(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	var size int64
	if text := strings.TrimSuffix(string(c.req.Payload), "\n"); len(c.req.Payload) > 0 {
		var err error
		if size, err = number(text); err != nil {
			return "", err
		}
		if size == 0 {
			return "", core.Failf(core.BadValue, "a volume cannot have 0 bytes")
		}
	}
	path, size, err := c.core.BeginImport(ctx, c.dest.UUID(), c.req.Arg, size)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(size, 10) + " " + path, nil
}

func importEnd(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	verdict, text, _ := strings.Cut(string(c.req.Payload), "\n")
	var failure error
	switch verdict {
	case "ok":
	case "fail":
		failure = errors.New(printable(text))
	default:
		return "", core.Failf(core.ProtocolViolation, "the payload is ok, or fail and a reason")
	}
	return "", c.core.EndImport(ctx, c.dest.UUID(), c.req.Arg, failure)
}
