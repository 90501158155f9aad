package supervise

import (
	"context"
	"time"
)

// Screen is dom0's X server as the supervisor needs it.
type Screen interface {
	// Done is closed when the server is gone.
	Done() <-chan struct{}
	Close() error
}

// lastScreenPause is the longest pause between two tries to reach the X
// server, which comes back with a new login.
const lastScreenPause = 2 * time.Second

// ServeOn is Serve for as long as there is an X server, and again when it has
// come back; dial connects to it. It works until ctx ends or the source does.
func (s *Supervisor) ServeOn(ctx context.Context, dial func() (Screen, error)) {
	pause := firstPause
	told := false
	for ctx.Err() == nil {
		screen, err := dial()
		if err != nil {
			if !told {
				s.Log.Warn("dom0's X server does not answer: windows come when it does", "error", err)
				told = true
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, lastScreenPause)
			continue
		}
		s.Log.Info("dom0's X server is there")
		lost := s.serveScreen(ctx, screen)
		screen.Close()
		if !lost {
			return
		}
		s.Log.Warn("dom0's X server is gone: windows come back when it does")
		pause, told = firstPause, true
	}
}

// serveScreen serves until the screen is lost, which it tells, or anything
// else ends.
func (s *Supervisor) serveScreen(ctx context.Context, screen Screen) (lost bool) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-screen.Done():
			cancel()
		case <-inner.Done():
		}
	}()
	s.Serve(inner)
	select {
	case <-screen.Done():
		return ctx.Err() == nil
	default:
		return false
	}
}
