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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Call is one call out of the qube.
type Call struct {
	Trigger string // the agent's socket
	// Transport opens the data channel where the agent does not: upstream's.
	Transport vchan.Transport
	Source    string // only for relays; usually empty
	Target    string // empty or @default: policy chooses
	Service   string // with argument

	Prefix []byte // sent before the input
	// FilterStdout and FilterStderr turn what could steer a terminal into '_'.
	FilterStdout, FilterStderr bool

	// What the service talks to: Local, else Program, else our own streams.
	//
	// Local is a function of ours: what it writes and closes is the service's
	// input, what it reads the service's output.
	Local func(ctx context.Context, out io.WriteCloser, in io.Reader) int
	// Program runs with sockets as its input and output; the descriptors of
	// Stdin and Stdout it finds by SAVED_FD_0 and SAVED_FD_1, that of Stderr
	// by SAVED_FD_2 when it has asked for it by PASS_LOCAL_STDERR.
	Program               []string
	Stdin, Stdout, Stderr *os.File
	// StdinSocket: Stdin is a socket for both directions.
	StdinSocket bool
}

// IdentChannel is the ident by which a program asks our agent to open the data
// channel for it; others say "SOCKET", and upstream's agent looks at neither.
const IdentChannel wire.Ident = "CHANNEL"

// ErrRefused: dom0's policy, or dom0 itself, refused the call.
var ErrRefused = errors.New("request refused")

const connectTimeout = 120 * time.Second

// Run makes the call. The status is the service's own if that is not zero,
// else the local program's; wire.StatusRefused comes with ErrRefused, and 1
// with an error before the service ran.
func Run(ctx context.Context, call Call) (int, error) {
	agent, to, conn, err := call.ask(ctx)
	if err != nil {
		if errors.Is(err, ErrRefused) {
			return wire.StatusRefused, err
		}
		return 1, err
	}
	defer agent.Close() // the agent takes this as the end of the call
	if conn == nil {
		wait, cancel := context.WithTimeout(ctx, connectTimeout)
		ch, err := call.Transport.Listen(wait, to.Domain, to.Port)
		cancel()
		if err != nil {
			return 1, err
		}
		conn = ch
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	r, w, err := wire.OpenData(conn)
	if err != nil {
		return 1, fmt.Errorf("data channel: %w", err)
	}
	return call.exchange(ctx, r, w)
}

// ask tells the agent what is wanted and waits for the data channel or its
// place, without a time limit: a person may be asked. A nil conn is still to
// be opened.
func (call Call) ask(ctx context.Context) (agent *net.UnixConn, to wire.Exec, conn net.Conn, err error) {
	if n := len(call.Service) + 1; n > wire.MaxServiceName || call.Service == "" {
		return nil, to, nil, fmt.Errorf("a service name of %d bytes", len(call.Service))
	}
	dial, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	agent, err = vchan.DialPath(dial, call.Trigger)
	if err != nil {
		return nil, to, nil, fmt.Errorf("qrexec agent: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { agent.Close() })
	defer stop()
	t := wire.Trigger{Source: call.Source, Target: strings.ReplaceAll(call.Target, "$", "@"), Service: call.Service, Ident: IdentChannel}
	var place [8]byte
	_, err = agent.Write(t.Message())
	if err == nil {
		conn, err = readPlace(agent, place[:])
	}
	if err != nil {
		agent.Close()
		if ctx.Err() != nil {
			return nil, to, nil, ctx.Err()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return nil, to, nil, ErrRefused
		}
		return nil, to, nil, fmt.Errorf("qrexec agent: %w", err)
	}
	u := binary.LittleEndian.Uint32
	return agent, wire.Exec{Domain: vchan.Domain(u(place[:])), Port: vchan.Port(u(place[4:]))}, conn, nil
}

// readPlace reads the agent's answer, and the channel that may come with it.
func readPlace(agent *net.UnixConn, place []byte) (net.Conn, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := agent.ReadMsgUnix(place, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	var conn net.Conn
	if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
		if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			f := os.NewFile(uintptr(fds[0]), "data channel")
			conn, err = net.FileConn(f) // a duplicate, closed on exec
			f.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	if _, err := io.ReadFull(agent, place[n:]); err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	return conn, nil
}

func (call Call) exchange(ctx context.Context, r *wire.DataReader, w *wire.DataWriter) (int, error) {
	l, err := call.start(ctx, w)
	if err != nil {
		return wire.StatusFault, err
	}
	if l.in != nil {
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
	}
	status, err := receive(r, filtered(l.out, call.FilterStdout), filtered(call.Stderr, call.FilterStderr), l.out)
	if cerr := l.out.Close(); err == nil && cerr != nil && !errors.Is(cerr, os.ErrClosed) && !errors.Is(cerr, net.ErrClosed) {
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
