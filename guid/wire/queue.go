package wire

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// QueueLimit is the most bytes that a daemon holds for an agent that does not
// read (spec/gui-protocol.md §1).
const QueueLimit = 10_000_000

// ErrQueueFull is the error of a peer that has stopped reading.
var ErrQueueFull = errors.New("the peer does not read: the outgoing queue is full")

// Queue sends messages without ever blocking its caller: a goroutine writes
// them in order. It is safe for concurrent use.
type Queue struct {
	limit int
	wake  chan struct{}
	done  chan struct{}

	mu     sync.Mutex // guards what follows
	buf    []byte
	out    int // bytes that the goroutine is writing now
	err    error
	closed bool
}

// NewQueue returns a queue in front of w that holds at most limit bytes.
// Close w to free the goroutine when w blocks.
func NewQueue(w io.Writer, limit int) *Queue {
	q := &Queue{limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run(w)
	return q
}

// Send queues a message. It fails with ErrQueueFull, with the error of an
// earlier write, or after Close; the session is over then.
func (q *Queue) Send(window WindowID, m Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	if q.closed {
		return io.ErrClosedPipe
	}
	before := len(q.buf)
	q.buf = Append(q.buf, window, m)
	if len(q.buf)+q.out > q.limit {
		q.buf = q.buf[:before]
		q.err = ErrQueueFull
		return q.err
	}
	q.signal()
	return nil
}

// Close lets the goroutine end after it has written what is queued.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// Done is closed when the goroutine has ended: everything is written after
// Close, or a write failed.
func (q *Queue) Done() <-chan struct{} { return q.done }

// Err is the error of the queue, nil while it works.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) run(w io.Writer) {
	defer close(q.done)
	var spare []byte
	for range q.wake {
		for {
			q.mu.Lock()
			b := q.buf
			if len(b) == 0 {
				closed := q.closed
				q.mu.Unlock()
				if closed {
					return
				}
				break
			}
			q.buf, q.out = spare[:0], len(b)
			q.mu.Unlock()

			_, err := w.Write(b)

			q.mu.Lock()
			q.out = 0
			if err != nil {
				q.err = fmt.Errorf("send to the peer: %w", err)
			}
			q.mu.Unlock()
			if err != nil {
				return
			}
			if spare = b; cap(spare) > 1<<20 {
				spare = nil // a burst is over: give the memory back
			}
		}
	}
}
