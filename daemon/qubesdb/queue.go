package qubesdb

import (
	"io"
	"sync"
)

// queue holds what is to be written to a connection, in bytes. Putting never
// blocks, so that whoever does not read stalls nobody but himself.
type queue struct {
	max int

	mu     sync.Mutex // guards what follows
	buf    []byte
	closed bool
	wake   chan struct{} // capacity 1: there is something to do
}

func newQueue(max int) *queue { return &queue{max: max, wake: make(chan struct{}, 1)} }

// put appends messages: all or, when they do not fit or the queue is closed,
// none.
func (q *queue) put(messages ...Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := len(q.buf)
	for _, m := range messages {
		size += HeaderSize + len(m.Data)
	}
	if q.closed || size > q.max {
		return false
	}
	for _, m := range messages {
		q.buf = m.AppendTo(q.buf)
	}
	q.signal()
	return true
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close lets run return after what is queued.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// run writes until the queue is closed and empty, or a write fails.
func (q *queue) run(w io.Writer) error {
	for range q.wake {
		for {
			q.mu.Lock()
			buf, closed := q.buf, q.closed
			q.buf = nil
			q.mu.Unlock()
			if len(buf) == 0 {
				if closed {
					return nil
				}
				break
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}
