package sandbox

import (
	"sync"

	"cubicle/daemon/engine"
)

// queue passes events on in order without ever making the sender wait.
type queue struct {
	out chan engine.Event

	mu      sync.Mutex
	pending []engine.Event
	closed  bool
	wake    chan struct{}
	stop    chan struct{}
}

func newQueue() *queue {
	q := &queue{out: make(chan engine.Event), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	go q.run()
	return q
}

func (q *queue) add(ev engine.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.pending = append(q.pending, ev)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.stop)
	}
}

func (q *queue) run() {
	defer close(q.out)
	for {
		q.mu.Lock()
		batch := q.pending
		q.pending = nil
		q.mu.Unlock()
		for _, ev := range batch {
			select {
			case q.out <- ev:
			case <-q.stop:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.wake:
		case <-q.stop:
			return
		}
	}
}
