package display

import (
	"time"

	"cubicle/guid/x11"
)

// A window manager that is just starting can miss a window: it is neither
// mapped nor in a frame of the manager's until something else wakes that up,
// which may be never. So windows that a manager should have are looked at
// again until it has them.
const (
	firstLook = 500 * time.Millisecond
	lastLook  = 8 * time.Second // pauses double up to this one
	looks     = 7
)

// wait is a window that should come under the manager's control.
type wait struct{ left int }

// await looks at a window again, from now on.
func (s *Display) await(l *local) {
	s.waiting[l] = &wait{looks}
	s.pause = firstLook
	s.due = time.After(s.pause)
}

// awaitAll is await for all windows that a manager should have.
func (s *Display) awaitAll() {
	for _, l := range s.byID {
		if l.shown && !l.override {
			s.await(l)
		}
	}
}

// Due says when to call Recheck. It is another channel after each call of a
// method.
func (s *Display) Due() <-chan time.Time { return s.due }

// Recheck offers windows that the window manager has missed to it again. An
// error is the loss of the server.
func (s *Display) Recheck() error {
	s.due = nil
	managed, err := s.c.Managed()
	if err != nil {
		return err
	}
	s.managed = managed
	for l, w := range s.waiting {
		if w.left--; w.left < 0 {
			delete(s.waiting, l)
			s.log.Warn("the window manager does not take a window", "window", l.id)
			continue
		}
		if !managed {
			continue // it has gone again, or is still on its way
		}
		has, err := s.underControl(l)
		if err != nil {
			return err
		}
		if has {
			delete(s.waiting, l)
		}
	}
	if len(s.waiting) > 0 {
		s.pause = min(2*s.pause, lastLook)
		s.due = time.After(s.pause)
	}
	return nil
}

// underControl tells whether a window manager has taken a window (ICCCM
// §4.1.3.1: it has WM_STATE then), and offers it again if not.
func (s *Display) underControl(l *local) (bool, error) {
	p, err := s.c.GetProperty(l.frame, s.atoms["WM_STATE"], x11.AtomAny, 8)
	if err == nil && p.Type == s.atoms["WM_STATE"] {
		return true, nil
	}
	info, infoErr := s.c.Info(l.frame)
	if err != nil || infoErr != nil {
		return s.c.Err() == nil, s.c.Err() // without an error the window is gone
	}
	s.log.Debug("the window manager has missed a window", "window", l.id, "map_state", info.MapState)
	if info.MapState != x11.MapStateUnmapped {
		s.c.Unmap(l.frame)
	}
	s.c.Map(l.frame)
	return false, nil
}

// bringBack moves windows that nobody else places into the work area.
func (s *Display) bringBack() error {
	if s.managed {
		return nil
	}
	for _, l := range s.byID {
		if !l.shown || l.override {
			continue
		}
		g, err := s.c.Geometry(x11.Drawable(l.frame))
		if err != nil {
			if s.c.Err() != nil {
				return err
			}
			continue // gone meanwhile
		}
		work := s.bounds.Work
		x := max(work.X, min(g.X, work.X+work.Width-g.Width))
		y := max(work.Y, min(g.Y, work.Y+work.Height-g.Height))
		if x != g.X || y != g.Y {
			s.c.Configure(l.frame, x11.Changes{X: &x, Y: &y})
		}
	}
	return nil
}
