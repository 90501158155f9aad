package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cubicle/guid/budget"
	"cubicle/guid/display"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"

	"golang.org/x/sys/unix"
)

// loop is where the session's state lives: one goroutine.
type loop struct {
	c        *x11.Conn
	screen   *display.Display
	session  *window.Session
	queue    *wire.Queue
	messages chan message
	budget   budget.Budget
	painter  *painter
	bounds   window.Bounds // as the session knows them
	told     wire.XConf    // what the agent knows of the screen
}

// run serves until either side is gone or ctx ends, without what the agent has
// sent before and nobody has read yet.
func (l *loop) run(ctx context.Context) error {
	var pause <-chan time.Time // nil: the agent may be heard
	for {
		messages := l.messages
		if pause != nil {
			messages = nil // its stream fills up, and so it slows itself
		}
		select {
		case m := <-messages:
			if err := l.fromAgent(m); err != nil {
				return unlessGone(err)
			}
			if wait := l.budget.Spend(float64(l.session.Effort()), time.Now()); wait > 0 {
				pause = time.After(wait)
			}
		case <-pause:
			pause = nil
		case ev, ok := <-l.c.Events():
			if err := l.fromDisplay(ev, ok); err != nil {
				return err
			}
		case <-l.screen.Due():
			if err := l.screen.Recheck(); err != nil {
				return err
			}
		case <-l.painter.ready:
			l.painter.rested()
		case <-ctx.Done():
			return ctx.Err()
		case <-l.queue.Done():
			return unlessGone(l.queue.Err())
		}
		if err := l.settle(); err != nil {
			return err
		}
	}
}

// settle does what follows from all that has been handled.
func (l *loop) settle() error {
	if err := l.screen.Settle(l.session); err != nil {
		return err
	}
	if now := l.screen.Bounds(); now != l.bounds {
		l.session.LocalBounds(l.bounds)
		l.bounds = now
	}
	if now := l.screen.XConf(); now != l.told {
		l.told = now
		if err := l.queue.Send(0, wire.Resize{Width: now.Width, Height: now.Height}); err != nil {
			return unlessGone(err)
		}
	}
	if l.painter.may() && l.session.Flush() {
		l.painter.painted()
	}
	return nil
}

// unlessGone turns the agent's leaving into a good end. It may leave with our
// messages unread.
func unlessGone(err error) error {
	if err == io.EOF || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// fromAgent handles a message and those that wait behind it.
func (l *loop) fromAgent(m message) error {
	for n := 1; ; n++ {
		if m.err != nil {
			return m.err
		}
		if err := l.session.Handle(m.window, m.body); err != nil {
			return err
		}
		if n == batch {
			return nil
		}
		select {
		case m = <-l.messages:
		default:
			return nil
		}
	}
}

// fromDisplay handles an event and those that wait behind it.
func (l *loop) fromDisplay(ev x11.Event, ok bool) error {
	for n := 1; ; n++ {
		if !ok {
			return fmt.Errorf("%w: %w", ErrDisplayLost, l.c.Err())
		}
		if err := l.screen.Dispatch(ev, l.session); err != nil {
			return err
		}
		if n == batch {
			return nil
		}
		select {
		case ev, ok = <-l.c.Events():
		default:
			return nil
		}
	}
}
