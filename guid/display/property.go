package display

import (
	"os"

	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

var atomNames = []string{
	"UTF8_STRING", "RESOURCE_MANAGER",
	"WM_PROTOCOLS", "WM_DELETE_WINDOW", "WM_CHANGE_STATE", "WM_STATE",
	"_NET_WM_NAME", "_NET_WM_ICON_NAME", "_NET_WM_ICON", "_NET_WM_PID", "_NET_WM_PING", "_NET_WM_USER_TIME",
	"_NET_WM_STATE", "_NET_WM_STATE_FULLSCREEN", "_NET_WM_STATE_DEMANDS_ATTENTION", "_NET_WM_STATE_HIDDEN",
	"_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ",
	"_NET_FRAME_EXTENTS", "_NET_WORKAREA", "_NET_CURRENT_DESKTOP", "_NET_SUPPORTING_WM_CHECK",
	"_QUBES_VMNAME", "_QUBES_LABEL", "_QUBES_LABEL_COLOR", "_QUBES_VMWINDOWID",
}

// describe sets the properties that every window has (spec/gui-protocol.md
// §12.3).
func (s *Display) describe(l *local) {
	w := l.frame
	s.c.SetText(w, s.atoms["_QUBES_VMNAME"], x11.AtomString, s.cfg.Name)
	s.c.SetProperty(w, s.atoms["_QUBES_LABEL"], x11.AtomCardinal, 8, []byte{s.cfg.Label.Index})
	s.c.SetWords(w, s.atoms["_QUBES_LABEL_COLOR"], x11.AtomCardinal, s.cfg.Label.Color)
	s.c.SetWords(w, s.atoms["_QUBES_VMWINDOWID"], x11.AtomWindow, uint32(l.id))
	s.c.SetText(w, x11.AtomWMClientMachine, x11.AtomString, s.host)
	s.c.SetWords(w, s.atoms["_NET_WM_PID"], x11.AtomCardinal, uint32(os.Getpid()))
	s.c.SetWords(w, s.atoms["WM_PROTOCOLS"], x11.AtomAtom, uint32(s.atoms["WM_DELETE_WINDOW"]), uint32(s.atoms["_NET_WM_PING"]))
	s.c.SetWords(w, s.atoms["_NET_WM_ICON"], x11.AtomCardinal, s.icon...)
	const inputHint, stateHint, normalState = 1, 2, 1
	s.c.SetWords(w, x11.AtomWMHints, x11.AtomWMHints, inputHint|stateHint, 1, normalState, 0, 0, 0, 0, 0, 0)
	s.setNormalHints(l)
}

// SetTitle sets a window's title.
func (s *Display) SetTitle(id wire.WindowID, title window.Text) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	utf8 := s.atoms["UTF8_STRING"]
	for _, prop := range []x11.Atom{x11.AtomWMName, x11.AtomWMIconName, s.atoms["_NET_WM_NAME"], s.atoms["_NET_WM_ICON_NAME"]} {
		s.c.SetText(l.frame, prop, utf8, title.String())
	}
}

// SetClass sets a window's WM_CLASS.
func (s *Display) SetClass(id wire.WindowID, instance, class window.Text) {
	if l, ok := s.byID[id]; ok {
		s.c.SetText(l.frame, x11.AtomWMClass, x11.AtomString, instance.String()+"\x00"+class.String()+"\x00")
	}
}

// SetTransientFor names the window that this one belongs to.
func (s *Display) SetTransientFor(id wire.WindowID, of *wire.WindowID) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	if of != nil {
		if owner, ok := s.byID[*of]; ok {
			s.c.SetWords(l.frame, x11.AtomWMTransientFor, x11.AtomWindow, uint32(owner.frame))
			return
		}
	}
	s.c.DeleteProperty(l.frame, x11.AtomWMTransientFor)
}

// SetHints sets a window's size hints.
func (s *Display) SetHints(id wire.WindowID, h window.Hints) {
	if l, ok := s.byID[id]; ok {
		l.hints = h
		s.setNormalHints(l)
	}
}

// setNormalHints writes WM_NORMAL_HINTS (ICCCM §4.1.2.3): the content's hints
// and the frame around it.
func (s *Display) setNormalHints(l *local) {
	const pSize = 0x8
	h, frame := l.hints, uint32(2*s.bounds.Border)
	words := make([]uint32, 18)
	words[0] = pSize
	set := func(flag uint32, at int, size *window.Size, extra uint32) {
		if size != nil {
			words[0] |= flag
			words[at], words[at+1] = uint32(size.Width)+extra, uint32(size.Height)+extra
		}
	}
	if h.UserPosition {
		words[0] |= wire.HintUSPosition
	}
	if h.ProgramPosition {
		words[0] |= wire.HintPPosition
	}
	minimum, base := h.Min, h.Base
	if minimum == nil && base == nil {
		minimum = &window.Size{Width: 1, Height: 1}
	}
	if base == nil && h.Increment != nil {
		base = minimum // what ICCCM says of a missing base, with the frame
	}
	set(wire.HintPMinSize, 5, minimum, frame)
	set(wire.HintPMaxSize, 7, h.Max, frame)
	set(wire.HintPResizeInc, 9, h.Increment, 0)
	set(wire.HintPBaseSize, 15, base, frame)
	s.c.SetWords(l.frame, x11.AtomWMNormalHints, x11.AtomWMSizeHints, words...)
}

// SetState replaces the wished state of a hidden window.
func (s *Display) SetState(id wire.WindowID, state window.State) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	if states := s.stateAtoms(state); len(states) > 0 {
		s.c.SetWords(l.frame, s.atoms["_NET_WM_STATE"], x11.AtomAtom, states...)
		return
	}
	s.c.DeleteProperty(l.frame, s.atoms["_NET_WM_STATE"])
}

func (s *Display) stateAtoms(state window.State) []uint32 {
	var states []uint32
	add := func(is bool, names ...string) {
		for _, name := range names {
			if is {
				states = append(states, uint32(s.atoms[name]))
			}
		}
	}
	add(state.Fullscreen, "_NET_WM_STATE_FULLSCREEN")
	add(state.Attention, "_NET_WM_STATE_DEMANDS_ATTENTION")
	add(state.Maximized, "_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ")
	return states
}

// ChangeState asks the window manager for a change.
func (s *Display) ChangeState(id wire.WindowID, add bool, state window.State) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	action := uint32(x11.StateRemove)
	if add {
		action = x11.StateAdd
	}
	states := append(s.stateAtoms(state), 0, 0)
	err := s.c.ChangeState(l.frame, action, x11.Atom(states[0]), x11.Atom(states[1]))
	if err != nil { // the server is lost, which the events tell
		s.log.Debug("state not changed", "error", err)
	}
}

// Iconify asks the window manager to minimise a window (ICCCM §4.1.4).
func (s *Display) Iconify(id wire.WindowID) {
	const iconicState = 3
	if l, ok := s.byID[id]; ok {
		s.c.SendClientMessage(s.c.Root(), l.frame, s.atoms["WM_CHANGE_STATE"],
			x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect, [5]uint32{iconicState})
	}
}

// state reads the state that the window manager has given a window.
func (s *Display) state(l *local) (window.State, error) {
	p, err := s.c.GetProperty(l.frame, s.atoms["_NET_WM_STATE"], x11.AtomAtom, 256)
	if err != nil {
		return window.State{}, err
	}
	var state window.State
	var vert, horz bool
	for _, word := range p.Words() {
		switch x11.Atom(word) {
		case s.atoms["_NET_WM_STATE_FULLSCREEN"]:
			state.Fullscreen = true
		case s.atoms["_NET_WM_STATE_DEMANDS_ATTENTION"]:
			state.Attention = true
		case s.atoms["_NET_WM_STATE_HIDDEN"]:
			state.Hidden = true
		case s.atoms["_NET_WM_STATE_MAXIMIZED_VERT"]:
			vert = true
		case s.atoms["_NET_WM_STATE_MAXIMIZED_HORZ"]:
			horz = true
		}
	}
	state.Maximized = vert && horz
	return state, nil
}
