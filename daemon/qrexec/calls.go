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

// Limits and times of calls (spec/qrexec.md §2).
const (
	maxClients     = 256 // local clients of one qube
	maxAgentQueue  = 512 // messages that an agent has not read
	maxRelays      = 512 // open data channels of one qube
	agentHello     = 60 * time.Second
	clientHello    = 5 * time.Second
	dataConnect    = 10 * time.Second // for dom0's program to offer its end
	firstPort      = vchan.PortDataFirst
	lastPort       = vchan.PortDataLast
	agentReadahead = 4096 // upstream's ring
)

// call is a call into the qube: its port is busy until the agent says that
// it is over.
type call struct {
	port   vchan.Port
	client net.Conn // closed when the call is over
	opened bool     // the agent has asked for the data channel
	relay  *net.UnixConn
}

// agentConn is one life of a qube's control channel.
type agentConn struct {
	version wire.Version
	out     *outbox[[]byte]
	conn    net.Conn
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
	a := &agentConn{version: version, conn: conn, out: newOutbox(maxAgentQueue, func([]byte) {})}
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
	<-clients
	q.r.mu.Lock()
	q.agent = nil
	q.abandonCalls()
	q.r.mu.Unlock()
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
			q.terminated(e)
			continue
		}
		tr, err := wire.ParseTrigger(t, body)
		if err != nil && tr.Ident == "" {
			return err
		}
		// The policy: nothing allows a call out of a qube, so it is denied.
		q.log.Info("call refused", "service", cleanForLog(tr.Service), "target", wire.CleanTarget(tr.Target))
		if !a.send(wire.RefusedMessage(tr.Ident)) {
			return errors.New("the agent does not read its messages")
		}
	}
}

func cleanForLog(service string) string {
	s, err := wire.CleanService(service)
	if err != nil {
		return ""
	}
	return s[:min(len(s), 80)]
}

// terminated frees the port of a call that the agent says is over, and ends
// the local client's connection as the sign of it.
func (q *qube) terminated(e wire.Exec) {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if c := q.calls[e.Port]; c != nil && e.Domain == dom0 {
		q.endCall(c)
	}
}

// endCall frees a port; mu is held.
func (q *qube) endCall(c *call) {
	delete(q.calls, c.port)
	c.client.Close()
}

// abandonCalls is what a lost agent leaves: local clients hear of the end.
// A port stays busy only where its data channel lives on (spec/qrexec.md
// §7.7); with upstream's sockets we do not see that, so there it stays busy.
// mu is held.
func (q *qube) abandonCalls() {
	for _, c := range q.calls {
		c.client.Close()
		if c.relay == nil && q.LinkDir != "" {
			delete(q.calls, c.port)
		}
	}
}

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
	if t == wire.ServiceConnect {
		return errors.New("no call out of the qube waits for a connection")
	}
	e, err := wire.ParseExec(body)
	if err != nil {
		return err
	}
	command, err := wire.ForAgent(e.Command, q.DefaultUser)
	if err != nil {
		return err
	}
	if len(command) > wire.MaxExecBody-9 {
		return errors.New("the command is too long")
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c, err := q.beginCall(conn, a, t, command)
	if err != nil {
		return err
	}
	if _, err := conn.Write(wire.Exec{Domain: q.Domain, Port: c.port}.Message(t)); err != nil {
		return err
	}
	var b [1]byte
	if n, _ := conn.Read(b[:]); n > 0 {
		return errors.New("the client speaks out of turn")
	}
	return nil
}

// beginCall allocates a port and tells the agent.
func (q *qube) beginCall(client net.Conn, a *agentConn, t wire.Type, command string) (*call, error) {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if q.agent != a {
		return nil, errors.New("the agent is gone")
	}
	for port := firstPort; port <= lastPort; port++ {
		if q.calls[port] != nil {
			continue
		}
		if !a.send(wire.Exec{Domain: dom0, Port: port, Command: command}.Message(t)) {
			return nil, errors.New("the agent does not read its messages")
		}
		c := &call{port: port, client: client}
		q.calls[port] = c
		return c, nil
	}
	return nil, errors.New("all ports are busy")
}

// openData answers the agent's request for a call's data channel with one
// end of a stream, and connects the other to dom0's program. mu is held. Zero
// is success.
func (q *qube) openData(a *guestAsk) vchan.Reason {
	c := q.calls[a.key.port]
	switch {
	case c == nil:
		return vchan.ReasonNotAllowed
	case c.opened:
		return vchan.ReasonBusy
	case len(q.relays) >= maxRelays:
		return vchan.ReasonTooMany
	}
	guestEnd, own, err := pairFiles()
	if err != nil {
		q.log.Error("cannot open a data channel", "err", err)
		return vchan.ReasonTooMany
	}
	conn, err := fileConn(own)
	if err != nil {
		guestEnd.Close()
		q.log.Error("cannot open a data channel", "err", err)
		return vchan.ReasonTooMany
	}
	c.opened, c.relay = true, conn
	q.relays[conn] = struct{}{}
	a.answer(guestEnd, nil)
	q.wg.Go(func() { q.relayCall(c, conn) })
	return 0
}

// relayCall connects the guest's stream with the channel that dom0's program
// offers, and moves bytes until both directions have ended.
func (q *qube) relayCall(c *call, guest *net.UnixConn) {
	ctx, cancel := context.WithTimeout(q.ctx, dataConnect)
	t := vchan.Unix{Dir: q.r.root.Vchan(), Self: q.Domain}
	ch, err := t.Dial(ctx, dom0, c.port)
	cancel()
	if err == nil {
		host, ok := ch.Conn.(*net.UnixConn)
		if !ok {
			err = errNotUnix
		} else {
			stop := context.AfterFunc(q.ctx, func() { host.Close() })
			relay(guest, host)
			stop()
		}
	}
	guest.Close()
	if err != nil && q.ctx.Err() == nil {
		q.log.Info("dom0's end of a call is not there", "port", c.port, "err", err)
	}
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	delete(q.relays, guest)
	c.relay = nil
	if q.agent == nil && q.calls[c.port] == c { // nobody will say that it is over
		delete(q.calls, c.port)
	}
}
