package qrexec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"cubicle/agents/session"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// ForkServerSocket is where a user's fork server listens; %s is the user
// (spec/qrexec.md §12). Our own agent starts programs in the session without
// one; upstream's has one, and either works with the other's.
const ForkServerSocket = "/run/qubes/qrexec-server.%s.sock"

// A request to a fork server: type of message, domain, port and length of the
// command, four little-endian words; then the command without its user, with
// its NUL. The connection ends with the call.
const forkHeader = 16

// handOver has the user's fork server run a call, and waits for its end. It
// is false when there is none, or when the call is not for one.
func (a *agent) handOver(ctx context.Context, log *slog.Logger, e wire.Exec, justExec bool) (bool, error) {
	if a.ForkServer == "" {
		return false, nil
	}
	c, err := wire.ParseCommand(e.Command)
	if err != nil || c.NoGUI {
		return false, nil // the error is told where the call is planned
	}
	user := c.User
	if c.RPC != nil {
		p, err := service.Lookup{Path: a.ServicePath, ConfigPath: a.ConfigPath, Log: log}.Plan(c.RPC)
		if err != nil || p.Empty() || p.Config.SkipDescriptor || p.Config.ExitOnClientEOF || p.Config.ExitOnServiceEOF {
			return false, nil
		}
		if p.Config.ForceUser != "" {
			user = p.Config.ForceUser
		}
		if p.Config.WaitForSession {
			if err := a.waitForSession(ctx, func() bool { return false }); err != nil {
				return false, err
			}
		}
	}
	if strings.ContainsAny(user, "/\x00") {
		return false, nil
	}
	conn, err := vchan.DialOnce(fmt.Sprintf(a.ForkServer, user))
	if err != nil {
		return false, nil // nobody of that user is there
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, command, _ := strings.Cut(e.Command, ":")
	t := wire.ExecCmdline
	if justExec {
		t = wire.JustExec
	}
	b := make([]byte, 0, forkHeader+len(command)+1)
	for _, word := range []uint32{uint32(t), uint32(e.Domain), uint32(e.Port), uint32(len(command) + 1)} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	b = append(append(b, command...), 0)
	if _, err := conn.Write(b); err != nil {
		return false, nil // it is going: the call is still ours
	}
	_, _ = io.Copy(io.Discard, conn) // its end is the call's
	return true, ctx.Err()
}

// ServeForks is a user's fork server: it runs the calls that an agent hands
// over at the socket path, in our own environment, until ctx ends.
func ServeForks(ctx context.Context, t vchan.Transport, path string, opts Options) error {
	a := &agent{Options: opts.withDefaults(), transport: t, slots: make(chan struct{}, maxCalls)}
	a.env = service.Inherit(os.Environ())
	u, err := session.LookupUser(os.Getenv("USER"))
	if err != nil {
		return fmt.Errorf("the user of the session: %w", err)
	}
	if int(u.UID) != os.Geteuid() {
		return fmt.Errorf("USER is %s, and we are user %d", u.Name, os.Geteuid())
	}
	if path == "" {
		path = fmt.Sprintf(ForkServerSocket, u.Name)
	}
	l, err := vchan.ListenPath(path)
	if err != nil {
		return err
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	defer os.Remove(path)
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			a.Log.Warn("fork server", "err", err)
			time.Sleep(lastPause)
			continue
		}
		select {
		case a.slots <- struct{}{}:
		default:
			a.Log.Warn("too many calls", "limit", maxCalls)
			conn.Close()
			continue
		}
		calls.Go(func() {
			defer func() { <-a.slots }()
			defer conn.Close()
			if err := a.serveFork(ctx, conn, u.Name); err != nil && ctx.Err() == nil {
				a.Log.Warn("call failed", "err", err)
			}
		})
	}
}

// serveFork runs one call that was handed over.
func (a *agent) serveFork(ctx context.Context, conn *net.UnixConn, user string) error {
	if err := fromAgent(conn); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	var head [forkHeader]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	e, justExec, n, err := parseFork(head)
	if err != nil {
		return err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return err
	}
	command, err := forkCommand(body)
	if err != nil {
		return err
	}
	e.Command = user + ":" + command
	return a.call(ctx, a.Log.With("domain", e.Domain, "port", e.Port), e, justExec)
}

// parseFork reads the words before a command; n is the command's length.
func parseFork(head [forkHeader]byte) (e wire.Exec, justExec bool, n uint32, err error) {
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(head[4*i:]) }
	t := wire.Type(word(0))
	if t != wire.ExecCmdline && t != wire.JustExec {
		return e, false, 0, fmt.Errorf("%v to a fork server", t)
	}
	if n = word(3); n == 0 || n > wire.MaxExecBody {
		return e, false, 0, fmt.Errorf("a command of %d bytes to a fork server", n)
	}
	return wire.Exec{Domain: vchan.Domain(word(1)), Port: vchan.Port(word(2))}, t == wire.JustExec, n, nil
}

// forkCommand takes the NUL off a command, which must be its only one.
func forkCommand(b []byte) (string, error) {
	s, ended := strings.CutSuffix(string(b), "\x00")
	if !ended || strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("a command that does not end in its only NUL")
	}
	return s, nil
}

// fromAgent refuses who is neither root nor our own user.
func fromAgent(conn *net.UnixConn) error {
	cred, err := vchan.Peer(conn)
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d hands a call over", cred.Uid)
	}
	return nil
}
