package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
)

// Caller is the other end of a call, as the service's end sees it.
type Caller struct {
	// ErrFirst ends stderr before stdout where nothing runs (any more), as
	// dom0's end does.
	ErrFirst bool

	conn net.Conn
	r    *wire.DataReader
	w    *wire.DataWriter
}

// helloTimeout is how long the caller may take to say hello.
const helloTimeout = 60 * time.Second

// Open exchanges hellos on a fresh data channel, which stays the caller's to
// close.
func Open(conn net.Conn) (*Caller, error) {
	c, err := Greet(conn)
	if err != nil {
		return nil, err
	}
	return c, c.Meet()
}

// Greet is the half of Open that waits for nobody: what is done before Meet is
// done while the caller is still on its way. Until then the Caller tells
// whether its peer is Gone, and no more.
func Greet(conn net.Conn) (*Caller, error) {
	if err := conn.SetWriteDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, err
	}
	if err := wire.GreetData(conn); err != nil {
		return nil, fmt.Errorf("data channel: %w", err)
	}
	return &Caller{conn: conn}, conn.SetWriteDeadline(time.Time{})
}

// Meet waits for the caller's hello.
func (c *Caller) Meet() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	var err error
	if c.r, c.w, err = wire.AcceptData(c.conn); err != nil {
		return fmt.Errorf("data channel: %w", err)
	}
	return c.conn.SetReadDeadline(time.Time{})
}

// Run starts the plan and serves its call to the end.
func (c *Caller) Run(ctx context.Context, log *slog.Logger, p *Plan) error {
	j, err := p.Start(ctx, log)
	if err != nil {
		log.Warn("cannot start the command", "err", err)
		return c.Finish(Status(err))
	}
	return c.Serve(j)
}

// Finish ends a call of which no program runs (any more).
func (c *Caller) Finish(status int) error {
	first, second := wire.DataStdout, wire.DataStderr
	if c.ErrFirst {
		first, second = second, first
	}
	return errors.Join(c.w.EOF(first), c.w.EOF(second), c.w.ExitCode(status))
}

// Job is something that runs for a caller: a program, a connection to a
// socket service, or a function.
type Job struct {
	Stdin  io.WriteCloser // closing it is the end of the input
	Stdout io.ReadCloser
	Stderr io.ReadCloser // nil when there is none
	// Wait returns the status. It is called once, after stdout and stderr
	// have ended; input is closed when the caller's input has ended or can
	// no longer be given.
	Wait func(input <-chan struct{}) int
	// Tee gets a copy of stderr.
	Tee io.Writer
	// A socket service may want the call to end with either stream.
	ExitOnInputEOF, ExitOnOutputEOF bool

	cancel context.CancelFunc // may be nil
}

// Serve moves the data of a running job until it has ended and its output
// too, or until the caller is gone. Nothing is read from the channel while
// the program does not take its input: that is the flow control.
func (c *Caller) Serve(j *Job) error {
	input := make(chan struct{}) // the input has ended
	gone := make(chan error, 1)  // so has the channel
	go func() { gone <- c.feed(j, input) }()

	var lost sync.Once
	lostErr := make(chan error, 1) // a failed write
	output := func(t wire.Type, r io.Reader) {
		readErr, writeErr := c.w.Copy(t, r)
		if writeErr == nil {
			writeErr = c.w.EOF(t)
		}
		_ = readErr // a stream that breaks has ended
		if writeErr != nil {
			lost.Do(func() { lostErr <- writeErr })
		}
	}
	done := make(chan int, 1)
	go func() {
		var streams sync.WaitGroup
		streams.Go(func() { output(wire.DataStdout, j.Stdout) })
		streams.Go(func() {
			if j.Stderr == nil {
				output(wire.DataStderr, eof{})
				return
			}
			var r io.Reader = j.Stderr
			if j.Tee != nil {
				r = io.TeeReader(r, j.Tee)
			}
			output(wire.DataStderr, r)
		})
		streams.Wait()
		if j.ExitOnOutputEOF {
			done <- 0
			return
		}
		done <- j.Wait(input)
	}()
	if j.cancel != nil {
		defer j.cancel()
	}
	// Whatever ends the call, the program must not hang on our pipes.
	defer j.Stdin.Close()
	defer j.Stdout.Close()
	if j.Stderr != nil {
		defer j.Stderr.Close()
	}
	if j.ExitOnInputEOF {
		select {
		case <-input:
			return c.Finish(0)
		case status := <-done:
			return c.w.ExitCode(status)
		case err := <-lostErr:
			return err
		}
	}
	select {
	case status := <-done:
		return c.w.ExitCode(status)
	case err := <-lostErr:
		return err
	case err := <-gone:
		select {
		case status := <-done: // both at once: the program was faster
			return c.w.ExitCode(status)
		default:
			return err
		}
	}
}

// Gone reports whether the caller has closed its end, without reading.
func (c *Caller) Gone() bool {
	s, ok := c.conn.(syscall.Conn)
	if !ok {
		return false // a transport without descriptors tells by itself
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	hup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, perr := unix.Poll(p, 0)
		hup = perr == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return hup || err != nil
}

// eof is an empty stream.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// ErrCallerGone: a caller that closes its end before the exit code has died.
var ErrCallerGone = errors.New("the caller is gone")

// feed gives the caller's input to the job until the channel ends.
func (c *Caller) feed(j *Job, input chan<- struct{}) error {
	open := true
	end := func() {
		if open {
			open = false
			j.Stdin.Close()
			close(input)
		}
	}
	defer end()
	for {
		t, body, err := c.r.Next()
		if errors.Is(err, io.EOF) {
			return ErrCallerGone
		}
		if err != nil {
			return err
		}
		switch {
		case t != wire.DataStdin && t != wire.DataStdout: // ignored, as upstream does
		case len(body) == 0:
			end()
		case open:
			if _, err := j.Stdin.Write(body); err != nil {
				end() // it reads no more; the rest is dropped
			}
		}
	}
}
