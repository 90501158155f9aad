package vchan

import (
	"context"
	"errors"
	"sync"
	"time"
)

var _ Transport = (*Redialer)(nil)

// Redialer is a Transport over a link that is dialled again whenever it is
// lost, for ever. A request that was waiting when the link broke is asked
// again on the next one. The zero value is not usable; it is safe for
// concurrent use.
type Redialer struct {
	path string
	stop context.CancelFunc

	mu   sync.Mutex // guards link
	link *Link      // nil until the first one; then the newest, perhaps lost
	up   chan struct{}
}

// NewRedialer dials the link socket at path in the background until ctx ends.
func NewRedialer(ctx context.Context, path string) *Redialer {
	ctx, cancel := context.WithCancel(ctx)
	r := &Redialer{path: path, stop: cancel, up: make(chan struct{})}
	go r.run(ctx)
	return r
}

// Pauses between two links. DialPath waits for the socket by itself; these
// are for a qrexecd that takes connections and drops them.
const (
	relinkMin = 20 * time.Millisecond
	relinkMax = 250 * time.Millisecond
)

func (r *Redialer) run(ctx context.Context) {
	pause := relinkMin
	for ctx.Err() == nil {
		link, err := DialLink(ctx, r.path)
		if err == nil {
			r.mu.Lock()
			r.link = link
			close(r.up)
			r.mu.Unlock()
			select {
			case <-link.Done():
			case <-ctx.Done():
				link.Close()
			}
			r.mu.Lock()
			r.up = make(chan struct{})
			r.mu.Unlock()
			pause = relinkMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, relinkMax)
	}
}

// Close ends the redialling and the present link. Open channels live on.
func (r *Redialer) Close() error {
	r.stop()
	return nil
}

// Link waits for a link that is up.
func (r *Redialer) Link(ctx context.Context) (*Link, error) {
	r.mu.Lock()
	up := r.up
	r.mu.Unlock()
	select {
	case <-up:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link, nil
}

// Self waits for a link and returns our own domain.
func (r *Redialer) Self(ctx context.Context) (Domain, error) {
	l, err := r.Link(ctx)
	if err != nil {
		return 0, err
	}
	return l.Self(), nil
}

// Listen is Link.Listen on the present link, or the next one.
func (r *Redialer) Listen(ctx context.Context, peer Domain, port Port) (*Channel, error) {
	return r.retry(ctx, func(l *Link) (*Channel, error) { return l.Listen(ctx, peer, port) })
}

// Dial is Link.Dial on the present link, or the next one.
func (r *Redialer) Dial(ctx context.Context, peer Domain, port Port) (*Channel, error) {
	return r.retry(ctx, func(l *Link) (*Channel, error) { return l.Dial(ctx, peer, port) })
}

func (r *Redialer) retry(ctx context.Context, ask func(*Link) (*Channel, error)) (*Channel, error) {
	for {
		l, err := r.Link(ctx)
		if err != nil {
			return nil, err
		}
		ch, err := ask(l)
		if !errors.Is(err, ErrLinkLost) {
			return ch, err
		}
		select { // until run has noticed the loss, too
		case <-time.After(redial):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
