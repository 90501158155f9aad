package vmclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
)

// local is what the service talks to.
type local struct {
	in  io.ReadCloser  // goes to the service; nil: it writes by itself
	out io.WriteCloser // gets the service's output; Close is its end
	end func() int     // waits for the program
}

func noProgram() int { return 0 }

func (call Call) start(ctx context.Context, w *wire.DataWriter) (*local, error) {
	switch {
	case call.Local != nil:
		return call.startLocal(ctx, w)
	case len(call.Program) > 0:
		return call.startProgram()
	case call.StdinSocket:
		conn, err := net.FileConn(call.Stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input is no socket: %w", err)
		}
		s, ok := conn.(halfCloser)
		if !ok {
			conn.Close()
			return nil, fmt.Errorf("standard input is a %T, which has no half-close", conn)
		}
		return &local{in: s, out: writeSide{s}, end: noProgram}, nil
	}
	return &local{in: call.Stdin, out: call.Stdout, end: noProgram}, nil
}

// halfCloser is a socket whose directions end one by one.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// writeSide is one direction of a socket.
type writeSide struct{ halfCloser }

func (w writeSide) Close() error {
	err := w.CloseWrite()
	if errors.Is(err, unix.ENOTCONN) { // the other end is closed already
		return nil
	}
	return err
}

// startLocal runs a function of ours.
func (call Call) startLocal(ctx context.Context, w *wire.DataWriter) (*local, error) {
	if err := w.Send(wire.DataStdin, call.Prefix); err != nil {
		return nil, err
	}
	r, out := io.Pipe()
	done := make(chan int, 1)
	go func() {
		status := call.Local(ctx, &input{w: w}, r)
		r.Close() // what comes now is dropped
		done <- status
	}()
	return &local{out: out, end: func() int { return <-done }}, nil
}

// input writes a service's input.
type input struct {
	w      *wire.DataWriter
	closed bool
}

func (i *input) Write(b []byte) (int, error) {
	if err := i.w.Send(wire.DataStdin, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends the input; again does nothing.
func (i *input) Close() error {
	if i.closed {
		return nil
	}
	i.closed = true
	return i.w.EOF(wire.DataStdin)
}

// startProgram runs the local program, on two pairs of sockets.
func (call Call) startProgram() (*local, error) {
	path, err := exec.LookPath(call.Program[0])
	if err != nil {
		return nil, err
	}
	out, stdin, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	in, stdout, err := socketPair()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	defer stdout.Close()
	cmd := exec.Command(path, call.Program[1:]...)
	cmd.Args[0] = filepath.Base(path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, call.Stderr
	cmd.ExtraFiles = []*os.File{call.Stdin, call.Stdout} // 3 and 4
	cmd.Env = append(os.Environ(), "SAVED_FD_0=3", "SAVED_FD_1=4", fmt.Sprintf("QREXEC_AGENT_PID=%d", os.Getpid()))
	if os.Getenv("PASS_LOCAL_STDERR") != "" {
		cmd.ExtraFiles = append(cmd.ExtraFiles, call.Stderr)
		cmd.Env = append(cmd.Env, "SAVED_FD_2=5")
	}
	// The program may ask for one socket in both directions from its first
	// instant on.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	if err := cmd.Start(); err != nil {
		signal.Stop(asked)
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	ended := make(chan struct{})
	source := &eitherSocket{first: in, second: out}
	go func() {
		select {
		case <-asked:
			source.turn()
		case <-ended:
		}
	}()
	return &local{in: source, out: writeSide{out}, end: func() int {
		err := cmd.Wait()
		signal.Stop(asked)
		close(ended)
		out.Close()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return 0
		case errors.As(err, &exit):
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				return 128 + int(ws.Signal())
			}
			return exit.ExitCode()
		}
		return wire.StatusFault
	}}, nil
}

// socketPair returns two connected sockets: ours, and one for a program.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "local"), os.NewFile(uintptr(fds[1]), "program")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// eitherSocket is what a program writes: to its output, or, after it has
// asked for that, to the socket of its input (spec/qrexec.md §8).
type eitherSocket struct {
	first, second *net.UnixConn
	turned        bool // belongs to the reader
}

// turn has the reader look at the second socket.
func (e *eitherSocket) turn() { _ = e.first.SetReadDeadline(time.Unix(1, 0)) }

func (e *eitherSocket) Read(b []byte) (int, error) {
	if !e.turned {
		n, err := e.first.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		e.turned = true
	}
	return e.second.Read(b)
}

func (e *eitherSocket) Close() error { return e.first.Close() }
