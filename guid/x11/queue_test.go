package x11

import (
	"testing"
	"time"
)

// Events stay in order, whether they find the reader waiting or not.
func TestEventsStayInOrder(t *testing.T) {
	c := &Conn{events: make(chan Event, 4), quit: make(chan struct{})}
	c.queue.init(c.events)
	go c.pump()
	const n = 20_000
	go func() {
		for i := range n {
			c.queue.put(Event{Body: i})
			if i%1000 == 0 {
				time.Sleep(time.Millisecond) // the reader catches up
			}
		}
		c.queue.close()
		c.queue.put(Event{Body: n}) // after the end: dropped
	}()
	next := 0
	for ev := range c.events {
		if ev.Body != next {
			t.Fatalf("event %v comes in the place of %d", ev.Body, next)
		}
		next++
	}
	if next != n {
		t.Errorf("%d events came of %d", next, n)
	}
}
