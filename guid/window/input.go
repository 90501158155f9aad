package window

import (
	"cubicle/guid/wire"
)

// Numbers of X11 that the protocol uses as they are (spec/gui-protocol.md §4).
const (
	KeyPress, KeyRelease       = 2, 3
	ButtonPress, ButtonRelease = 4, 5
	EnterNotify, LeaveNotify   = 7, 8
	FocusIn, FocusOut          = 9, 10

	modeNormal       = 0
	modeWhileGrabbed = 3
	detailPointer    = 5
)

// LocalKey passes a key on: event KeyPress or KeyRelease at x, y of the
// content.
func (s *Session) LocalKey(id wire.WindowID, event uint32, x, y int, state uint16, keycode byte) error {
	return s.send(id, wire.KeyPress{EventType: event, X: int32(x), Y: int32(y), State: uint32(state), Keycode: uint32(keycode)})
}

// LocalButton passes a pointer button on.
func (s *Session) LocalButton(id wire.WindowID, event uint32, x, y int, state uint16, button byte) error {
	return s.send(id, wire.Button{EventType: event, X: int32(x), Y: int32(y), State: uint32(state), Button: uint32(button)})
}

// LocalMotion passes a movement of the pointer on.
func (s *Session) LocalMotion(id wire.WindowID, x, y int, state uint16) error {
	return s.send(id, wire.Motion{X: int32(x), Y: int32(y), State: uint32(state)})
}

// LocalCrossing passes on that the pointer enters or leaves a content.
func (s *Session) LocalCrossing(id wire.WindowID, event uint32, x, y int, state uint16, mode, detail byte, focus bool) error {
	m := wire.Crossing{EventType: event, X: int32(x), Y: int32(y), State: uint32(state), Mode: uint32(mode), Detail: uint32(detail)}
	if focus {
		m.Focus = 1
	}
	return s.send(id, m)
}

// LocalFocus passes on that a window has got or lost the keyboard. What grabs
// do is not forwarded, nor what follows from the pointer's place alone. Which
// keys are down is told only to the window that has the keyboard (§8, §11.6).
func (s *Session) LocalFocus(id wire.WindowID, event uint32, mode, detail byte) error {
	if mode != modeNormal && mode != modeWhileGrabbed || detail == detailPointer {
		return nil
	}
	if _, ok := s.windows[id]; !ok {
		return nil
	}
	if event == FocusIn {
		if err := s.agent.Send(0, wire.KeymapNotify{Keys: s.display.KeysDown()}); err != nil {
			return err
		}
	}
	return s.agent.Send(id, wire.Focus{EventType: event, Mode: modeNormal, Detail: uint32(detail)})
}
