package ask

import "time"

// gate keeps shut what a person could not mean yet: a window that appears
// while somebody types gets keys that were meant for another one. It opens a
// second after the window got the keyboard (spec/qrexec.md §11), and only when
// nothing has been typed for a while: who is still typing has not seen it.
type gate struct {
	focused bool
	opens   time.Time
}

const (
	afterFocus = time.Second
	afterKey   = 500 * time.Millisecond
)

// focus tells that the window has got or lost the keyboard.
func (g *gate) focus(focused bool, now time.Time) {
	if focused && !g.focused {
		g.opens = now.Add(afterFocus)
	}
	g.focused = focused
}

// key tells that something was typed, and returns whether it counts.
func (g *gate) key(now time.Time) bool {
	if g.open(now) {
		return true
	}
	if next := now.Add(afterKey); next.After(g.opens) {
		g.opens = next
	}
	return false
}

// open tells whether what a person does is meant.
func (g *gate) open(now time.Time) bool { return g.focused && !now.Before(g.opens) }

// left is the time until it opens by itself; 0 when it is open, or will not.
func (g *gate) left(now time.Time) time.Duration {
	if !g.focused {
		return 0
	}
	return max(0, g.opens.Sub(now))
}
