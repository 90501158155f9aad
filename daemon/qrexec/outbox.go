package qrexec

import "sync"

// outbox is a bounded queue before a connection: putting never blocks, so
// that a peer that does not read stalls nobody but itself.
type outbox[T any] struct {
	max     int
	discard func(T)

	mu     sync.Mutex // guards what follows
	queue  []T
	closed bool
	wake   chan struct{} // one token: the queue is not empty, or closed
}

// newOutbox returns a queue of at most max items; discard frees one that is
// not written.
func newOutbox[T any](max int, discard func(T)) *outbox[T] {
	return &outbox[T]{max: max, discard: discard, wake: make(chan struct{}, 1)}
}

// put appends an item, which the outbox then owns. False means that the
// queue is full or closed.
func (o *outbox[T]) put(item T) bool { return o.putBelow(o.max, item) }

// putBelow is put for an item that leaves room for others: it takes at most
// the max-th place.
func (o *outbox[T]) putBelow(max int, item T) bool {
	o.mu.Lock()
	ok := !o.closed && len(o.queue) < min(max, o.max)
	if ok {
		o.queue = append(o.queue, item)
	}
	o.mu.Unlock()
	if !ok {
		o.discard(item)
		return false
	}
	o.signal()
	return true
}

func (o *outbox[T]) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close ends run and discards what is queued.
func (o *outbox[T]) close() {
	o.mu.Lock()
	o.closed = true
	rest := o.queue
	o.queue = nil
	o.mu.Unlock()
	for _, item := range rest {
		o.discard(item)
	}
	o.signal()
}

// run writes items in order until close, or until write fails.
func (o *outbox[T]) run(write func(T) error) error {
	for range o.wake {
		for {
			o.mu.Lock()
			if o.closed {
				o.mu.Unlock()
				return nil
			}
			if len(o.queue) == 0 {
				o.queue = nil
				o.mu.Unlock()
				break
			}
			item := o.queue[0]
			o.queue = o.queue[1:]
			o.mu.Unlock()
			err := write(item)
			o.discard(item)
			if err != nil {
				o.close()
				return err
			}
		}
	}
	return nil
}
