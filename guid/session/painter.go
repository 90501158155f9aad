package session

import (
	"time"

	"cubicle/guid/x11"
)

// painter keeps a qube from taking the X server for itself: after pixels were
// handed over, the next ones wait until the server has taken these, and then
// for half as long as it took. What a qube draws meanwhile is painted at once
// afterwards, and the first pixels after a rest do not wait at all.
type painter struct {
	ready chan struct{} // the next may come
	ask   chan struct{}
	busy  bool
}

// longestRest bounds the wait when the server was slow for other reasons.
const longestRest = 50 * time.Millisecond

// newPainter returns the painter of a connection. Its goroutine ends with done.
func newPainter(c *x11.Conn, done <-chan struct{}) *painter {
	p := &painter{ready: make(chan struct{}, 1), ask: make(chan struct{}, 1)}
	go func() {
		for {
			select {
			case <-p.ask:
			case <-done:
				return
			}
			start := time.Now()
			if c.Sync() != nil {
				return // the server is lost, which its events tell
			}
			rest := min(time.Since(start)/2, longestRest)
			if rest > time.Millisecond {
				time.Sleep(rest)
			}
			p.ready <- struct{}{}
		}
	}()
	return p
}

// may tells whether pixels may be painted now.
func (p *painter) may() bool { return !p.busy }

// painted notes that pixels were handed to the server.
func (p *painter) painted() {
	p.busy = true
	p.ask <- struct{}{}
}

// rested notes that ready has said so.
func (p *painter) rested() { p.busy = false }
