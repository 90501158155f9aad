// Package client makes calls from dom0 into qubes: it speaks upstream's local
// protocol to a qube's qrexec socket and is the caller's end of the call's
// data channel (spec/qrexec.md §7.1, §8). qrexecd or upstream's own daemon
// may be at the other end.
//
// Most callers use Run.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// DefaultConnectTimeout is how long the qube may take to begin the call.
const DefaultConnectTimeout = 10 * time.Second

// Call is one call.
type Call struct {
	Root   paths.Root
	Target string // the qube's name, domain id or uuid:UUID

	// Command is USER:COMMAND or USER:QUBESRPC SERVICE[+ARG] SOURCE, with
	// DEFAULT as USER for the qube's default user (spec/qrexec.md §6). See
	// Service.
	Command string

	// JustExec starts the command without its data: stdin, stdout and stderr
	// are empty and Run returns as soon as it runs. For qubes.StartApp that is
	// the way to be told whether the program was found (0 or 1) without
	// waiting for its end.
	JustExec bool

	Stdin  io.Reader // nil is empty
	Stdout io.Writer // nil discards
	Stderr io.Writer // nil discards
	// StdoutEnd, if not nil, is called when the output has ended.
	StdoutEnd func()

	PrefixData     []byte        // sent before Stdin
	ConnectTimeout time.Duration // 0 is DefaultConnectTimeout

	caller vchan.Domain // the other end of the data channel; see Connect
}

// Service is the command that runs service (name, or name+argument) as user
// for dom0. An empty user is the qube's default user.
func Service(user, service string) string {
	return userOr(user) + ":QUBESRPC " + service + " dom0"
}

// Shell is the command that runs line in the user's shell.
func Shell(user, line string) string { return userOr(user) + ":" + line }

func userOr(user string) string {
	if user == "" {
		return wire.DefaultUser
	}
	return user
}

// The kinds of error that callers tell apart.
var (
	// ErrNotReady: the qube has no qrexec socket, because it does not run or
	// its agent has not said hello.
	ErrNotReady = errors.New("the qube takes no calls: it is not running, or its agent is not up")
	// ErrRefused: the daemon ended the call before it began.
	ErrRefused = errors.New("the call was ended before it began")
	// ErrTimeout: the qube's agent did not connect in time.
	ErrTimeout = errors.New("the qube did not answer in time")
	// ErrNoExitCode: the call ended, but not with an exit code.
	ErrNoExitCode = errors.New("the qube ended the call without an exit code")
)

// Run makes the call and waits for its end. The status is the command's own,
// 128+n after signal n, or one of wire.Status…; without an exit code it is
// wire.StatusNoChannel and the error wraps ErrNoExitCode. Cancelling ctx ends
// the call. Writers get what came before Run returned; a Read of Stdin that
// is under way then is left alone, so what it takes is lost.
func Run(ctx context.Context, call Call) (status int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("call %q in %s: %w", cut(call.Command), call.Target, err)
		}
	}()
	local, err := dial(ctx, call)
	if err != nil {
		return 1, err
	}
	defer local.Close()
	stop := context.AfterFunc(ctx, func() { local.Close() })
	defer stop()

	timeout := call.ConnectTimeout
	if timeout <= 0 {
		timeout = DefaultConnectTimeout
	}
	ch, err := connect(ctx, local, call, timeout)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 1, err
	}
	defer ch.Close()
	stopData := context.AfterFunc(ctx, func() { ch.Close() })
	defer stopData()

	status, err = exchange(ch, call)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return status, err
}

// socketWait is how long a socket that is just being replaced may be away.
const socketWait = 250 * time.Millisecond

func dial(ctx context.Context, call Call) (*net.UnixConn, error) {
	if n := len(call.Command) + 1 + 8; n > wire.MaxExecBody {
		return nil, fmt.Errorf("the command is %d bytes too long", n-wire.MaxExecBody)
	}
	if strings.IndexByte(call.Command, 0) >= 0 {
		return nil, errors.New("the command has a NUL in it")
	}
	if _, err := wire.ParseCommand(call.Command); err != nil {
		return nil, err
	}
	return dialDaemon(ctx, call.Root, call.Target)
}

// dialDaemon connects to a qube's daemon.
func dialDaemon(ctx context.Context, root paths.Root, qube string) (*net.UnixConn, error) {
	if qube == "" || strings.ContainsAny(qube, "/\x00") {
		return nil, fmt.Errorf("%q names no qube", cut(qube))
	}
	wait, cancel := context.WithTimeout(ctx, socketWait)
	defer cancel()
	conn, err := vchan.DialPath(wait, root.Join("run/qubes", "qrexec."+qube))
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil, ErrNotReady
	}
	return conn, err
}

// connect asks the daemon for the call and waits, at most for timeout, until
// the agent has connected to our data channel.
func connect(ctx context.Context, local *net.UnixConn, call Call, timeout time.Duration) (*vchan.Channel, error) {
	if err := local.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	answer, err := ask(local, call)
	if err != nil {
		return nil, refusal(err)
	}
	if err := local.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ended := make(chan struct{})
	go func() { // the daemon says nothing more; its end is the call's end
		var b [1]byte
		_, _ = local.Read(b[:])
		close(ended)
		// The agent may have connected, run and ended already: the channel
		// that is being accepted right now still counts.
		select {
		case <-wait.Done():
		case <-time.After(socketWait):
			cancel()
		}
	}()
	own := vchan.Unix{Dir: call.Root.Vchan(), Self: 0}
	ch, err := own.Listen(wait, answer.Domain, answer.Port)
	if err == nil {
		return ch, nil
	}
	select {
	case <-ended:
		return nil, ErrRefused
	default:
	}
	if wait.Err() != nil {
		return nil, ErrTimeout
	}
	return nil, err
}

func refusal(err error) error {
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		return ErrTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return ErrRefused
	}
	return err
}

// ask does the local protocol up to the daemon's answer.
func ask(local net.Conn, call Call) (wire.Exec, error) {
	t := wire.ExecCmdline
	if call.JustExec {
		t = wire.JustExec
	}
	if err := tell(local, wire.Exec{Domain: call.caller, Command: call.Command}.Message(t)); err != nil {
		return wire.Exec{}, err
	}
	return answer(local, t)
}

// tell exchanges hellos and sends a message.
func tell(local net.Conn, message []byte) error {
	peer, err := wire.ReadHello(local)
	if err != nil {
		return err
	}
	if _, err := wire.Negotiate(wire.ClientVersion, peer, wire.ClientVersion); err != nil {
		return err
	}
	_, err = local.Write(append(wire.HelloMessage(wire.ClientVersion), message...))
	return err
}

// answer reads the daemon's answer to a message of type t.
func answer(local net.Conn, t wire.Type) (wire.Exec, error) {
	got, body, err := wire.ReadMessage(local, wire.DaemonAnswer, wire.ClientVersion)
	if err != nil {
		return wire.Exec{}, err
	}
	if got != t {
		return wire.Exec{}, fmt.Errorf("%w: the daemon answered %v with %v", wire.ErrProtocol, t, got)
	}
	return wire.ParseExec(body)
}

// exchange is the caller's end of a data channel.
func exchange(ch *vchan.Channel, call Call) (int, error) {
	r, w, err := wire.OpenData(ch)
	if err != nil {
		return wire.StatusNoChannel, fmt.Errorf("data channel: %w", noExitCode(err))
	}
	if !call.JustExec {
		go send(w, call)
	}
	for {
		t, body, err := r.Next()
		if err != nil {
			return wire.StatusNoChannel, fmt.Errorf("data channel: %w", noExitCode(err))
		}
		switch t {
		case wire.DataExitCode:
			return wire.ExitStatus(body)
		case wire.DataStdout, wire.DataStdin:
			if len(body) == 0 && call.StdoutEnd != nil {
				call.StdoutEnd()
			}
			err = give(call.Stdout, body)
		case wire.DataStderr:
			err = give(call.Stderr, body)
		}
		if err != nil {
			return wire.StatusNoChannel, err
		}
	}
}

// send sends the prefix and the standard input. A failure to send shows up
// in the reader: a service may well end without having read its input.
func send(w *wire.DataWriter, call Call) {
	if err := w.Send(wire.DataStdin, call.PrefixData); err != nil {
		return
	}
	if call.Stdin != nil {
		if _, err := w.Copy(wire.DataStdin, call.Stdin); err != nil {
			return
		}
	}
	_ = w.EOF(wire.DataStdin)
}

func give(w io.Writer, b []byte) error {
	if w == nil || len(b) == 0 {
		return nil
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// noExitCode marks the loss of a channel.
func noExitCode(err error) error {
	if errors.Is(err, wire.ErrProtocol) {
		return err
	}
	return fmt.Errorf("%w (%w)", ErrNoExitCode, err)
}

// cut shortens a text for a message.
func cut(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
