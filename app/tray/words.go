package tray

import (
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// status is a running qube's state, and its memory where that means
// something.
func status(q *dom0.Qube) string {
	word := words.State(q.State)
	if q.MemoryUsed == 0 || q.State == dom0.Transient {
		return word
	}
	return word + ", " + words.Memory(q.MemoryUsed)
}

// AtWork tells whether the qube runs; else it is on its way or paused.
func (c Chip) AtWork() bool { return c.State == dom0.Running }
