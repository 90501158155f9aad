package qrexec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// Limits and times of calls (spec/qrexec.md §2).
const (
	maxCallsOut = 256 // calls of one qube's programs
	maxStreams  = 512 // open data channels of one qube
	firstPort   = vchan.PortDataFirst
	lastPort    = vchan.PortDataLast

	dataConnect = 10 * time.Second  // for dom0's program to offer its end
	qubeConnect = 120 * time.Second // for qubes to ask for theirs
)

// side is a part in a call.
type side int

const (
	callerSide  side = iota // vchan server of the data channel
	serviceSide             // vchan client
)

// op is what a qube on this side does with the data channel.
func (s side) op() vchan.LinkOp {
	if s == callerSide {
		return vchan.LinkListen
	}
	return vchan.LinkDial
}

// call joins two streams: each side's. A side is a qube, which then has a leg,
// or dom0, which has a host. Router.mu guards all of it.
type call struct {
	r      *Router
	ask    *question // nil for a call that qubesd was not asked for
	legs   [2]*leg
	host   host // dom0's side; nil between qubes
	ctx    context.Context
	cancel context.CancelFunc

	streams  [2]*net.UnixConn // by side
	begun    time.Time
	joined   time.Time // when both streams were there
	relaying bool
	ended    bool        // as qubesd was told
	gone     bool        // no byte of it is under way, as far as we see
	clock    *time.Timer // ends what is not joined in time; may be nil
	client   net.Conn    // of dom0, closed when the call is over; or nil
}

// leg is a qube's part in a call. It is in the qube's table, and its port is
// busy, until the agent says that the call is over.
type leg struct {
	call   *call
	q      *qube
	side   side
	peer   vchan.Domain
	port   vchan.Port
	own    bool // the port is one of this qube's 256
	opened bool // its agent has asked for the data channel
	over   bool // it is out of its qube's table
	lost   bool // its agent is gone, and says nothing any more
}

type legKey struct {
	peer vchan.Domain
	port vchan.Port
}

func (l *leg) key() legKey { return legKey{l.peer, l.port} }

// newCall is a call that has no side yet.
func (r *Router) newCall() *call {
	c := &call{r: r, begun: time.Now()}
	c.ctx, c.cancel = context.WithCancel(r.ctx)
	return c
}

// join gives a qube its part. Port zero allocates one of its own (spec/qrexec.md
// §2); else it is the peer's. mu is held.
func (c *call) join(q *qube, s side, peer vchan.Domain, port vchan.Port) (*leg, error) {
	l := &leg{call: c, q: q, side: s, peer: peer, port: port}
	if s == callerSide && q.callsOut >= maxCallsOut {
		return nil, errors.New("the qube has too many calls under way")
	}
	if port == 0 {
		l.own = true
		l.port = q.freePort(peer)
		if l.port == 0 {
			return nil, errors.New("all ports are busy")
		}
		q.ports[l.port] = l
	} else if q.legs[l.key()] != nil {
		return nil, fmt.Errorf("port %d of domain %d is busy", port, peer)
	}
	if s == callerSide {
		q.callsOut++
	}
	q.legs[l.key()] = l
	c.legs[s] = l
	return l, nil
}

// freePort returns the lowest free port toward a peer, or zero. Both daemons
// of a pair of qubes never choose the same: one takes even ports, the other
// odd ones (spec/qrexec.md §2). A port that the peer still uses with us is
// not free: its agent will say later which call it has ended.
func (q *qube) freePort(peer vchan.Domain) vchan.Port {
	port, step := firstPort, vchan.Port(1)
	if peer != dom0 {
		step = 2
		if peer > q.Domain {
			port++
		}
	}
	other := q.r.qubes[peer]
	for ; port <= lastPort; port += step {
		if q.ports[port] == nil && (other == nil || other.legs[legKey{q.Domain, port}] == nil) {
			return port
		}
	}
	return 0
}

// drop takes the leg out of its qube's table; mu is held.
func (l *leg) drop() {
	if l.over {
		return
	}
	l.over = true
	delete(l.q.legs, l.key())
	if l.own {
		delete(l.q.ports, l.port)
	}
	if l.side == callerSide {
		l.q.callsOut--
	}
	if s := l.call.streams[l.side]; s != nil {
		delete(l.q.streams, s)
	}
}

// release ends a leg, whose agent says that the call is over. What it has sent
// is still delivered. mu is held.
func (l *leg) release() {
	c := l.call
	l.drop()
	if c.client != nil {
		c.client.Close()
	}
	stream := c.streams[l.side]
	if stream != nil {
		shut(stream)
	}
	switch {
	case c.ended:
	case c.isDirect():
		c.end(nil)
		c.forget()
	case c.relaying:
		c.end(nil)
	case l.side == callerSide || stream == nil:
		c.fail(errors.New("a side ended the call before it began"))
	}
}

// lose is release for a leg whose agent is gone. The data channel may live on
// without it, and the port is busy as long (spec/qrexec.md §7.7). mu is held.
func (l *leg) lose() {
	c := l.call
	l.lost = true
	switch {
	case c.gone:
		l.drop()
	case !c.isDirect():
		if c.client != nil {
			c.client.Close()
		}
		if !c.relaying {
			c.fail(errors.New("an agent was lost before the call began"))
		}
	case c.client != nil:
		// This tells dom0's program that the call is over, and its own end
		// tells us.
		if h, ok := c.client.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	default: // nobody is left to ask, when both are lost
		for _, other := range c.legs {
			if other != nil && !other.lost && !other.over {
				return
			}
		}
		c.end(errors.New("both agents were lost"))
		c.forget()
	}
}

// leave is lose for a leg whose qube is gone; mu is held.
func (l *leg) leave() {
	c := l.call
	stream := c.streams[l.side]
	l.drop()
	switch {
	case c.relaying:
		shut(stream)
	case c.isDirect():
		c.end(errors.New("a qube went down"))
		c.forget()
	default:
		c.fail(errors.New("a qube went down before the call began"))
	}
}

// isDirect tells that no byte of the call passes through us: both sides meet
// on upstream's sockets.
func (c *call) isDirect() bool {
	for _, l := range c.legs {
		if l != nil && l.q.LinkDir != "" {
			return false
		}
	}
	return c.host == nil
}

// limit ends a call whose sides are not joined in time; mu is held.
func (c *call) limit() {
	c.clock = time.AfterFunc(c.r.patience, func() {
		c.r.mu.Lock()
		defer c.r.mu.Unlock()
		if !c.relaying {
			c.fail(errors.New("a side did not connect in time"))
		}
	})
}

// start begins what need not wait for an agent: the clock, the sides that come
// over upstream's sockets, and a host that waits there. mu is held.
func (c *call) start() {
	if c.isDirect() {
		return
	}
	if c.clock == nil {
		c.limit()
	}
	for _, l := range c.legs {
		if l != nil && l.q.LinkDir == "" {
			c.r.wg.Go(func() { c.meetForeign(l) })
		}
	}
	if c.host != nil && c.host.early() {
		c.openHost(nil)
	}
}

// meetForeign gets the stream of a qube that comes over upstream's sockets.
func (c *call) meetForeign(l *leg) {
	t := vchan.Unix{Dir: c.r.root.Vchan(), Self: l.peer}
	var ch *vchan.Channel
	var err error
	if l.side == callerSide {
		ch, err = t.Dial(c.ctx, l.q.Domain, l.port)
	} else {
		ch, err = t.Listen(c.ctx, l.q.Domain, l.port)
	}
	var conn *net.UnixConn
	if err == nil {
		if conn, _ = ch.Conn.(*net.UnixConn); conn == nil {
			err = errNotUnix
		}
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	switch {
	case err != nil:
		c.fail(err)
	case c.ended:
		conn.Close()
	default:
		l.opened = true
		c.attach(l, conn)
	}
}

// openData answers an agent's request for a call's data channel with one end
// of a stream of its own, and keeps the other. mu is held. Zero is success.
func (q *qube) openData(a *guestAsk) vchan.Reason {
	l := q.legs[legKey{a.peer, a.key.port}]
	switch {
	case l == nil || l.side.op() != a.key.op:
		return vchan.ReasonNotAllowed
	case l.opened:
		return vchan.ReasonBusy
	case l.call.ended:
		return vchan.ReasonGone
	case len(q.streams) >= maxStreams:
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
	l.opened = true
	a.answer(guestEnd, nil)
	l.call.attach(l, conn)
	return 0
}

// attach takes a qube's stream; mu is held.
func (c *call) attach(l *leg, conn *net.UnixConn) {
	c.streams[l.side] = conn
	if !l.over {
		l.q.streams[conn] = struct{}{}
	}
	if c.host == nil || c.host.early() {
		c.relayIfJoined()
		return
	}
	c.openHost(conn)
}

func (c *call) openHost(conn *net.UnixConn) {
	c.r.wg.Go(func() {
		if err := c.host.open(c.ctx, c, conn); err != nil {
			c.r.mu.Lock()
			defer c.r.mu.Unlock()
			c.fail(err)
		}
	})
}

// relayIfJoined moves bytes once both streams are there; mu is held.
func (c *call) relayIfJoined() {
	if c.ended || c.relaying || c.streams[callerSide] == nil || c.streams[serviceSide] == nil {
		return
	}
	c.markJoined()
	for _, l := range c.legs {
		if l != nil && l.over { // a service that was done before its caller came
			c.end(nil)
		}
	}
	c.r.wg.Go(func() {
		c.r.pipes.relay(c.streams[callerSide], c.streams[serviceSide])
		c.r.mu.Lock()
		defer c.r.mu.Unlock()
		c.end(nil)
		c.forget()
	})
}

// markJoined begins the time of the service; mu is held.
func (c *call) markJoined() {
	c.relaying, c.joined = true, time.Now()
	if c.clock != nil {
		c.clock.Stop()
	}
}

// forget drops the streams of a call whose bytes have all been moved, and the
// legs of agents that were lost: nobody will say that it is over. mu is held.
func (c *call) forget() {
	c.gone = true
	for s, l := range c.legs {
		if l == nil {
			continue
		}
		if stream := c.streams[s]; stream != nil {
			delete(l.q.streams, stream)
		}
		if l.lost {
			l.drop()
		}
	}
}

// fail ends a call whose sides are not joined; mu is held.
func (c *call) fail(err error) {
	if c.ended {
		return
	}
	c.end(err)
	if c.relaying {
		return
	}
	if c.host != nil {
		c.host.close()
	}
	for _, s := range c.streams {
		if s != nil {
			s.Close()
		}
	}
	c.forget()
}

// end tells qubesd, once, what became of the call; mu is held.
func (c *call) end(err error) {
	if c.ended {
		return
	}
	c.ended = true
	c.cancel()
	if c.clock != nil {
		c.clock.Stop()
	}
	var end control.End
	if err != nil {
		end.Error = err.Error()
		for _, l := range c.legs {
			if l != nil {
				l.q.log.Debug("call failed", "peer", l.peer, "port", l.port, "err", err)
				break
			}
		}
	}
	if !c.joined.IsZero() {
		end.Connect = c.joined.Sub(c.begun).Nanoseconds()
		end.Service = time.Since(c.joined).Nanoseconds()
	}
	if c.ask != nil {
		c.r.tellEnd(c.ask, end)
	}
}

// abandonCalls is what a lost agent leaves; mu is held.
func (q *qube) abandonCalls() {
	for _, l := range q.legs {
		l.lose()
	}
}
