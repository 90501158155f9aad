package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"cubicle/daemon/vchan"
)

// helloTimeout bounds how long a peer that accepted may take to say hello.
const helloTimeout = 10 * time.Second

// dialLink dials path for ever, until ctx ends.
func dialLink(ctx context.Context, path string) (*vchan.Link, error) {
	var b backoff
	for {
		l, err := tryLink(ctx, path)
		if err == nil {
			return l, nil
		}
		if b.wait(ctx) != nil {
			return nil, fmt.Errorf("link at %s: %w (last attempt: %w)", path, ctx.Err(), err)
		}
	}
}

func tryLink(ctx context.Context, path string) (*vchan.Link, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	l, err := vchan.NewLink(ctx, conn.(*net.UnixConn))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// Relay shares one link among the agents of a qube. The process that runs it
// uses the link itself without going through the socket.
type Relay struct {
	Link  *Transport // to qrexecd's socket
	Local string     // ours; created with mode 0600
	Log   *slog.Logger
}

// Run serves until ctx ends or the local socket cannot be made. Whenever the
// link breaks, the agents' connections are closed (they dial again) and a new
// link is dialled. At the end the link is closed.
func (r *Relay) Run(ctx context.Context) error {
	l, err := vchan.ListenPath(r.Local)
	if err != nil {
		return err
	}
	defer os.Remove(r.Local)
	defer l.Close()
	if err := os.Chmod(r.Local, 0o600); err != nil {
		return fmt.Errorf("close %s to others: %w", r.Local, err)
	}
	for ctx.Err() == nil {
		up, err := r.Link.current(ctx)
		if err != nil {
			break
		}
		r.Log.Info("link is up", "domain", up.Self())
		r.serve(ctx, l, up)
		r.Log.Warn("link is lost")
	}
	return ctx.Err()
}

// serve accepts agents for as long as up lives.
func (r *Relay) serve(ctx context.Context, l *net.UnixListener, up *vchan.Link) {
	ctx, cancel := context.WithCancel(ctx)
	var agents sync.WaitGroup
	defer agents.Wait()
	defer up.Close()
	defer cancel()

	l.SetDeadline(time.Time{})
	agents.Go(func() { // ends Accept
		select {
		case <-up.Done():
		case <-ctx.Done():
		}
		cancel()
		l.SetDeadline(time.Unix(1, 0))
	})
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		agents.Go(func() {
			a := agent{conn: conn, up: up, pending: make(map[uint32]context.CancelFunc)}
			if err := a.serve(ctx); err != nil && ctx.Err() == nil {
				r.Log.Warn("an agent's connection failed", "err", err)
			}
		})
	}
}

// agent is one local connection.
type agent struct {
	conn *net.UnixConn
	up   *vchan.Link

	mu      sync.Mutex // guards pending, and the order of frames sent
	pending map[uint32]context.CancelFunc
}

// maxPending bounds the requests that one agent may have open.
const maxPending = 1024

func (a *agent) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var requests sync.WaitGroup
	defer requests.Wait()
	defer a.conn.Close()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { a.conn.Close() })
	defer stop()

	f, _, err := vchan.ReadLinkFrame(a.conn, false)
	if err != nil {
		return ignoreClosed(err)
	}
	if f.Op != vchan.LinkHello || f.Request != vchan.LinkVersion {
		return fmt.Errorf("hello with frame %d, version %d", f.Op, f.Request)
	}
	if err := a.write(vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion, Domain: a.up.Self()}); err != nil {
		return err
	}
	for {
		f, _, err := vchan.ReadLinkFrame(a.conn, false)
		if err != nil {
			return ignoreClosed(err)
		}
		switch f.Op {
		case vchan.LinkListen, vchan.LinkDial:
			reqCtx, done := context.WithCancel(ctx)
			a.mu.Lock()
			_, used := a.pending[f.Request]
			full := len(a.pending) >= maxPending
			if !used && !full {
				a.pending[f.Request] = done
			}
			a.mu.Unlock()
			if used || full {
				done()
				if err := a.refuse(f.Request, vchan.ReasonTooMany); err != nil {
					return err
				}
				continue
			}
			requests.Go(func() {
				defer done()
				a.forward(reqCtx, f)
			})
		case vchan.LinkCancel:
			a.mu.Lock()
			done := a.pending[f.Request]
			a.mu.Unlock()
			if done != nil {
				done()
			}
		default:
			return fmt.Errorf("frame of kind %d", f.Op)
		}
	}
}

// forward asks dom0 for what the agent asked for and passes the answer on.
func (a *agent) forward(ctx context.Context, f vchan.LinkFrame) {
	ask := a.up.Listen
	if f.Op == vchan.LinkDial {
		ask = a.up.Dial
	}
	ch, err := ask(ctx, f.Domain, f.Port)
	a.mu.Lock()
	delete(a.pending, f.Request)
	a.mu.Unlock()

	var refused *vchan.RefusedError
	switch {
	case err == nil:
		// A failed write means that the agent has gone: its reader ends too.
		_ = a.hand(f, ch)
	case errors.As(err, &refused):
		_ = a.refuse(f.Request, refused.Reason)
	case ctx.Err() != nil: // cancelled: nobody waits for an answer
	default:
		// The link is lost, or qrexecd answered nonsense. The agent learns of
		// both by the end of its connection and asks again.
		a.conn.Close()
	}
}

// hand passes a channel's descriptors to the agent.
func (a *agent) hand(f vchan.LinkFrame, ch *vchan.Channel) error {
	defer ch.Close()
	conn, ok := ch.Conn.(interface{ File() (*os.File, error) })
	if !ok {
		return fmt.Errorf("channel over %T has no descriptor", ch.Conn)
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	files := []*os.File{file}
	if ch.Region != nil {
		files = append(files, ch.Region)
	}
	return a.write(vchan.LinkFrame{Op: vchan.LinkChannel, Request: f.Request, Domain: f.Domain, Port: f.Port}, files...)
}

func (a *agent) refuse(request uint32, reason vchan.Reason) error {
	return a.write(vchan.LinkFrame{Op: vchan.LinkRefused, Request: request, Domain: vchan.Domain(reason)})
}

func (a *agent) write(f vchan.LinkFrame, files ...*os.File) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return vchan.WriteLinkFrame(a.conn, f, files...)
}

// ignoreClosed turns the ordinary ends of a connection into nil.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
