package display

import (
	"cubicle/guid/window"
	"cubicle/guid/x11"
)

// Dispatch tells the session what an event means. Moves are only remembered:
// call Settle when no more events wait. An error ends the session.
func (s *Display) Dispatch(ev x11.Event, to *window.Session) error {
	switch e := ev.Body.(type) {
	case x11.ExposeEvent:
		if l, ok := s.content(e.Window); ok {
			to.LocalExpose(l.id, window.Rect{X: int(e.X), Y: int(e.Y), Width: int(e.Width), Height: int(e.Height)})
		}
	case x11.ConfigureNotifyEvent:
		return s.configured(e)
	case x11.ReparentNotifyEvent:
		if l, ok := s.frame(e.Window); ok {
			s.moved[l] = true
		}
	case x11.MapNotifyEvent:
		return s.mapped(e, to)
	case x11.PropertyNotifyEvent:
		return s.propertyChanged(e, to)
	case x11.ClientMessageEvent:
		return s.message(e, to)
	case x11.MotionNotifyEvent, x11.EnterNotifyEvent, x11.LeaveNotifyEvent, x11.FocusInEvent, x11.FocusOutEvent,
		x11.KeyPressEvent, x11.KeyReleaseEvent, x11.ButtonPressEvent, x11.ButtonReleaseEvent:
		return s.input(e, to)
	case *x11.RequestError:
		// Windows vanish while requests about them travel; all values were
		// judged before, so anything else is a defect worth a line.
		if e.BadWindow() {
			s.log.Debug("a window is gone", "error", e)
		} else {
			s.log.Warn("the X server refused a request", "error", e)
		}
	}
	return nil
}

// Settle asks where moved windows are now and tells the session.
func (s *Display) Settle(to *window.Session) error {
	for l := range s.moved {
		delete(s.moved, l)
		x, y, err := s.c.Translate(l.content, s.c.Root(), 0, 0)
		if err != nil {
			if s.c.Err() != nil {
				return err
			}
			continue // gone meanwhile
		}
		g := window.Geometry{X: x, Y: y, Width: l.size.Width, Height: l.size.Height}
		if err := to.LocalConfigure(l.id, g); err != nil {
			return err
		}
	}
	return nil
}

func (s *Display) frame(w x11.Window) (*local, bool) {
	l, ok := s.byX[w]
	return l, ok && l.frame == w
}

func (s *Display) content(w x11.Window) (*local, bool) {
	l, ok := s.byX[w]
	return l, ok && l.content == w
}

func (s *Display) configured(e x11.ConfigureNotifyEvent) error {
	if e.Window == s.c.Root() {
		if err := s.measure(); err != nil {
			return err
		}
		return s.bringBack()
	}
	l, ok := s.frame(e.Window)
	if !ok {
		return nil
	}
	b := s.bounds.Border
	size := window.Size{Width: max(1, int(e.Width)-2*b), Height: max(1, int(e.Height)-2*b)}
	if size != l.size {
		l.size = size
		s.c.MoveResize(l.content, b, b, size.Width, size.Height)
	}
	if !l.asked.old(size) && l.placed {
		s.moved[l] = true
	}
	return nil
}

func (s *Display) mapped(e x11.MapNotifyEvent, to *window.Session) error {
	l, ok := s.frame(e.Window)
	if !ok {
		return nil
	}
	s.moved[l], l.placed = true, true
	if l.shown {
		return nil
	}
	info, err := s.c.Info(l.frame)
	if err != nil {
		if s.c.Err() != nil {
			return err
		}
		return nil // gone meanwhile
	}
	viewable := info.MapState == x11.MapStateViewable
	l.shown = viewable
	return to.LocalMap(l.id, viewable)
}

func (s *Display) propertyChanged(e x11.PropertyNotifyEvent, to *window.Session) error {
	if e.Window == s.c.Root() {
		switch e.Atom {
		case s.atoms["_NET_WORKAREA"], s.atoms["_NET_CURRENT_DESKTOP"]:
			return s.measure()
		case s.atoms["_NET_SUPPORTING_WM_CHECK"]:
			s.awaitAll() // a window manager comes or goes
			return s.measure()
		}
		return nil
	}
	l, ok := s.frame(e.Window)
	if !ok || e.Atom != s.atoms["_NET_WM_STATE"] || !l.shown {
		return nil
	}
	var state window.State
	if e.State != x11.PropertyDeleted {
		var err error
		if state, err = s.state(l); err != nil {
			if s.c.Err() != nil {
				return err
			}
			return nil // gone meanwhile
		}
	}
	return to.LocalState(l.id, state)
}

func (s *Display) message(e x11.ClientMessageEvent, to *window.Session) error {
	l, ok := s.frame(e.Window)
	if !ok || e.Type != s.atoms["WM_PROTOCOLS"] {
		return nil
	}
	words := x11.Words(e)
	switch x11.Atom(words[0]) {
	case s.atoms["WM_DELETE_WINDOW"]:
		return to.LocalClose(l.id)
	case s.atoms["_NET_WM_PING"]:
		// It asks whether dom0's side lives; the qube is not asked.
		s.c.SendClientMessage(s.c.Root(), s.c.Root(), e.Type, x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect, words)
	}
	return nil
}

// input passes keys (of the frame, which has the focus) and the pointer (of
// the content) on to the agent that owns the window.
func (s *Display) input(body any, to *window.Session) error {
	switch e := body.(type) {
	case x11.KeyPressEvent:
		return s.key(window.KeyPress, e, to)
	case x11.KeyReleaseEvent:
		return s.key(window.KeyRelease, x11.KeyPressEvent(e), to)
	case x11.ButtonPressEvent:
		return s.button(window.ButtonPress, e, to)
	case x11.ButtonReleaseEvent:
		return s.button(window.ButtonRelease, x11.ButtonPressEvent(e), to)
	case x11.MotionNotifyEvent:
		if l, ok := s.content(e.Event); ok {
			return to.LocalMotion(l.id, int(e.EventX), int(e.EventY), e.State)
		}
	case x11.EnterNotifyEvent:
		return s.crossing(window.EnterNotify, e, to)
	case x11.LeaveNotifyEvent:
		return s.crossing(window.LeaveNotify, x11.EnterNotifyEvent(e), to)
	case x11.FocusInEvent:
		if l, ok := s.frame(e.Event); ok {
			return to.LocalFocus(l.id, window.FocusIn, e.Mode, e.Detail)
		}
	case x11.FocusOutEvent:
		if l, ok := s.frame(e.Event); ok {
			return to.LocalFocus(l.id, window.FocusOut, e.Mode, e.Detail)
		}
	}
	return nil
}

func (s *Display) key(event uint32, e x11.KeyPressEvent, to *window.Session) error {
	l, ok := s.frame(e.Event)
	if !ok {
		return nil
	}
	s.userTime(l, e.Time)
	b := s.bounds.Border
	return to.LocalKey(l.id, event, int(e.EventX)-b, int(e.EventY)-b, e.State, byte(e.Detail))
}

func (s *Display) button(event uint32, e x11.ButtonPressEvent, to *window.Session) error {
	l, ok := s.content(e.Event)
	if !ok {
		return nil
	}
	s.userTime(l, e.Time)
	if event == window.ButtonPress && !s.managed && !l.override {
		s.c.Raise(l.frame)
		s.c.SetInputFocus(l.frame, e.Time)
	}
	return to.LocalButton(l.id, event, int(e.EventX), int(e.EventY), e.State, byte(e.Detail))
}

func (s *Display) crossing(event uint32, e x11.EnterNotifyEvent, to *window.Session) error {
	const focusBit = 1
	if l, ok := s.content(e.Event); ok {
		return to.LocalCrossing(l.id, event, int(e.EventX), int(e.EventY), e.State, e.Mode, e.Detail, e.SameScreenFocus&focusBit != 0)
	}
	return nil
}

// userTime tells the window manager when the user last did something here,
// before the qube hears of it.
func (s *Display) userTime(l *local, t x11.Timestamp) {
	s.c.SetWords(l.frame, s.atoms["_NET_WM_USER_TIME"], x11.AtomCardinal, uint32(t))
}
