// Package session is the process that serves one qube's windows: it joins the
// qube's channel, the rules of guid/window and dom0's X server.
package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"cubicle/guid/budget"
	"cubicle/guid/display"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
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

	// Patience is how long the agent may take to shake hands, and from the
	// start of a message to its end; 0 is 30 seconds. One that is slower has
	// its session ended with os.ErrDeadlineExceeded in the chain.
	Patience time.Duration

	// QueueLimit is the most bytes that wait for an agent that does not read;
	// 0 is the protocol's limit.
	QueueLimit int
}

const (
	// What a qube may ask for, in units of window.Session.Effort. In a burst
	// it may open many windows at once, as after a reconnection; for ever, it
	// may change a window 200 times or send 10 000 small messages each second.
	effortBurst     = 50_000
	effortPerSecond = 10_000

	messageRoom = 64  // messages that wait for the loop
	batch       = 256 // messages or events handled before the other side's turn

	// patience is long enough for a qube on a busy machine. One that is paused
	// within a message loses its windows until it runs again.
	patience = 30 * time.Second
)

// Run serves the agent on channel until the agent ends the stream (nil), the
// agent offends (a *window.OffenceError or *wire.ProtocolError in the chain),
// the display is lost (ErrDisplayLost), or ctx ends. It closes channel and
// region; the qube's windows are gone when it returns.
func Run(ctx context.Context, cfg Config, channel net.Conn, region *os.File, log *slog.Logger) error {
	defer channel.Close()
	log = budget.QuietLog(log)
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
	wait := cmp.Or(cfg.Patience, patience)
	version, err := shakeHands(channel, s.XConf(), wait)
	if err != nil {
		return either(ctx.Err(), err)
	}
	log.Debug("agent connected", "version", version)
	queue := wire.NewQueue(channel, cmp.Or(cfg.QueueLimit, wire.QueueLimit))
	defer queue.Close()
	cfg.Windows.Name, cfg.Windows.Version = cfg.Screen.Name, version
	done := make(chan struct{})
	defer close(done)
	loop := &loop{
		c: c, screen: s, queue: queue,
		session:  window.NewSession(cfg.Windows, s, buffers, queue, log),
		messages: make(chan message, messageRoom),
		budget:   budget.New(effortBurst, effortPerSecond, time.Now()),
		painter:  newPainter(c, done),
		bounds:   s.Bounds(),
		told:     s.XConf(),
	}
	defer loop.session.Close()
	reader := wire.NewReader(channel, wire.ToDaemon, version)
	reader.LimitPatience(channel, wait)
	go read(reader, loop.messages, done)
	err = loop.run(ctx)
	if err != nil {
		err = either(ctx.Err(), err)
	}
	return err
}

// shakeHands agrees with the agent on a version, within a time.
func shakeHands(channel net.Conn, conf wire.XConf, wait time.Duration) (wire.Version, error) {
	if err := channel.SetDeadline(time.Now().Add(wait)); err != nil {
		return 0, fmt.Errorf("GUI handshake: %w", err)
	}
	version, err := wire.DaemonHandshake(channel, conf)
	if err != nil {
		return 0, err
	}
	return version, channel.SetDeadline(time.Time{})
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
