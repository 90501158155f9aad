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
func (p *pipes) relay(a, b *net.UnixConn) {
	defer a.Close()
	defer b.Close()
	var both sync.WaitGroup
	both.Go(func() { p.forward(a, b) })
	both.Go(func() { p.forward(b, a) })
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
func (p *pipes) forward(dst, src *net.UnixConn) {
	err := p.splice(dst, src)
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

// pipeSize is how much a splice moves at once, in bytes, once a direction has
// moved flowing bytes; data channels have messages of 64 KiB. Before that a
// pipe has the kernel's own size: its memory is bounded for all of a user's
// pipes together, and calls that stand still must not take it from those that
// move.
const (
	pipeSize = 256 << 10
	flowing  = 1 << 20
	maxPipes = 32 // that are kept for the next
)

// pipes are the pipes through which bytes are spliced. A direction holds one
// only while bytes are in it: a call that waits has none.
type pipes struct {
	mu   sync.Mutex // guards free
	free []*pipe
}

type pipe struct {
	r, w int
	wide bool
}

func (p *pipes) get() (*pipe, error) {
	p.mu.Lock()
	if last := len(p.free) - 1; last >= 0 {
		one := p.free[last]
		p.free = p.free[:last]
		p.mu.Unlock()
		return one, nil
	}
	p.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	return &pipe{r: fds[0], w: fds[1]}, nil
}

// put takes an empty pipe back.
func (p *pipes) put(one *pipe) {
	p.mu.Lock()
	keep := len(p.free) < maxPipes
	if keep {
		p.free = append(p.free, one)
	}
	p.mu.Unlock()
	if !keep {
		one.close()
	}
}

// close closes what is kept.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.free {
		one.close()
	}
	p.free = nil
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// widen makes the pipe hold pipeSize. A smaller one is only slower.
func (p *pipe) widen() {
	if !p.wide {
		p.wide = true
		_, _ = unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize)
	}
}

// splice moves bytes in the kernel from src to dst until src ends.
func (p *pipes) splice(dst, src *net.UnixConn) error {
	in, err := src.SyscallConn()
	if err != nil {
		return err
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	var held *pipe
	defer func() {
		if held != nil {
			held.close() // with bytes in it, or after an error
		}
	}()
	for total := int64(0); ; {
		n, err := spliceOnce(in.Read, func(fd int) (int64, error) {
			if held == nil {
				var err error
				if held, err = p.get(); err != nil {
					return 0, err
				}
			}
			n, err := unix.Splice(fd, nil, held.w, nil, pipeSize, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			if err == unix.EAGAIN || err == nil && n == 0 {
				p.put(held)
				held = nil
			}
			return n, err
		})
		if err != nil || n == 0 {
			return err
		}
		if total += n; total > flowing {
			// Between the two halves of a move its size cannot matter.
			held.widen()
		}
		for n > 0 {
			k, err := spliceOnce(out.Write, func(fd int) (int64, error) {
				return unix.Splice(held.r, nil, fd, nil, int(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
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
