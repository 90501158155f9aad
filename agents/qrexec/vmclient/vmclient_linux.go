// Package vmclient asks for a service elsewhere on behalf of a program of the
// qube, and is the caller's end of the call's data channel: upstream's
// qrexec-client-vm (spec/qrexec.md §7.2, §8, §15).
package vmclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Call is one call out of the qube.
type Call struct {
	Trigger   string          // the agent's socket
	Transport vchan.Transport // for the data channel
	Source    string          // only for relays; usually empty
	Target    string          // empty or @default: policy chooses
	Service   string          // with argument

	Prefix []byte // sent before the input
	// FilterStdout and FilterStderr turn what could steer a terminal into '_'.
	FilterStdout, FilterStderr bool

	// Program is run with its output as the service's input and its input as
	// the service's output; empty uses Stdin and Stdout themselves.
	Program               []string
	Stdin, Stdout, Stderr *os.File
}

// ErrRefused: dom0's policy, or dom0 itself, refused the call.
var ErrRefused = errors.New("request refused")

const connectTimeout = 120 * time.Second

// Run makes the call. The status is the service's own if that is not zero,
// else the local program's; wire.StatusRefused comes with ErrRefused, and 1
// with an error before the service ran.
func Run(ctx context.Context, call Call) (int, error) {
	agent, to, err := call.ask(ctx)
	if err != nil {
		if errors.Is(err, ErrRefused) {
			return wire.StatusRefused, err
		}
		return 1, err
	}
	defer agent.Close() // the agent takes this as the end of the call
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	ch, err := call.Transport.Listen(wait, to.Domain, to.Port)
	cancel()
	if err != nil {
		return 1, err
	}
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { ch.Close() })
	defer stop()
	r, w, err := wire.OpenData(ch)
	if err != nil {
		return 1, fmt.Errorf("data channel: %w", err)
	}
	return call.exchange(r, w)
}

// ask tells the agent what is wanted and waits for the place of the data
// channel, without a time limit: a person may be asked.
func (call Call) ask(ctx context.Context) (net.Conn, wire.Exec, error) {
	if n := len(call.Service) + 1; n > wire.MaxServiceName || call.Service == "" {
		return nil, wire.Exec{}, fmt.Errorf("a service name of %d bytes", len(call.Service))
	}
	dial, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := vchan.DialPath(dial, call.Trigger)
	if err != nil {
		return nil, wire.Exec{}, fmt.Errorf("qrexec agent: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	t := wire.Trigger{Source: call.Source, Target: strings.ReplaceAll(call.Target, "$", "@"), Service: call.Service, Ident: "SOCKET"}
	var place [8]byte
	_, err = conn.Write(t.Message())
	if err == nil {
		_, err = io.ReadFull(conn, place[:])
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, wire.Exec{}, ctx.Err()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return nil, wire.Exec{}, ErrRefused
		}
		return nil, wire.Exec{}, fmt.Errorf("qrexec agent: %w", err)
	}
	u := binary.LittleEndian.Uint32
	return conn, wire.Exec{Domain: vchan.Domain(u(place[:])), Port: vchan.Port(u(place[4:]))}, nil
}

// local is what the service talks to.
type local struct {
	in  io.ReadCloser  // goes to the service
	out io.WriteCloser // gets the service's output
	end func() int     // waits for the program
}

func (call Call) exchange(r *wire.DataReader, w *wire.DataWriter) (int, error) {
	l, err := call.start()
	if err != nil {
		return wire.StatusFault, err
	}
	defer l.in.Close()
	go func() {
		// A failure shows up in the reader: a service may end before its input.
		if err := w.Send(wire.DataStdin, call.Prefix); err != nil {
			return
		}
		if _, err := w.Copy(wire.DataStdin, l.in); err != nil {
			return
		}
		_ = w.EOF(wire.DataStdin)
	}()
	status, err := receive(r, filtered(l.out, call.FilterStdout), filtered(call.Stderr, call.FilterStderr), l.out)
	if cerr := l.out.Close(); err == nil && cerr != nil && !errors.Is(cerr, os.ErrClosed) {
		err = cerr
	}
	if own := l.end(); err == nil && status == 0 {
		status = own
	}
	return status, err
}

func filtered(w io.Writer, filter bool) io.Writer {
	if filter {
		return wire.NewEscapeFilter(w)
	}
	return w
}

// receive gives the service's output away until its exit code. A local
// program that takes no more loses the rest; the service goes on.
func receive(r *wire.DataReader, out, errOut io.Writer, outEnd io.Closer) (int, error) {
	open := true
	for {
		t, body, err := r.Next()
		if err != nil {
			return wire.StatusNoChannel, fmt.Errorf("the call ended without an exit code: %w", err)
		}
		switch {
		case t == wire.DataExitCode:
			return wire.ExitStatus(body)
		case t == wire.DataStderr:
			if _, err := errOut.Write(body); err != nil {
				return wire.StatusNoChannel, err
			}
		case len(body) == 0:
			if open {
				open = false
				_ = outEnd.Close() // the write that fails tells
			}
		case open:
			if _, err := out.Write(body); err != nil {
				open = false
				_ = outEnd.Close()
			}
		}
	}
}

// start runs the local program, or takes our own streams.
func (call Call) start() (*local, error) {
	if len(call.Program) == 0 {
		return &local{in: call.Stdin, out: call.Stdout, end: func() int { return 0 }}, nil
	}
	path, err := exec.LookPath(call.Program[0])
	if err != nil {
		return nil, err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	cmd := exec.Command(path, call.Program[1:]...)
	cmd.Args[0] = filepath.Base(path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, call.Stderr
	cmd.ExtraFiles = []*os.File{call.Stdin, call.Stdout} // 3 and 4
	cmd.Env = append(os.Environ(), "SAVED_FD_0=3", "SAVED_FD_1=4")
	err = cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		return nil, errors.Join(err, inW.Close(), outR.Close())
	}
	return &local{in: outR, out: inW, end: func() int {
		err := cmd.Wait()
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
