package calls

import (
	"sync"
	"time"

	"cubicle/daemon/qube"
)

// allowance lets each qube have so much of something: burst at once, and one
// more after each time that has passed.
type allowance struct {
	every time.Duration
	burst int

	mu    sync.Mutex              // guards what follows
	until map[qube.UUID]time.Time // a qube's allowance is whole again
	over  map[qube.UUID]int       // what it was refused since it was last given
}

// take takes one of a qube's, if it has any left, and tells how many it was
// refused before.
func (a *allowance) take(id qube.UUID, now time.Time) (refused int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil {
		a.until, a.over = map[qube.UUID]time.Time{}, map[qube.UUID]int{}
	}
	for other, at := range a.until {
		if other != id && !at.After(now) {
			delete(a.until, other)
			delete(a.over, other)
		}
	}
	at := a.until[id]
	if at.Before(now) {
		at = now
	}
	if at.Sub(now) > time.Duration(a.burst-1)*a.every {
		a.over[id]++
		return 0, false
	}
	a.until[id] = at.Add(a.every)
	refused = a.over[id]
	delete(a.over, id)
	return refused, true
}
