package qrexec

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// relay moves bytes between the two sides of a call until both directions have
// ended, and closes both. An end of one direction is passed
// on as a half-close. Descriptors that either side sends do not pass: the
// kernel drops them when a socket is spliced.
func relay(a, b *net.UnixConn) {
	defer a.Close()
	defer b.Close()
	var both sync.WaitGroup
	both.Go(func() { forward(a, b) })
	both.Go(func() { forward(b, a) })
	both.Wait()
}

// shut ends both directions of a stream whose other end is ours no more. What
// the other end has sent before can still be read.
func shut(stream *net.UnixConn) {
	// A stream that has ended by itself is fine.
	_ = stream.CloseRead()
	_ = stream.CloseWrite()
}

// forward moves bytes from src until its end and half-closes dst. When dst
// takes no more, what src still sends is read and dropped: src may have much
// to say in the other direction and must not be stopped by our error.
func forward(dst, src *net.UnixConn) {
	err := splice(dst, src)
	_ = dst.CloseWrite() // fails when dst has gone, which is fine
	var w *writeError
	if errors.As(err, &w) {
		_, _ = io.Copy(io.Discard, src)
	}
}

// writeError is a failure of the receiving side.
type writeError struct{ err error }

func (e *writeError) Error() string { return "write: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// pipeSize is how much a splice moves at once, in bytes; data channels have
// messages of 64 KiB.
const pipeSize = 256 << 10

// splice moves bytes in the kernel from src to dst until src ends. The pipe
// between them is empty whenever src is asked for more.
func splice(dst, src *net.UnixConn) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	// A smaller pipe is only slower.
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, pipeSize)

	in, err := src.SyscallConn()
	if err != nil {
		return err
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	for {
		n, err := spliceOnce(in.Read, func(fd int) (int64, error) {
			return unix.Splice(fd, nil, p[1], nil, pipeSize, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		})
		if err != nil || n == 0 {
			return err
		}
		for n > 0 {
			k, err := spliceOnce(out.Write, func(fd int) (int64, error) {
				return unix.Splice(p[0], nil, fd, nil, int(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			})
			if err != nil {
				return &writeError{err}
			}
			n -= k
		}
	}
}

// spliceOnce calls move whenever the descriptor is ready until it has moved
// something. Zero is the end of the stream.
func spliceOnce(ready func(func(uintptr) bool) error, move func(fd int) (int64, error)) (n int64, err error) {
	rerr := ready(func(fd uintptr) bool {
		for {
			n, err = move(int(fd))
			if err != unix.EINTR {
				break
			}
		}
		return err != unix.EAGAIN
	})
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

var errNotUnix = errors.New("not a UNIX socket")

func sysConn(c syscall.Conn, do func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = do(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
