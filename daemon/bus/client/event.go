package client

import (
	"context"
	"sync"

	"github.com/godbus/dbus/v5"
)

// Event is one of the types below.
type Event interface{ event() }

// Connected begins every stream and follows every Lost: forget what you
// knew, this is the whole state.
type Connected struct{ Snapshot Snapshot }

// Lost tells that qubesd is gone; what was known may be stale. Running qubes
// run on. Connected follows when it is back.
type Lost struct{ Err error }

// The changes. Each carries the whole object as it is now.
type (
	QubeAdded      struct{ Qube Qube }
	QubeChanged    struct{ Qube Qube }
	QubeRemoved    struct{ Qube Qube } // as it was
	JobAdded       struct{ Job Job }
	JobChanged     struct{ Job Job }
	JobRemoved     struct{ Job Job }
	LabelsChanged  struct{ Labels []Label }
	DevicesChanged struct {
		Devices map[dbus.ObjectPath]Device
	}
	DefaultsChanged struct {
		Template string
		Engine   string
		Engines  []Engine
	}
)

func (Connected) event()       {}
func (Lost) event()            {}
func (QubeAdded) event()       {}
func (QubeChanged) event()     {}
func (QubeRemoved) event()     {}
func (JobAdded) event()        {}
func (JobChanged) event()      {}
func (JobRemoved) event()      {}
func (LabelsChanged) event()   {}
func (DevicesChanged) event()  {}
func (DefaultsChanged) event() {}

// queue holds the events that a watcher has not taken yet. It never blocks
// the sender; changes of an object that wait behind each other are merged.
type queue struct {
	mu      sync.Mutex
	pending []Event
	wake    chan struct{} // capacity 1
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) push(e Event) {
	q.mu.Lock()
	if !q.merge(e) {
		q.pending = append(q.pending, e)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// merge replaces the object's waiting change by e. Only a change that is the
// last word on its object can be replaced without altering the story.
func (q *queue) merge(e Event) bool {
	for i := len(q.pending) - 1; i >= 0; i-- {
		switch old := q.pending[i].(type) {
		case Connected, Lost:
			return false
		case QubeChanged:
			if n, ok := e.(QubeChanged); ok && n.Qube.UUID == old.Qube.UUID {
				q.pending[i] = n
				return true
			}
		case QubeRemoved:
			if n, ok := e.(QubeChanged); ok && n.Qube.UUID == old.Qube.UUID {
				return false
			}
		case DevicesChanged:
			if _, ok := e.(DevicesChanged); ok {
				q.pending[i] = e
				return true
			}
		case JobChanged:
			if n, ok := e.(JobChanged); ok && n.Job.ID == old.Job.ID {
				q.pending[i] = n
				return true
			}
		}
	}
	return false
}

// drain hands the events to out until the context ends.
func (q *queue) drain(ctx context.Context, out chan<- Event) {
	for {
		q.mu.Lock()
		var next Event
		if len(q.pending) > 0 {
			next = q.pending[0]
			q.pending = q.pending[1:]
		}
		q.mu.Unlock()
		if next == nil {
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- next:
		case <-ctx.Done():
			return
		}
	}
}
