// Package admin serves the Admin API (spec/admin-api.md): upstream's framing
// and methods over run/qubesd.sock, run/qubesd.internal.sock and
// run/qubesd.misc.sock.
//
// The methods are one table (methods.go): name, which destination they take,
// whether they have an argument and a payload, and what they do. A Policy
// says who may call them.
package admin

import (
	"bufio"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/core"
	"cubicle/daemon/device"
	"cubicle/daemon/policy"
)

const (
	// clientTime is what clients have for a request, a reply, and each piece
	// of a volume's contents.
	clientTime = 30 * time.Second
	// maxIdle is how many clients may be about to send their request. One
	// more, and the one that has been at it longest is hung up on.
	maxIdle = 1000
	// acceptPause is the pause after this process has run out of files.
	acceptPause = 50 * time.Millisecond
)

// Server answers requests. Its fields are set before Serve.
type Server struct {
	// Policy says who may call what.
	Policy Policy
	// PolicyFiles are the folders of the policy that policy.* change; none:
	// they fail.
	PolicyFiles policy.Dirs
	// Database reads the entries below a path of a running qube's QubesDB;
	// nil: none can be read.
	Database func(ctx context.Context, q core.Qube, prefix string) (map[string]string, error)
	// Devices has the devices of a class that a qube offers looked for again
	// (devices.Watch); nil: the core knows of all.
	Devices func(ctx context.Context, q core.Qube, c device.Class) error
	// RequestTime is how long a client may take to send its request,
	// ReplyTime how long to take a reply, or the events that are due. One that
	// is slower is hung up on.
	RequestTime, ReplyTime time.Duration

	core   *core.Core
	log    *slog.Logger
	life   context.Context
	end    context.CancelFunc
	work   sync.WaitGroup
	tokens tokens
	info   infoCache
	denied sync.Mutex // serialises changes of the interfaces that qubes must not have

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]struct{}
	idle  list.List // of the net.Conn whose request has not come, oldest first
}

// New returns a server of that core, for dom0 only and without a database.
func New(c *core.Core, log *slog.Logger) *Server {
	s := &Server{Policy: Dom0Only{}, RequestTime: clientTime, ReplyTime: clientTime, core: c, log: log, conns: map[net.Conn]struct{}{}}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Surface is a set of methods served on one socket (spec/admin-api.md §1).
type Surface int

// The surfaces.
const (
	Public   Surface = iota // admin.*
	Internal                // internal.*: trusted helpers of dom0 only
	Misc                    // what qubes tell of themselves
)

// Serve answers on a socket until Close, or an error of Accept.
func (s *Server) Serve(l net.Listener, surface Surface) error {
	methods := table(surface)
	stop := context.AfterFunc(s.life, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		switch {
		case s.life.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ECONNABORTED):
			s.log.Warn("accept a client", "error", err)
			s.hangUpOldest()
			select {
			case <-time.After(acceptPause):
			case <-s.life.Done():
			}
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		received := s.admit(conn)
		s.work.Go(func() {
			defer s.dismiss(conn)
			s.handle(conn, received, methods)
		})
	}
}

// admit takes a client in. The returned function is called when its request
// has come.
func (s *Server) admit(conn net.Conn) (received func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = struct{}{}
	if s.life.Err() != nil {
		conn.Close()
	}
	at := s.idle.PushBack(conn)
	for s.idle.Len() > maxIdle {
		s.idle.Remove(s.idle.Front()).(net.Conn).Close()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle.Remove(at) // no-op for one that was removed
	}
}

func (s *Server) hangUpOldest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.idle.Front(); at != nil {
		s.idle.Remove(at).(net.Conn).Close()
	}
}

func (s *Server) dismiss(conn net.Conn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	conn.Close()
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
func (s *Server) handle(conn net.Conn, received func(), methods map[string]method) {
	defer received()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request made us panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	if err := conn.SetReadDeadline(time.Now().Add(s.RequestTime)); err != nil {
		return
	}
	in := bufio.NewReader(conn)
	req, err := s.receive(in, methods)
	received()
	switch {
	case err == nil:
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		s.log.Debug("a client went before its request was whole", "error", err)
		return
	default:
		// Upstream, too, hangs up without a word.
		s.log.Warn("a bad request", "error", err)
		return
	}
	c := &call{Server: s, req: req, conn: conn, body: &pieces{conn, in}}
	text, err := c.serve(methods)
	if c.streamed {
		if err != nil {
			s.log.Info("a stream of events is ended", "method", req.Method, "error", err)
		}
		return
	}
	if derr := conn.SetWriteDeadline(time.Now().Add(s.ReplyTime)); derr != nil {
		return
	}
	if err == nil {
		err = writeOK(conn, text)
	} else {
		s.log.Debug("a request failed", "method", printable(req.Method), "dest", printable(req.Dest), "error", err)
		err = writeException(conn, core.KindOf(err), err.Error())
	}
	if err != nil {
		s.log.Debug("answer a request", "method", printable(req.Method), "error", err)
	}
}

// receive reads a request up to its end, or of a method that takes the
// contents of a volume up to those.
func (s *Server) receive(in *bufio.Reader, methods map[string]method) (Request, error) {
	head, err := readHead(in)
	if err != nil {
		return Request{}, err
	}
	req, err := parseHead(head)
	if err != nil || methods[req.Method].payload == contents {
		return req, err
	}
	left := MaxRequest - len(head) - 1
	req.Payload, err = io.ReadAll(io.LimitReader(in, int64(left)+1))
	switch {
	case err != nil:
		return Request{}, fmt.Errorf("read a request: %w", err)
	case len(req.Payload) > left:
		return Request{}, errTooLarge
	}
	return req, nil
}

// pieces reads the contents of a volume, which may take long, but has to go
// on.
type pieces struct {
	conn net.Conn
	in   *bufio.Reader
}

func (p *pieces) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(clientTime)); err != nil {
		return 0, err
	}
	return p.in.Read(b)
}
