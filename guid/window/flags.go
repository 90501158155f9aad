package window

import (
	"cubicle/guid/wire"
)

// setFlags is WINDOW_FLAGS from the agent (§11.4).
func (s *Session) setFlags(w *win, m flagsWish) {
	if w.mapped {
		s.changeFlags(w, m.set, m.unset)
		return
	}
	s.initialFlags(w, m.set)
}

// initialFlags replaces the wished state of a hidden window.
func (s *Session) initialFlags(w *win, set uint32) {
	state := State{Attention: set&wire.FlagDemandsAttention != 0}
	w.maximized = false
	if set&wire.FlagFullscreen != 0 {
		state.Fullscreen = s.cfg.AllowFullscreen
		state.Maximized = !s.cfg.AllowFullscreen
		w.maximized = !s.cfg.AllowFullscreen
	}
	w.flags = set &^ wire.FlagMinimize
	s.display.SetState(w.id, state)
}

// changeFlags asks the window manager for a visible window.
func (s *Session) changeFlags(w *win, set, unset uint32) {
	switch {
	case set&wire.FlagFullscreen != 0 && s.cfg.AllowFullscreen:
		s.display.ChangeState(w.id, true, State{Fullscreen: true})
	case set&wire.FlagFullscreen != 0:
		w.maximized = true
		s.display.ChangeState(w.id, true, State{Maximized: true})
	case unset&wire.FlagFullscreen != 0 && w.maximized:
		w.maximized = false
		s.display.ChangeState(w.id, false, State{Maximized: true})
	case unset&wire.FlagFullscreen != 0:
		s.display.ChangeState(w.id, false, State{Fullscreen: true})
	}
	if set&wire.FlagDemandsAttention != 0 {
		s.display.ChangeState(w.id, true, State{Attention: true})
	}
	if set&wire.FlagMinimize != 0 {
		s.display.Iconify(w.id)
	}
}

// LocalState says which state the window manager has given a window. The
// agent of a window that is maximised in place of full screen hears that it is
// full screen.
func (s *Session) LocalState(id wire.WindowID, state State) error {
	w, ok := s.windows[id]
	if !ok || !w.mapped {
		return nil
	}
	var flags uint32
	if state.Attention {
		flags |= wire.FlagDemandsAttention
	}
	if state.Hidden {
		flags |= wire.FlagMinimize
	}
	if state.Fullscreen {
		flags |= wire.FlagFullscreen
	}
	if w.maximized = w.maximized && state.Maximized && !state.Fullscreen; w.maximized {
		flags |= wire.FlagFullscreen
	}
	if flags == w.flags {
		return nil
	}
	set, unset := flags&^w.flags, w.flags&^flags
	w.flags = flags
	return s.agent.Send(id, wire.WindowFlags{Set: set, Unset: unset})
}
