package qrexec

import (
	"context"
	"os"

	"cubicle/daemon/vchan"
)

// channelKey is a channel between dom0 and one qube, by what the qube does.
type channelKey struct {
	op   vchan.LinkOp // LinkListen or LinkDial
	port vchan.Port
}

// askKey is a channel of any qube.
type askKey struct {
	domain vchan.Domain
	channelKey
}

// isData tells the ports that calls use.
func isData(p vchan.Port) bool { return p >= vchan.PortDataFirst && p <= vchan.PortDataLast }

// guestAsks handles a qube's request for a channel end.
func (r *Router) guestAsks(l *guestLink, f vchan.LinkFrame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := l.q
	if q.guest != l { // replaced meanwhile
		return
	}
	key := channelKey{f.Op, f.Port}
	switch {
	case f.Domain != dom0 && !isData(f.Port):
		l.refuse(f.Request, vchan.ReasonNotAllowed) // qubes meet in calls alone
	case l.asks[f.Request] != nil:
		l.conn.Close() // an id names one request: the qube breaks the protocol
	case len(l.asks) >= maxAsks:
		l.refuse(f.Request, vchan.ReasonTooMany)
	case isData(f.Port):
		if why := q.openData(&guestAsk{l, f.Request, key, f.Domain}); why != 0 {
			l.refuse(f.Request, why)
		}
	case q.guestAsks[key] != nil:
		l.refuse(f.Request, vchan.ReasonBusy)
	default:
		a := &guestAsk{l, f.Request, key, dom0}
		l.asks[a.id] = a
		q.guestAsks[key] = a
		r.match(q, key)
	}
}

func (r *Router) guestCancels(l *guestLink, id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := l.asks[id]; a != nil {
		delete(l.asks, id)
		delete(l.q.guestAsks, a.key)
	}
}

// brokerAsks handles a request of a program of dom0.
func (r *Router) brokerAsks(l *hostLink, f vchan.LinkFrame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := askKey{f.Domain, channelKey{opposite(f.Op), f.Port}}
	a := &brokerAsk{link: l, id: f.Request, key: key}
	switch {
	case l.asks[f.Request] != nil:
		l.conn.Close()
	case f.Port == vchan.PortQrexec || f.Port == vchan.PortQubesDB || isData(f.Port) || f.Domain == dom0:
		l.refuse(f.Request, vchan.ReasonNotAllowed) // these are ours
	case len(l.asks) >= maxAsks:
		l.refuse(f.Request, vchan.ReasonTooMany)
	case r.hostAsks[key] != nil:
		l.refuse(f.Request, vchan.ReasonBusy)
	case r.synced && r.qubes[f.Domain] == nil:
		l.refuse(f.Request, vchan.ReasonGone)
	default:
		l.asks[a.id] = a
		r.hostAsks[key] = a
		if q := r.qubes[f.Domain]; q != nil {
			r.match(q, key.channelKey)
		}
	}
}

func (r *Router) brokerCancels(l *hostLink, id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := l.asks[id]; a != nil {
		r.dropBrokerAsk(a)
	}
}

// dropBrokerAsk forgets a request without an answer; mu is held.
func (r *Router) dropBrokerAsk(a *brokerAsk) {
	delete(a.link.asks, a.id)
	delete(r.hostAsks, a.key)
	if a.stop != nil {
		a.stop()
	}
}

func opposite(op vchan.LinkOp) vchan.LinkOp {
	if op == vchan.LinkDial {
		return vchan.LinkListen
	}
	return vchan.LinkDial
}

// match connects both sides of a channel when both have asked; mu is held.
// One end goes to dom0, the other to the qube: no two qubes share a pair.
func (r *Router) match(q *qube, key channelKey) {
	full := askKey{q.Domain, key}
	host := r.hostAsks[full]
	if host == nil {
		return
	}
	if q.LinkDir == "" {
		r.dialForeign(q, host, full)
		return
	}
	guest := q.guestAsks[key]
	if guest == nil {
		return
	}
	delete(r.hostAsks, full)
	delete(q.guestAsks, key)
	delete(guest.link.asks, guest.id)
	ends, err := newChannel(key.port)
	if err != nil {
		r.log.Error("cannot open a channel", "qube", q.Name, "port", key.port, "err", err)
		host.refuse(vchan.ReasonTooMany)
		guest.refuse(vchan.ReasonTooMany)
		return
	}
	host.answer(ends.host, ends.hostRegion)
	guest.answer(ends.guest, ends.guestRegion)
}

// channelEnds are the files of a new channel.
type channelEnds struct {
	guest, host             *os.File
	guestRegion, hostRegion *os.File // nil but on PortGUI
}

func newChannel(port vchan.Port) (ends channelEnds, err error) {
	defer func() {
		if err != nil {
			for _, f := range []*os.File{ends.guest, ends.host, ends.guestRegion, ends.hostRegion} {
				if f != nil {
					f.Close()
				}
			}
			ends = channelEnds{}
		}
	}()
	if ends.guest, ends.host, err = pairFiles(); err != nil {
		return ends, err
	}
	if port != vchan.PortGUI {
		return ends, nil
	}
	if ends.guestRegion, err = newRegion(); err != nil {
		return ends, err
	}
	ends.hostRegion, err = dup(ends.guestRegion)
	return ends, err
}

// dialForeign serves a request of dom0 for a qube that comes over upstream's
// sockets: the router dials for the program, which so needs not know. mu is
// held.
func (r *Router) dialForeign(q *qube, host hostAsk, key askKey) {
	a, ok := host.(*brokerAsk)
	if !ok || a.stop != nil {
		return
	}
	if key.op != vchan.LinkListen {
		delete(r.hostAsks, key)
		a.refuse(vchan.ReasonNotAllowed) // such an agent dials sockets itself
		return
	}
	ctx, cancel := context.WithCancel(q.ctx)
	a.stop = cancel
	q.wg.Go(func() {
		defer cancel()
		t := vchan.Unix{Dir: r.root.Vchan(), Self: dom0}
		ch, err := t.Dial(ctx, q.Domain, key.port)
		var end *os.File
		if err == nil {
			end, err = connFile(ch)
			ch.Close()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.hostAsks[key] != host { // cancelled, or the qube went down
			if end != nil {
				end.Close()
			}
			return
		}
		delete(r.hostAsks, key)
		if err != nil {
			a.refuse(vchan.ReasonGone)
			return
		}
		a.answer(end, nil)
	})
}
