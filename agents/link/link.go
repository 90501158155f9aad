// Package link is the qube's side of the link to qrexecd. A qube has one
// link connection (package daemon/vchan), but more than one agent that opens
// channels, each a process of its own so that one's crash is not the other's.
//
// Relay holds the connection and shares it on a local socket with the same
// frames; it runs in the agent that says hello to dom0, which needs no other
// process for that then. Transport is what agents use. Both live through a
// restart of qrexecd: the relay dials again, and a Transport asks again. Open
// channels live through the end of the relay's process, too.
package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"cubicle/daemon/vchan"
)

// Where the sockets are in a qube.
const (
	Upstream = "/run/cubicle/link.sock" // dom0's, bound read-only into the qube
	Local    = "/run/qubes/link.sock"   // the relay's, for root in the qube
)

// The pause between two attempts to reach the other side grows from the
// first to the second. The first is short: agents start together, and one
// that looks before the relay listens would else make the qube's start wait.
const (
	firstPause = time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// backoff waits between attempts.
type backoff struct{ pause time.Duration }

// wait sleeps longer each time; it returns the context's error.
func (b *backoff) wait(ctx context.Context) error {
	b.pause = min(max(2*b.pause, firstPause), lastPause)
	t := time.NewTimer(b.pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

var _ vchan.Transport = (*Transport)(nil)

// Transport opens channels through the relay, or straight through qrexecd,
// at the socket Path. It connects when first needed and again whenever the
// connection is lost; a request that was waiting then is asked again. It is
// safe for concurrent use.
type Transport struct {
	Path string

	mu   sync.Mutex // guards link, and lets one caller dial
	link *vchan.Link
}

// Listen implements vchan.Transport.
func (t *Transport) Listen(ctx context.Context, peer vchan.Domain, port vchan.Port) (*vchan.Channel, error) {
	return t.ask(ctx, func(l *vchan.Link) (*vchan.Channel, error) { return l.Listen(ctx, peer, port) })
}

// Dial implements vchan.Transport.
func (t *Transport) Dial(ctx context.Context, peer vchan.Domain, port vchan.Port) (*vchan.Channel, error) {
	return t.ask(ctx, func(l *vchan.Link) (*vchan.Channel, error) { return l.Dial(ctx, peer, port) })
}

// Self returns our own domain, waiting for the link if need be.
func (t *Transport) Self(ctx context.Context) (vchan.Domain, error) {
	l, err := t.current(ctx)
	if err != nil {
		return 0, err
	}
	return l.Self(), nil
}

// Close ends the connection; open channels live on.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == nil {
		return nil
	}
	return t.link.Close()
}

func (t *Transport) ask(ctx context.Context, request func(*vchan.Link) (*vchan.Channel, error)) (*vchan.Channel, error) {
	var b backoff
	for {
		l, err := t.current(ctx)
		if err != nil {
			return nil, err
		}
		ch, err := request(l)
		if !errors.Is(err, vchan.ErrLinkLost) {
			return ch, err
		}
		if err := b.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// current returns the live link, dialling until there is one.
func (t *Transport) current(ctx context.Context) (*vchan.Link, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link != nil {
		select {
		case <-t.link.Done():
			t.link.Close()
			t.link = nil
		default:
			return t.link, nil
		}
	}
	l, err := dialLink(ctx, t.Path)
	if err != nil {
		return nil, err
	}
	t.link = l
	return l, nil
}
