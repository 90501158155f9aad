// Package admin serves the Admin API (spec/admin-api.md): upstream's framing
// and methods over run/qubesd.sock and run/qubesd.internal.sock.
//
// The methods are one table (methods.go): name, which destination they take,
// whether they have an argument and a payload, and what they do.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// requestTime is how long a client may take to send its request.
const requestTime = 30 * time.Second

// Server answers requests.
type Server struct {
	core *core.Core
	log  *slog.Logger
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

// New returns a server of that core.
func New(c *core.Core, log *slog.Logger) *Server {
	s := &Server{core: c, log: log, conns: map[net.Conn]struct{}{}}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Surface is a set of methods served on one socket.
type Surface int

// The surfaces.
const (
	Public   Surface = iota // admin.*
	Internal                // internal.*: trusted helpers of dom0 only
)

// Serve answers on a socket until Close, or an error of Accept.
func (s *Server) Serve(l net.Listener, surface Surface) error {
	methods := publicMethods()
	if surface == Internal {
		methods = internalMethods()
	}
	stop := context.AfterFunc(s.life, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if s.life.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		s.mu.Lock()
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.work.Go(func() {
			defer func() {
				s.mu.Lock()
				delete(s.conns, conn)
				s.mu.Unlock()
				conn.Close()
			}()
			s.handle(conn, methods)
		})
	}
}

// Close ends serving; requests under way are cut off, jobs that they started
// go on.
func (s *Server) Close() {
	s.end()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// handle answers one request.
func (s *Server) handle(conn net.Conn, methods map[string]method) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request made us panic", "panic", fmt.Sprint(p))
		}
	}()
	if err := conn.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return
	}
	raw, err := io.ReadAll(io.LimitReader(conn, MaxRequest+1))
	if err != nil {
		s.log.Warn("read a request", "error", err)
		return
	}
	req, err := parseRequest(raw)
	if err != nil {
		s.log.Warn("a bad request", "error", err) // upstream, too, hangs up
		return
	}
	call := &call{Server: s, req: req, conn: conn}
	text, err := call.serve(methods)
	switch {
	case err == nil && call.streamed:
	case err == nil:
		err = writeOK(conn, text)
	default:
		s.log.Debug("a request failed", "method", req.Method, "dest", req.Dest, "error", err)
		err = writeException(conn, core.KindOf(err), err.Error())
	}
	if err != nil {
		s.log.Debug("answer a request", "method", req.Method, "error", err)
	}
}

// call is one request being answered.
type call struct {
	*Server
	req      Request
	conn     net.Conn
	view     *core.View
	source   core.Qube
	dest     core.Qube
	streamed bool // the answer was a stream of events
}

// serve makes the checks of spec/admin-api.md §1.1 and runs the method.
func (c *call) serve(methods map[string]method) (string, error) {
	c.view = c.core.View()
	var err error
	if c.source, err = c.lookup(c.req.Source); err != nil {
		return "", err
	}
	if c.dest, err = c.lookup(c.req.Dest); err != nil {
		return "", err
	}
	m, ok := methods[c.req.Method]
	if !ok {
		return "", core.Failf(core.ProtocolViolation, "unknown method %s", printable(c.req.Method))
	}
	switch {
	case m.dest == onDom0 && !c.dest.IsAdmin():
		return "", core.Failf(core.ProtocolViolation, "%s is for dom0 only", c.req.Method)
	case m.dest == onQube && c.dest.IsAdmin():
		return "", core.Failf(core.ProtocolViolation, "%s is not for dom0", c.req.Method)
	}
	if err := m.arg.check(c.req.Arg != "", c.req.Method, "an argument"); err != nil {
		return "", err
	}
	if err := m.payload.check(len(c.req.Payload) > 0, c.req.Method, "a payload"); err != nil {
		return "", err
	}
	return m.do(c.life, c)
}

// lookup finds the qube that a request names.
func (c *call) lookup(text string) (core.Qube, error) {
	if id, ok := strings.CutPrefix(text, "uuid:"); ok {
		u, err := qube.ParseUUID(id)
		if err != nil {
			return core.Qube{}, core.Failf("QubesVMInvalidUUIDError", "%s", err)
		}
		q, ok := c.view.Lookup(u)
		if !ok {
			return core.Qube{}, core.Failf(core.NotFound, "there is no qube with the uuid %s", u)
		}
		return q, nil
	}
	n, err := qube.ParseName(text)
	if err != nil {
		return core.Qube{}, core.Failf(core.BadValue, "%s", err)
	}
	q, ok := c.view.Named(n)
	if !ok {
		return core.Qube{}, core.Failf(core.NotFound, "there is no qube named %s", n)
	}
	return q, nil
}

// printable shows unchecked text in a message.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}

// finish waits for a job that the request started.
func (c *call) finish(ctx context.Context, job uint64, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return "", c.core.Wait(ctx, job)
}

// events streams what happens to the destination until the client goes.
func (c *call) events(ctx context.Context) error {
	return c.stream(ctx, func(ctx context.Context, sub *core.Subscription) error {
		for {
			batch, _, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			for _, e := range batch {
				if e.Name == "" || !c.dest.IsAdmin() && e.Qube != c.dest.UUID() {
					continue
				}
				if err := c.tell(e); err != nil {
					return err
				}
			}
		}
	})
}

// errHungUp ends a stream whose client went.
var errHungUp = errors.New("the client hung up")

// tell sends an event.
func (c *call) tell(e core.Event) error {
	if err := writeEvent(c.conn, e); err != nil {
		return errHungUp
	}
	return nil
}

// stream lets send answer with events until the client goes.
func (c *call) stream(ctx context.Context, send func(context.Context, *core.Subscription) error) error {
	c.streamed = true
	sub := c.core.Subscribe()
	defer sub.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		// The client has half-closed already: only its going ends this
		// stream, and that is seen when writing, or as an error here.
		<-ctx.Done()
		c.conn.Close()
	}()
	gone := watchHangup(ctx, c.conn)
	go func() {
		<-gone
		cancel()
	}()
	err := c.tell(core.Event{Name: "connection-established"})
	if err == nil {
		err = send(ctx, sub)
	}
	if errors.Is(err, errHungUp) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
