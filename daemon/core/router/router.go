// Package router is qubesd's end of the conversation with qrexecd
// (package daemon/qrexec/control). It listens on paths.Root.Router; qrexecd
// may come and go, and is told about all running qubes each time it comes.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"

	"cubicle/daemon/core"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// Router implements core.Router.
type Router struct {
	log      *slog.Logger
	listener *net.UnixListener
	allowed  map[uint32]bool
	agents   chan core.AgentEvent
	done     chan struct{}
	life     context.Context // ends with Close
	end      context.CancelCauseFunc
	once     sync.Once // closes done
	work     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conn   *control.Conn
	stream net.Conn
	up     map[vchan.Domain]*link
	// late are the domains that ran before us and were not announced yet; nil
	// before Running. complete is closed when there are none any more.
	late     map[vchan.Domain]bool
	complete chan struct{}
	onUp     func(control.Qube)
	wrote    func(d vchan.Domain, path string)
	asked    map[uint64]chan control.Message // capacity 1
	asks     uint64
	calls    map[uint64]*call // of the qrexecd that came last
	decide   Decider          // set once deciding is closed

	deciding chan struct{}
}

const dom0 vchan.Domain = 0

// link is a qube that qrexecd was, or will be, told of.
type link struct {
	qube   control.Qube
	listen chan error // capacity 1: the first answer

	// saying orders the updates of the database; it is taken before mu.
	saying sync.Mutex
	keys   map[string]string // what qrexecd was told, or is to be; nil: nothing yet
}

var _ core.Router = (*Router)(nil)

// Listen serves qrexecd on a socket that exists already; peers must have one
// of the user ids.
func Listen(l *net.UnixListener, uids []int, log *slog.Logger) *Router {
	r := &Router{
		log: log, listener: l, allowed: map[uint32]bool{},
		agents: make(chan core.AgentEvent, 64),
		done:   make(chan struct{}),
		up:     map[vchan.Domain]*link{dom0: {}}, // which has a database, and nothing else
		asked:  map[uint64]chan control.Message{},
		calls:  map[uint64]*call{},

		complete: make(chan struct{}),
		deciding: make(chan struct{}),
	}
	r.life, r.end = context.WithCancelCause(context.Background())
	for _, uid := range uids {
		r.allowed[uint32(uid)] = true
	}
	r.work.Add(1)
	go r.accept()
	return r
}

// Close ends the conversation; again it does nothing.
func (r *Router) Close() error {
	var err error
	r.once.Do(func() {
		close(r.done)
		r.end(errEnding)
		err = r.listener.Close()
	})
	r.mu.Lock()
	if r.stream != nil {
		r.stream.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
	return err
}

// Agents implements core.Router.
func (r *Router) Agents() <-chan core.AgentEvent { return r.agents }

// Running tells which domains ran before us, once and for all. Only when each
// of them was announced by Up, or is gone by Down, is qrexecd told that it
// knows all: what it had of others, their calls among it, it drops then.
func (r *Router) Running(domains []vchan.Domain) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.late != nil {
		return
	}
	r.late = map[vchan.Domain]bool{}
	for _, d := range domains {
		if r.up[d] == nil {
			r.late[d] = true
		}
	}
	r.settle()
}

// announced notes that qrexecd was told of a domain, or will not be.
func (r *Router) announced(d vchan.Domain) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.late[d] {
		delete(r.late, d)
		r.settle()
	}
}

// settle lets qrexecd be told that it knows all domains; mu is held.
func (r *Router) settle() {
	if len(r.late) == 0 {
		close(r.complete)
	}
}

// Up implements core.Router. It waits for qrexecd if need be.
func (r *Router) Up(ctx context.Context, q control.Qube) error {
	l := &link{qube: q, listen: make(chan error, 1)}
	r.mu.Lock()
	r.up[q.Domain] = l
	conn, onUp := r.conn, r.onUp
	r.mu.Unlock()
	r.tell(conn, control.Message{Kind: control.Up, Qube: &q})
	r.announced(q.Domain)
	if onUp != nil {
		onUp(q)
	}
	select {
	case err := <-l.listen:
		if err != nil {
			r.Down(q.Domain)
		}
		return err
	case <-ctx.Done():
		r.Down(q.Domain)
		return ctx.Err()
	case <-r.done:
		return errEnding
	}
}

// Down implements core.Router.
func (r *Router) Down(d vchan.Domain) {
	r.mu.Lock()
	_, known := r.up[d]
	delete(r.up, d)
	conn := r.conn
	r.mu.Unlock()
	if known {
		r.tell(conn, control.Message{Kind: control.Down, Domain: d})
	}
	r.announced(d)
}

// tell sends a message to qrexecd, if it is there. When sending fails the
// connection is about to be replaced, and the next one is told everything.
func (r *Router) tell(conn *control.Conn, m control.Message) {
	if conn == nil {
		return
	}
	if err := conn.Send(m); err != nil {
		r.log.Warn("tell qrexecd", "error", err)
	}
}

func (r *Router) accept() {
	defer r.work.Done()
	for {
		stream, err := r.listener.AcceptUnix()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				r.log.Error("accept qrexecd", "error", err)
			}
			return
		}
		if err := r.check(stream); err != nil {
			r.log.Warn("a stranger at the router's socket", "error", err)
			stream.Close()
			continue
		}
		r.work.Add(1)
		go func() {
			defer r.work.Done()
			defer stream.Close()
			err := r.serve(stream)
			select {
			case <-r.done: // it was us
			default:
				r.log.Warn("qrexecd is gone", "error", err)
			}
		}()
	}
}

// check admits the users that may be qrexecd.
func (r *Router) check(c *net.UnixConn) error {
	cred, err := vchan.Peer(c)
	if err != nil {
		return err
	}
	if !r.allowed[cred.Uid] {
		return fmt.Errorf("user %d (process %d) may not be qrexecd", cred.Uid, cred.Pid)
	}
	return nil
}

// serve talks with one qrexecd; a newer one replaces it.
func (r *Router) serve(stream net.Conn) error {
	conn := control.NewConn(stream)
	hello, err := conn.Receive()
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if hello.Kind != control.Hello {
		return fmt.Errorf("%q came instead of hello", hello.Kind)
	}
	r.mu.Lock()
	if r.stream != nil {
		r.stream.Close()
	}
	r.conn, r.stream = conn, stream
	r.failAsked()
	r.loseCalls()
	resumed := r.resume(hello.Running)
	up := maps.Clone(r.up)
	r.mu.Unlock()
	resumed()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.conn == conn {
			r.conn, r.stream = nil, nil
			r.failAsked()
			r.loseCalls()
		}
	}()
	for d, l := range up {
		if d != dom0 {
			if err := conn.Send(control.Message{Kind: control.Up, Qube: &l.qube}); err != nil {
				return err
			}
		}
		if err := l.sayAll(conn); err != nil {
			return err
		}
	}
	ended := make(chan struct{})
	defer close(ended)
	r.work.Go(func() {
		select {
		case <-r.complete:
			r.tell(conn, control.Message{Kind: control.Synced})
		case <-ended:
		}
	})
	for {
		m, err := conn.Receive()
		if err != nil {
			return err
		}
		r.hear(conn, m)
	}
}

func (r *Router) hear(conn *control.Conn, m control.Message) {
	switch {
	case m.Kind == control.Answer:
		r.answered(m)
		return
	case m.Kind == control.Asked && m.Call != nil:
		r.heardCall(conn, *m.Call)
		return
	case m.Kind == control.Ended && m.End != nil:
		r.heardEnd(*m.End)
		return
	}
	r.mu.Lock()
	l, known := r.up[m.Domain]
	wrote := r.wrote
	r.mu.Unlock()
	if !known {
		return // late: it is down
	}
	var event core.AgentEvent
	switch m.Kind {
	case control.Listening:
		var err error
		if m.Error != "" {
			err = fmt.Errorf("qrexecd: %s", m.Error)
		}
		select {
		case l.listen <- err:
		default: // again, after a reconnect
		}
		return
	case control.Ready:
		event = core.AgentEvent{Domain: m.Domain, Ready: true}
	case control.Lost:
		event = core.AgentEvent{Domain: m.Domain}
	case control.Wrote:
		if wrote != nil {
			wrote(m.Domain, m.Path)
		}
		return
	default:
		r.log.Warn("qrexecd said something unknown", "kind", string(m.Kind))
		return
	}
	select {
	case r.agents <- event:
	case <-r.done:
	}
}
