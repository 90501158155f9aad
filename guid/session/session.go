// Package session is the process that serves one qube's windows: it joins the
// qube's channel, the rules of guid/window and dom0's X server.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"cubicle/guid/display"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"

	"golang.org/x/sys/unix"
)

// ErrDisplayLost is the end of a session whose X server is gone.
var ErrDisplayLost = errors.New("dom0's X server is gone")

// Config says whom a session serves and how.
type Config struct {
	Screen  display.Config
	Windows window.Config // Name and Version are set by Run
	Display string        // "" is $DISPLAY

	// Confine shuts the process in when everything is open that it needs and
	// before it reads the qube's first byte. Nil leaves it open (tests).
	Confine func() error
}

const (
	messageRoom = 64  // messages that wait for the loop
	batch       = 256 // messages or events handled before the other side's turn
)

// Run serves the agent on channel until the agent ends the stream (nil), the
// agent offends (a *window.OffenceError or *wire.ProtocolError in the chain),
// the display is lost (ErrDisplayLost), or ctx ends. It closes channel and
// region; the qube's windows are gone when it returns.
func Run(ctx context.Context, cfg Config, channel net.Conn, region *os.File, log *slog.Logger) error {
	defer channel.Close()
	c, err := x11.Dial(cfg.Display)
	if err != nil {
		closeRegion(region)
		return fmt.Errorf("%w: %w", ErrDisplayLost, err)
	}
	defer c.Close()
	s, err := display.New(c, cfg.Screen, log)
	if err != nil {
		closeRegion(region)
		return err
	}
	buffers, err := s.AttachRegion(region)
	closeRegion(region)
	if err != nil {
		return err
	}
	if cfg.Confine != nil {
		if err := cfg.Confine(); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	version, err := wire.DaemonHandshake(channel, s.XConf())
	if err != nil {
		return either(ctx.Err(), err)
	}
	log.Debug("agent connected", "version", version)
	queue := wire.NewQueue(channel, wire.QueueLimit)
	defer queue.Close()
	cfg.Windows.Name, cfg.Windows.Version = cfg.Screen.Name, version
	loop := &loop{
		c: c, screen: s, queue: queue,
		session:  window.NewSession(cfg.Windows, s, buffers, queue, log),
		messages: make(chan message, messageRoom),
	}
	defer loop.session.Close()
	done := make(chan struct{})
	defer close(done)
	go read(wire.NewReader(channel, wire.ToDaemon, version), loop.messages, done)
	err = loop.run()
	if err != nil {
		err = either(ctx.Err(), err)
	}
	return err
}

func closeRegion(region *os.File) {
	if region != nil {
		region.Close()
	}
}

// either prefers the reason why we ended something to the failure that
// followed from it.
func either(reason, failure error) error {
	if reason != nil {
		return reason
	}
	return failure
}

// message is one of the agent's, or the end of them.
type message struct {
	window wire.WindowID
	body   wire.Message
	err    error
}

// read passes messages on, so that an agent that stops within one stalls
// nobody.
func read(r *wire.Reader, to chan<- message, done <-chan struct{}) {
	for {
		window, body, err := r.Next()
		select {
		case to <- message{window, body, err}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// loop is where the session's state lives: one goroutine.
type loop struct {
	c        *x11.Conn
	screen   *display.Display
	session  *window.Session
	queue    *wire.Queue
	messages chan message
}

func (l *loop) run() error {
	for {
		select {
		case m := <-l.messages:
			if err := l.fromAgent(m); err != nil {
				return unlessGone(err)
			}
		case ev, ok := <-l.c.Events():
			if err := l.fromDisplay(ev, ok); err != nil {
				return err
			}
		case <-l.queue.Done():
			return unlessGone(l.queue.Err())
		}
		if err := l.screen.Settle(l.session); err != nil {
			return err
		}
		l.session.Flush()
	}
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
