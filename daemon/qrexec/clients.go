package qrexec

import (
	"context"
	"errors"
	"net"
	"time"

	"cubicle/daemon/qrexec/wire"
)

const (
	maxClients  = 256 // local clients of one qube
	clientHello = 5 * time.Second
)

// acceptClients serves dom0's programs at the qube's local socket.
func (q *qube) acceptClients(s *localSocket, a *agentConn) {
	slots := make(chan struct{}, maxClients)
	for {
		conn, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			q.log.Warn("local socket", "err", err)
			pause(q.ctx, acceptPause)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		q.wg.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			stop := context.AfterFunc(q.ctx, func() { conn.Close() })
			defer stop()
			if err := q.serveClient(conn, a); err != nil {
				q.log.Info("local client", "err", err)
			}
		})
	}
}

// serveClient does the local protocol (spec/qrexec.md §12): hello, one
// command, then nothing until the end.
func (q *qube) serveClient(conn *net.UnixConn, a *agentConn) error {
	if err := q.r.checkPeer(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(clientHello)); err != nil {
		return err
	}
	if _, err := conn.Write(wire.HelloMessage(wire.ClientVersion)); err != nil {
		return err
	}
	peer, err := wire.ReadHello(conn)
	if err != nil {
		return quiet(err)
	}
	if _, err := wire.Negotiate(wire.ClientVersion, peer, wire.ClientVersion); err != nil {
		return err
	}
	t, body, err := wire.ReadMessage(conn, wire.Client, wire.ClientVersion)
	if err != nil {
		return quiet(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	var l *leg
	var answer []byte
	if t == wire.ServiceConnect {
		l, answer, err = q.clientConnects(conn, a, body)
	} else {
		l, answer, err = q.clientCalls(conn, a, t, body)
	}
	if err != nil {
		return err
	}
	defer q.clientLeft(l)
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	var b [1]byte
	if n, _ := conn.Read(b[:]); n > 0 {
		return errors.New("the client speaks out of turn")
	}
	return nil
}

// clientCalls begins a call into the qube (spec/qrexec.md §7.1). A domain
// other than dom0's is that of the qube that will be the caller, as in
// upstream's way of connecting two qubes (§7.4, step 5).
func (q *qube) clientCalls(client net.Conn, a *agentConn, t wire.Type, body []byte) (*leg, []byte, error) {
	e, err := wire.ParseExec(body)
	if err != nil {
		return nil, nil, err
	}
	command, err := wire.ForAgent(e.Command, q.DefaultUser)
	if err != nil {
		return nil, nil, err
	}
	if len(command) > wire.MaxExecBody-9 {
		return nil, nil, errTooLong
	}
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if q.agent != a {
		return nil, nil, errNoAgent
	}
	if e.Domain != dom0 && (e.Domain == q.Domain || q.r.qubes[e.Domain] == nil) {
		return nil, nil, errors.New("the caller is no other qube that runs")
	}
	c := q.r.newCall()
	l, err := c.join(q, serviceSide, e.Domain, 0)
	if err != nil {
		c.fail(err)
		return nil, nil, err
	}
	c.client = client
	if e.Domain == dom0 && q.LinkDir != "" {
		c.host = &hostCaller{root: q.r.root.Vchan(), leg: l}
	}
	if !a.send(wire.Exec{Domain: e.Domain, Port: l.port, Command: command}.Message(t)) {
		l.drop()
		c.fail(errUnread)
		return nil, nil, errUnread
	}
	if e.Domain != dom0 {
		c.limit() // the caller may never be named
	}
	return l, wire.Exec{Domain: q.Domain, Port: l.port}.Message(t), nil
}

// clientConnects takes a call of the qube that waits for a verdict: the
// program of dom0 has decided (spec/qrexec.md §12). Without a port it serves
// the call itself; with one it names a call that clientCalls has begun, and
// gets no answer.
func (q *qube) clientConnects(client net.Conn, a *agentConn, body []byte) (*leg, []byte, error) {
	w, err := wire.ParseConnect(body)
	if err != nil {
		return nil, nil, err
	}
	r := q.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.agent != a {
		return nil, nil, errNoAgent
	}
	ask := a.waiting[w.Ident]
	if ask == nil {
		return nil, nil, errors.New("no call out of the qube waits under this name")
	}
	c, answers := r.newCall(), w.Port == 0
	if answers {
		c.client = client
	} else {
		to := r.qubes[w.Domain]
		if to == nil || to.legs[legKey{q.Domain, w.Port}] == nil {
			return nil, nil, errors.New("the other qube has no such call")
		}
		c = to.legs[legKey{q.Domain, w.Port}].call
		if c.legs[callerSide] != nil || c.ended {
			return nil, nil, errors.New("the other qube's call is taken")
		}
	}
	if answers {
		w.Domain = dom0
	}
	l, err := c.join(q, callerSide, w.Domain, w.Port)
	if err != nil {
		if answers {
			c.fail(err)
		}
		return nil, nil, err
	}
	if answers && q.LinkDir != "" {
		c.host = &hostService{root: r.root.Vchan(), leg: l}
	}
	r.giveUp(ask, "a program of dom0 took the call")
	if !a.send(wire.Connect{Domain: l.peer, Port: l.port, Ident: w.Ident}.Message()) {
		l.drop()
		c.fail(errUnread)
		return nil, nil, errUnread
	}
	c.start()
	if !answers {
		return l, nil, nil
	}
	return l, wire.Exec{Domain: q.Domain, Port: l.port}.Message(wire.ServiceConnect), nil
}

// clientLeft frees the port of a call whose agent was lost: where no byte of
// it passes through us, dom0's program alone knows how long it goes on.
func (q *qube) clientLeft(l *leg) {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if l.lost && l.call.isDirect() {
		l.call.end(nil)
		l.call.forget()
	}
}

var errNoAgent = errors.New("the agent is gone")
