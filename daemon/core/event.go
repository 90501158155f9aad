package core

import (
	"context"
	"slices"
	"sync"
	"time"

	"cubicle/daemon/qube"
)

// Event tells that something changed. Its name and arguments are upstream's
// (spec/admin-api.md §7); an event without a name only says that the qube or
// job looks different in the View.
type Event struct {
	Name    string
	Subject qube.Name // empty for the system
	Args    []Arg
	Qube    qube.UUID // whose view changed; empty for the system
	Job     uint64    // which job changed; 0 for none
	Ended   bool      // that job ended: somebody waits for it
}

// Arg is one argument of an event.
type Arg struct{ Key, Value string }

// maxWaiting is how many events may wait for one slow reader before its
// subscription is ended.
const maxWaiting = 100_000

// Subscription delivers events to one reader.
type Subscription struct {
	core  *Core
	mu    sync.Mutex
	list  []Event
	looks map[look]bool // events without a name that wait
	over  bool
	wake  chan struct{} // capacity 1
	ended chan struct{} // capacity 1: the list holds the end of a job
}

// Next waits for events and returns all that wait, oldest first, with a View
// that contains exactly the changes told so far. It returns an error when the
// context ends, and General when the reader was too slow.
func (s *Subscription) Next(ctx context.Context) ([]Event, *View, error) {
	for {
		list, v, over := s.take()
		if over {
			return nil, nil, Failf(General, "the reader of events is too slow")
		}
		if len(list) > 0 {
			return list, v, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// Gather lets events come together for so long, and no longer than until a job
// ends.
func (s *Subscription) Gather(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ended:
	case <-ctx.Done():
	}
}

// take empties the list. No change is under way meanwhile, so that the View
// has no change whose event is still to come.
func (s *Subscription) take() (list []Event, v *View, over bool) {
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	list, s.list, s.looks = s.list, nil, nil
	select {
	case <-s.ended:
	default:
	}
	return list, s.core.View(), s.over
}

// Close ends the subscription.
func (s *Subscription) Close() {
	h := &s.core.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (s *Subscription) push(events []Event) {
	s.mu.Lock()
	for _, e := range events {
		if s.over || s.merges(e) {
			continue
		}
		if s.list = append(s.list, e); len(s.list) > maxWaiting {
			s.list, s.looks, s.over = nil, nil, true
		}
	}
	s.mu.Unlock()
	tell(s.wake)
	if slices.ContainsFunc(events, func(e Event) bool { return e.Ended }) {
		tell(s.ended)
	}
}

// look is what an event without a name says: that something looks different.
type look struct {
	qube  qube.UUID
	job   uint64
	ended bool
}

// merges reports whether an event says nothing that a waiting one does not.
// The caller holds mu.
func (s *Subscription) merges(e Event) bool {
	if e.Name != "" {
		return false
	}
	l := look{e.Qube, e.Job, e.Ended}
	if s.looks[l] {
		return true
	}
	if s.looks == nil {
		s.looks = map[look]bool{}
	}
	s.looks[l] = true
	return false
}

// tell says something to a channel of capacity 1, once.
func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hub passes events to the subscriptions.
type hub struct {
	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

func (h *hub) subscribe(c *Core) *Subscription {
	s := &Subscription{core: c, wake: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	return s
}

func (h *hub) send(events []Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.push(events)
	}
}
