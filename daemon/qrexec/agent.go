package qrexec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

const dom0 vchan.Domain = 0

const (
	maxAgentQueue  = 512 // messages that an agent has not read
	agentHello     = 60 * time.Second
	agentReadahead = 4096 // upstream's ring
)

// agentConn is one life of a qube's control channel.
type agentConn struct {
	version wire.Version
	out     *outbox[[]byte]
	conn    net.Conn
	pace    pace // of the calls that it makes; for the reader alone

	// Guarded by Router.mu:
	waiting      map[wire.Ident]*question
	waitingBytes int // of their service names
}

// send queues a message. An agent that leaves its messages unread loses its
// control channel.
func (a *agentConn) send(b []byte) bool {
	if a.out.put(b) {
		return true
	}
	a.conn.Close()
	return false
}

// serveAgent is the daemon's end of a control channel: hello, then the
// agent's messages until it is lost. Everything that it reads is hostile.
func (q *qube) serveAgent(conn net.Conn) error {
	stop := context.AfterFunc(q.ctx, func() { conn.Close() })
	defer stop()
	version, err := agentHelloExchange(conn)
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	a := &agentConn{
		version: version,
		conn:    conn,
		out:     newOutbox(maxAgentQueue, func([]byte) {}),
		pace:    newPace(time.Now()),
		waiting: make(map[wire.Ident]*question),
	}
	local, err := q.listenLocal()
	if err != nil {
		q.log.Error("no socket for local clients", "err", err)
		return err
	}
	q.r.mu.Lock()
	q.agent = a
	q.r.mu.Unlock()
	q.wg.Go(func() {
		if err := a.out.run(func(b []byte) error { _, err := conn.Write(b); return err }); err != nil {
			conn.Close()
		}
	})
	clients := make(chan struct{})
	q.wg.Go(func() { q.acceptClients(local, a); close(clients) })
	q.log.Info("agent ready", "version", version)
	q.r.tell(control.Message{Kind: control.Ready, Domain: q.Domain, Version: uint32(version)})

	err = q.readAgent(a)

	conn.Close()
	a.out.close()
	if cerr := local.close(); cerr != nil {
		q.log.Warn("local socket", "err", cerr)
	}
	q.r.mu.Lock()
	q.agent = nil
	for _, ask := range a.waiting {
		q.r.giveUp(ask, "the caller's agent is gone")
	}
	q.abandonCalls()
	q.r.mu.Unlock()
	<-clients
	q.r.tell(control.Message{Kind: control.Lost, Domain: q.Domain})
	return err
}

// agentHelloExchange waits for the agent, which speaks first, and answers
// with the version that both will use.
func agentHelloExchange(conn net.Conn) (wire.Version, error) {
	if err := conn.SetDeadline(time.Now().Add(agentHello)); err != nil {
		return 0, err
	}
	peer, err := wire.ReadHello(conn)
	if err != nil {
		return 0, err
	}
	v, err := wire.Negotiate(wire.OwnVersion, peer, wire.MinVersion)
	if err != nil {
		return 0, err
	}
	if _, err := conn.Write(wire.HelloMessage(v)); err != nil {
		return 0, err
	}
	return v, conn.SetDeadline(time.Time{})
}

func (q *qube) readAgent(a *agentConn) error {
	r := bufio.NewReaderSize(a.conn, agentReadahead)
	for {
		t, body, err := wire.ReadMessage(r, wire.Agent, a.version)
		if err != nil {
			return quiet(err)
		}
		if t == wire.ConnectionTerminated {
			e, err := wire.ParseExec(body)
			if err != nil {
				return err
			}
			q.terminated(a, e)
			continue
		}
		// A qube that floods us with calls waits here, and nobody else does.
		if wait := a.pace.take(time.Now()); wait > 0 {
			pause(q.ctx, wait)
		}
		tr, err := wire.ParseTrigger(t, body)
		if err != nil && tr.Ident == "" {
			return err
		}
		if err == nil {
			err = q.ask(a, t, tr)
		}
		if err != nil {
			q.log.Info("call refused", "target", wire.CleanTarget(tr.Target), "err", err)
			if !a.send(wire.RefusedMessage(tr.Ident)) {
				return errUnread
			}
		}
	}
}

var errUnread = errors.New("the agent does not read its messages")

// terminated takes an agent's word that a call is over, or that a program
// which waits for a verdict has given up.
func (q *qube) terminated(a *agentConn, e wire.Exec) {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if id, ok := wire.ParseGaveUp(e); ok {
		if ask := a.waiting[id]; ask != nil {
			q.r.giveUp(ask, "the caller gave up")
		}
		return
	}
	if l := q.legs[legKey{e.Domain, e.Port}]; l != nil {
		l.release()
	}
}

// pace is how fast an agent may make calls: callBurst at once, and one more
// every callEvery.
type pace struct{ free time.Time }

const (
	callBurst = 1000
	callEvery = time.Second / 2000
)

func newPace(now time.Time) pace { return pace{now.Add(-callBurst * callEvery)} }

// take spends one call and returns how long to wait before it is made.
func (p *pace) take(now time.Time) time.Duration {
	if earliest := now.Add(-callBurst * callEvery); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(callEvery)
	return p.free.Sub(now)
}
