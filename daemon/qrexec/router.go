// Package qrexec is the router of qrexec in dom0: for every running qube it
// owns the link socket and the control channel to the agent, and carries
// calls: of dom0's programs into a qube, and those out of a qube that qubesd
// has allowed, to another qube or to dom0's own services (spec/qrexec.md §2,
// §7, §12). It hands out ends of channels to dom0's other programs at the
// broker.
//
// A call (calls.go) joins two streams, each side's own, and moves the bytes
// between them in the kernel. A side that is a qube has a leg in that qube's
// table for as long as its agent has not said that the call is over.
//
// Router.Run does all of it. What comes from a qube is hostile: every frame
// and message is checked by its parser, a bad one closes that qube's
// connection and no other, queues are bounded, and descriptors from a qube
// are dropped by the kernel unseen. Types say whose side a value is on:
// guestLink and guestAsk are the qube's, hostLink and hostAsk are dom0's.
//
// Locks: Router.mu guards all tables, also those of the qubes. Nothing that
// can block is done under it; answers go through bounded queues.
package qrexec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

const dom0Name = "dom0"

// Options are a router's parameters.
type Options struct {
	Root paths.Root
	// AllowUIDs may use the broker and the qubes' local sockets, beside root
	// and the router's own user.
	AllowUIDs []uint32
	Log       *slog.Logger
}

// Router is the router. Use New.
type Router struct {
	root    paths.Root
	allowed map[uint32]bool
	log     *slog.Logger
	wg      sync.WaitGroup
	own     *database // dom0's
	pipes   pipes
	// patience is how long the sides of a call may take to ask for their ends.
	patience time.Duration

	mu        sync.Mutex      // guards what follows, and the tables of qubes and links
	ctx       context.Context // of Run
	qubes     map[vchan.Domain]*qube
	hostAsks  map[askKey]hostAsk
	questions map[uint64]*question     // that wait for qubesd's verdict
	running   map[uint64]*question     // that were allowed, until their calls end
	asks      uint64                   // number of the last question
	synced    bool                     // qubesd has told all running qubes since we know it
	qubesd    *outbox[control.Message] // nil while not connected
	hangUp    func()                   // ends the connection to it
}

// New returns a router that does nothing yet.
func New(opts Options) *Router {
	r := &Router{
		root:      opts.Root,
		allowed:   map[uint32]bool{0: true, uint32(os.Geteuid()): true},
		log:       opts.Log,
		patience:  qubeConnect,
		ctx:       context.Background(),
		qubes:     make(map[vchan.Domain]*qube),
		hostAsks:  make(map[askKey]hostAsk),
		questions: make(map[uint64]*question),
		running:   make(map[uint64]*question),
	}
	for _, uid := range opts.AllowUIDs {
		r.allowed[uid] = true
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.own = emptyDatabase(r, dom0Name, dom0, r.log)
	return r
}

// Pauses between two attempts to reach qubesd.
const (
	qubesdPause    = 100 * time.Millisecond
	maxQubesdQueue = 4096
)

// Run routes until ctx ends, which is no error. It fails only when the
// broker's socket cannot be made.
func (r *Router) Run(ctx context.Context) error {
	l, err := listenOpen(r.root.Broker())
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	defer os.Remove(r.root.Broker())
	defer l.Close()
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.ctx = ctx
	r.mu.Unlock()
	defer r.pipes.close()
	defer r.wg.Wait()
	defer r.stopQubes()
	defer cancel()
	r.wg.Go(func() { r.acceptBroker(ctx, l) })
	r.wg.Go(func() { r.runOwn(ctx) })

	for ctx.Err() == nil {
		conn, err := vchan.DialPath(ctx, r.root.Router())
		if err == nil {
			err = r.follow(ctx, conn)
			conn.Close()
		}
		if ctx.Err() == nil {
			r.log.Warn("qubesd lost", "err", quiet(err))
			pause(ctx, qubesdPause)
		}
	}
	return nil
}

func (r *Router) stopQubes() {
	r.mu.Lock()
	qubes := r.qubes
	r.qubes = make(map[vchan.Domain]*qube)
	r.mu.Unlock()
	for _, q := range qubes {
		q.stop()
	}
}

// follow serves one connection to qubesd. Qubes outlive it.
func (r *Router) follow(ctx context.Context, conn *net.UnixConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := control.NewConn(conn)
	out := newOutbox(maxQubesdQueue, func(control.Message) {})
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := out.run(c.Send); err != nil {
			conn.Close()
		}
	})
	defer writer.Wait()
	defer out.close()
	defer conn.Close()
	r.mu.Lock()
	r.qubesd = out
	r.hangUp = func() { conn.Close() }
	out.put(control.Message{Kind: control.Hello, Running: r.allRunning()})
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.qubesd = nil
		r.refuseQuestions()
		r.mu.Unlock()
	}()
	r.log.Info("qubesd connected")
	told := make(map[vchan.Domain]bool)
	for {
		m, err := c.Receive()
		if err != nil {
			return err
		}
		switch m.Kind {
		case control.Up:
			if m.Qube == nil {
				return errors.New("qubesd: up without a qube")
			}
			told[m.Qube.Domain] = true
			r.up(ctx, *m.Qube)
		case control.Down:
			delete(told, m.Domain)
			r.down(m.Domain)
		case control.Update:
			r.update(m)
		case control.Query:
			out.put(r.query(m))
		case control.Decided:
			if m.Verdict == nil {
				return errors.New("qubesd: decided without a verdict")
			}
			r.decided(*m.Verdict)
		case control.Synced:
			r.sync(told)
		default:
			return fmt.Errorf("qubesd: unexpected message %q", m.Kind)
		}
	}
}

// tell sends a message to qubesd; while it is away nothing is lost, for a
// new connection is told everything again.
func (r *Router) tell(m control.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLocked(m)
}

// tellLocked is tell where mu is held. A qubesd that does not read loses the
// connection, not single messages: it would not know what is true.
func (r *Router) tellLocked(m control.Message) {
	if r.qubesd != nil && !r.qubesd.put(m) {
		r.hangUp()
	}
}

// allRunning are the calls that were allowed and go on; mu is held.
func (r *Router) allRunning() []control.Running {
	var all []control.Running
	for number, ask := range r.running {
		all = append(all, control.Running{Number: number, Source: ask.q.Domain, Service: ask.service, Target: ask.target})
	}
	return all
}

// up serves a qube, or tells again how the one that is served stands.
func (r *Router) up(ctx context.Context, spec control.Qube) {
	err := checkSpec(spec)
	if err != nil {
		r.log.Error("qubesd told a bad qube", "err", err)
		r.tell(control.Message{Kind: control.Listening, Domain: spec.Domain, Error: err.Error()})
		return
	}
	r.mu.Lock()
	q := r.qubes[spec.Domain]
	r.mu.Unlock()
	if q != nil && q.Qube != spec {
		r.down(spec.Domain)
		q = nil
	}
	if q == nil {
		if q, err = newQube(ctx, r, spec); err != nil {
			r.log.Error("cannot serve the qube", "qube", spec.Name, "err", err)
			r.tell(control.Message{Kind: control.Listening, Domain: spec.Domain, Error: err.Error()})
			return
		}
		r.mu.Lock()
		r.qubes[spec.Domain] = q
		for key := range r.hostAsks { // programs that asked before us
			if key.domain == spec.Domain {
				r.match(q, key.channelKey)
			}
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.qubesd == nil {
		return
	}
	r.qubesd.put(control.Message{Kind: control.Listening, Domain: spec.Domain})
	if q.agent != nil {
		r.qubesd.put(control.Message{Kind: control.Ready, Domain: spec.Domain, Version: uint32(q.agent.version)})
	}
}

// down ends a qube and refuses what dom0's programs wanted of it.
func (r *Router) down(d vchan.Domain) {
	r.mu.Lock()
	q := r.qubes[d]
	delete(r.qubes, d)
	r.refuseAll(d)
	r.mu.Unlock()
	if q != nil {
		q.stop()
		q.log.Info("qube down")
	}
}

// refuseAll refuses every request of dom0 for a domain that is gone; mu is
// held.
func (r *Router) refuseAll(d vchan.Domain) {
	for key, ask := range r.hostAsks {
		if key.domain == d {
			delete(r.hostAsks, key)
			ask.refuse(vchan.ReasonGone)
		}
	}
}

// sync ends the qubes that a newly connected qubesd did not tell of.
func (r *Router) sync(told map[vchan.Domain]bool) {
	r.mu.Lock()
	r.synced = true
	var gone []vchan.Domain
	for d := range r.qubes {
		if !told[d] {
			gone = append(gone, d)
		}
	}
	for key := range r.hostAsks {
		if !told[key.domain] {
			r.refuseAll(key.domain)
		}
	}
	r.mu.Unlock()
	for _, d := range gone {
		r.down(d)
	}
}

// checkPeer lets only root, our own user and the allowed ones pass.
func (r *Router) checkPeer(conn *net.UnixConn) error {
	peer, err := vchan.Peer(conn)
	if err != nil {
		return err
	}
	if !r.allowed[peer.Uid] {
		return fmt.Errorf("user %d may not do this: %w", peer.Uid, fs.ErrPermission)
	}
	return nil
}

const maxBrokerLinks = 256

// acceptBroker serves dom0's programs that want channel ends.
func (r *Router) acceptBroker(ctx context.Context, l *net.UnixListener) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, maxBrokerLinks)
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			r.log.Warn("broker", "err", err)
			pause(ctx, acceptPause)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		r.wg.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := r.serveBroker(conn); err != nil {
				r.log.Warn("broker's client", "err", err)
			}
		})
	}
}

func (r *Router) serveBroker(conn *net.UnixConn) error {
	l := &hostLink{frameLink: newFrameLink(conn), asks: make(map[uint32]*brokerAsk)}
	defer l.close()
	if err := r.checkPeer(conn); err != nil {
		return err
	}
	if err := l.hello(dom0); err != nil {
		return quiet(err)
	}
	r.wg.Go(l.write)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range l.asks {
			r.dropBrokerAsk(a)
		}
	}()
	return l.serve(r)
}
