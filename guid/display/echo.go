package display

import (
	"slices"

	"cubicle/guid/window"
)

// echoes are the sizes that we have asked for and the server has not answered
// yet, oldest first. Requests pass through the window manager, so that the
// answer to an older one can come after a newer one was sent. Told to the
// qube, it would take back the newer: a client that makes its window in steps
// (xterm: 1×1, one letter, then all) would be small again while it draws.
type echoes []window.Size

// maxEchoes bounds how many sizes wait for an answer.
const maxEchoes = 32

// add notes a request.
func (e *echoes) add(size window.Size) {
	if len(*e) == maxEchoes {
		*e = slices.Delete(*e, 0, 1)
	}
	*e = append(*e, size)
}

// old tells whether a window has a size only because we asked for it earlier:
// the answer to a later request is still to come (ICCCM §4.1.5 has window
// managers answer each).
func (e *echoes) old(size window.Size) bool {
	i := last(*e, size)
	if i < 0 || i == len(*e)-1 {
		*e = nil // answered, or somebody in dom0 had another wish
		return false
	}
	*e = slices.Delete(*e, 0, i+1)
	return true
}

// last is the place of the newest request for a size, -1 for none.
func last(e echoes, size window.Size) int {
	for i, asked := range slices.Backward(e) {
		if asked == size {
			return i
		}
	}
	return -1
}
