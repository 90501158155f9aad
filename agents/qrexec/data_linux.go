package qrexec

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// caller is the other end of a call, as the service's end sees it.
type caller struct {
	ch *vchan.Channel
	r  *wire.DataReader
	w  *wire.DataWriter
}

// finish ends a call of which no program runs (any more).
func (c *caller) finish(status int) error {
	return errors.Join(c.w.EOF(wire.DataStdout), c.w.EOF(wire.DataStderr), c.w.ExitCode(status))
}

// job is something that runs for a caller: a program, a connection to a
// socket service, or a built-in.
type job struct {
	stdin  io.WriteCloser // closing it is the end of the input
	stdout io.ReadCloser
	stderr io.ReadCloser // nil when there is none
	// wait returns the status. It is called once, after stdout and stderr
	// have ended; input is closed when the caller's input has ended or can
	// no longer be given.
	wait func(input <-chan struct{}) int
	// tee gets a copy of stderr.
	tee io.Writer
	// A socket service may want the call to end with either stream.
	exitOnInputEOF, exitOnOutputEOF bool
}

// serve moves the data of a running job until it has ended and its output
// too, or until the caller is gone. Nothing is read from the channel while
// the program does not take its input: that is the flow control.
func (c *caller) serve(j *job) error {
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
		streams.Go(func() { output(wire.DataStdout, j.stdout) })
		streams.Go(func() {
			if j.stderr == nil {
				output(wire.DataStderr, eof{})
				return
			}
			var r io.Reader = j.stderr
			if j.tee != nil {
				r = io.TeeReader(r, j.tee)
			}
			output(wire.DataStderr, r)
		})
		streams.Wait()
		if j.exitOnOutputEOF {
			done <- 0
			return
		}
		done <- j.wait(input)
	}()
	// Whatever ends the call, the program must not hang on our pipes.
	defer j.stdin.Close()
	defer j.stdout.Close()
	if j.stderr != nil {
		defer j.stderr.Close()
	}
	if j.exitOnInputEOF {
		select {
		case <-input:
			return c.finish(0)
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

// gone reports whether the caller has closed its end, without reading.
func (c *caller) gone() bool {
	s, ok := c.ch.Conn.(syscall.Conn)
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

// errCallerGone: a caller that closes its end before the exit code has died.
var errCallerGone = errors.New("the caller is gone")

// feed gives the caller's input to the job until the channel ends.
func (c *caller) feed(j *job, input chan<- struct{}) error {
	open := true
	end := func() {
		if open {
			open = false
			j.stdin.Close()
			close(input)
		}
	}
	defer end()
	for {
		t, body, err := c.r.Next()
		if errors.Is(err, io.EOF) {
			return errCallerGone
		}
		if err != nil {
			return err
		}
		switch {
		case t != wire.DataStdin && t != wire.DataStdout: // ignored, as upstream does
		case len(body) == 0:
			end()
		case open:
			if _, err := j.stdin.Write(body); err != nil {
				end() // it reads no more; the rest is dropped
			}
		}
	}
}
