// Package dock puts windows of this process where a desktop has its panel: a
// strip along the top edge, for which window managers leave room, and menus
// below it. The windows themselves are drawn by somebody else; here they are
// numbers.
package dock

import (
	"fmt"
	"image"
	"strings"

	"cubicle/guid/x11"
)

// Screen is a connection for placing windows.
type Screen struct {
	conn  *x11.Conn
	atoms map[string]x11.Atom
}

// Open connects to a display.
func Open(display string) (*Screen, error) {
	conn, err := x11.Dial(display)
	if err != nil {
		return nil, err
	}
	s := &Screen{conn: conn}
	s.atoms, err = conn.Atoms("_NET_WM_WINDOW_TYPE", "_NET_WM_WINDOW_TYPE_DOCK", "_NET_WM_WINDOW_TYPE_POPUP_MENU", "_NET_WM_WINDOW_TYPE_DIALOG",
		"_NET_WM_STATE", "_NET_WM_STATE_STICKY", "_NET_WM_STATE_SKIP_TASKBAR", "_NET_WM_STATE_SKIP_PAGER",
		"_NET_WM_DESKTOP", "_NET_WM_STRUT", "_NET_WM_STRUT_PARTIAL", "_NET_CLIENT_LIST", "_NET_ACTIVE_WINDOW")
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("atoms: %w", err)
	}
	return s, nil
}

// Close ends the connection.
func (s *Screen) Close() { s.conn.Close() }

// Done is closed when the X server is gone.
func (s *Screen) Done() <-chan struct{} { return s.conn.Done() }

// Size is the screen's size in pixels.
func (s *Screen) Size() (image.Point, error) {
	g, err := s.conn.Geometry(x11.Drawable(s.conn.Root()))
	if err != nil {
		return image.Point{}, err
	}
	return image.Pt(g.Width, g.Height), nil
}

// Happenings are what Follow tells of.
type Happenings struct {
	Resized   func() // the screen has another size
	Left      func() // the pointer has left a panel
	Unfocused func() // a menu has lost the keyboard
}

// Follow tells what happens until the connection ends.
func (s *Screen) Follow(h Happenings) error {
	if err := s.conn.SelectInput(s.conn.Root(), x11.MaskStructureNotify); err != nil {
		return err
	}
	for event := range s.conn.Events() {
		switch e := event.Body.(type) {
		case x11.ConfigureNotifyEvent:
			if e.Window == s.conn.Root() {
				h.Resized()
			}
		case x11.LeaveNotifyEvent:
			h.Left()
		case x11.FocusOutEvent:
			// A grab, say by a key of the window manager's, takes the
			// keyboard as well; a child of the menu's does not.
			if e.Detail != x11.DetailInferior {
				h.Unfocused()
			}
		}
	}
	return s.conn.Err()
}

// MakePanel makes a panel of a window that is not mapped yet (EWMH
// _NET_WM_WINDOW_TYPE_DOCK, on all desktops).
func (s *Screen) MakePanel(id uint32) error {
	w := x11.Window(id)
	s.conn.SetWords(w, s.atoms["_NET_WM_WINDOW_TYPE"], x11.AtomAtom, uint32(s.atoms["_NET_WM_WINDOW_TYPE_DOCK"]))
	s.conn.SetWords(w, s.atoms["_NET_WM_STATE"], x11.AtomAtom, uint32(s.atoms["_NET_WM_STATE_STICKY"]),
		uint32(s.atoms["_NET_WM_STATE_SKIP_TASKBAR"]), uint32(s.atoms["_NET_WM_STATE_SKIP_PAGER"]))
	const everywhere = 0xffffffff
	s.conn.SetWords(w, s.atoms["_NET_WM_DESKTOP"], x11.AtomCardinal, everywhere)
	s.conn.SetAttributes(w, x11.Attributes{EventMask: x11.Ptr[uint32](x11.MaskLeaveWindow)})
	return s.sync("make a panel of", w)
}

// PlacePanel puts a panel of that many pixels' height along the top edge and
// reserves its room (EWMH _NET_WM_STRUT_PARTIAL).
func (s *Screen) PlacePanel(id uint32, height int) error {
	w := x11.Window(id)
	size, err := s.Size()
	if err != nil {
		return err
	}
	strut := []uint32{0, 0, uint32(height), 0, 0, 0, 0, 0, 0, uint32(size.X - 1), 0, 0}
	s.conn.SetWords(w, s.atoms["_NET_WM_STRUT"], x11.AtomCardinal, strut[:4]...)
	s.conn.SetWords(w, s.atoms["_NET_WM_STRUT_PARTIAL"], x11.AtomCardinal, strut...)
	s.conn.MoveResize(w, 0, 0, size.X, height)
	return s.sync("place", w)
}

// MakeMenu makes a window that is not mapped yet into one that window
// managers leave alone.
func (s *Screen) MakeMenu(id uint32) error {
	w := x11.Window(id)
	s.conn.SetAttributes(w, x11.Attributes{
		OverrideRedirect: x11.Ptr(true), SaveUnder: x11.Ptr(true), EventMask: x11.Ptr[uint32](x11.MaskFocusChange),
	})
	s.conn.SetWords(w, s.atoms["_NET_WM_WINDOW_TYPE"], x11.AtomAtom, uint32(s.atoms["_NET_WM_WINDOW_TYPE_POPUP_MENU"]))
	return s.sync("make a menu of", w)
}

// MakeDialog makes a window that is not mapped yet into one that window
// managers leave at its size, those that tile too (EWMH
// _NET_WM_WINDOW_TYPE_DIALOG).
func (s *Screen) MakeDialog(id uint32) error {
	w := x11.Window(id)
	s.conn.SetWords(w, s.atoms["_NET_WM_WINDOW_TYPE"], x11.AtomAtom, uint32(s.atoms["_NET_WM_WINDOW_TYPE_DIALOG"]))
	return s.sync("make a dialog of", w)
}

// Beside is where a menu of that size goes: below anchor, a rectangle on the
// screen, or above it where there is no room, and always on the screen.
func Beside(anchor image.Rectangle, size, screen image.Point) image.Point {
	at := image.Pt(anchor.Min.X, anchor.Max.Y)
	if at.Y+size.Y > screen.Y && anchor.Min.Y-size.Y >= 0 {
		at.Y = anchor.Min.Y - size.Y
	}
	at.X = max(0, min(at.X, screen.X-size.X))
	at.Y = max(0, min(at.Y, screen.Y-size.Y))
	return at
}

// PlaceMenu moves and resizes a menu and raises it.
func (s *Screen) PlaceMenu(id uint32, place image.Rectangle) error {
	w := x11.Window(id)
	s.conn.MoveResize(w, place.Min.X, place.Min.Y, place.Dx(), place.Dy())
	s.conn.Raise(w)
	return s.sync("place", w)
}

// Focus gives the keyboard to a mapped window and returns who had it.
func (s *Screen) Focus(id uint32) (before uint32, err error) {
	had, err := s.conn.InputFocus()
	if err != nil {
		return 0, err
	}
	s.conn.SetInputFocus(x11.Window(id), x11.CurrentTime)
	return uint32(had), s.sync("focus", x11.Window(id))
}

// Focused tells whether a window has the keyboard.
func (s *Screen) Focused(id uint32) (bool, error) {
	now, err := s.conn.InputFocus()
	return now == x11.Window(id), err
}

// GiveBack returns the keyboard from id to the window that had it before, if w
// still has it.
func (s *Screen) GiveBack(id, before uint32) error {
	now, err := s.conn.InputFocus()
	if err != nil {
		return err
	}
	if now == x11.Window(id) && before != id {
		s.conn.SetInputFocus(x11.Window(before), x11.CurrentTime)
	}
	return s.sync("take the focus from", x11.Window(id))
}

// Place is where a window is on the screen.
func (s *Screen) Place(id uint32) (image.Rectangle, error) {
	w := x11.Window(id)
	g, err := s.conn.Geometry(x11.Drawable(w))
	if err != nil {
		return image.Rectangle{}, err
	}
	x, y, err := s.conn.Translate(w, s.conn.Root(), 0, 0)
	if err != nil {
		return image.Rectangle{}, err
	}
	return image.Rect(x, y, x+g.Width, y+g.Height), nil
}

// Activate asks the window manager to bring a program's window forward (EWMH
// _NET_ACTIVE_WINDOW); found is false when there is no window of that class.
func (s *Screen) Activate(class string) (found bool, err error) {
	list, err := s.conn.GetProperty(s.conn.Root(), s.atoms["_NET_CLIENT_LIST"], x11.AtomWindow, 1<<16)
	if err != nil {
		return false, err
	}
	for _, word := range list.Words() {
		w := x11.Window(word)
		p, err := s.conn.GetProperty(w, x11.AtomWMClass, x11.AtomString, 256)
		if err != nil {
			if s.conn.Err() != nil {
				return false, err
			}
			continue // it vanished meanwhile
		}
		parts := strings.Split(string(p.Data), "\x00")
		if len(parts) < 2 || parts[1] != class {
			continue
		}
		const pager = 2 // a person's wish, not the program's
		s.conn.SendClientMessage(s.conn.Root(), w, s.atoms["_NET_ACTIVE_WINDOW"],
			x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect, [5]uint32{pager, uint32(x11.CurrentTime)})
		return true, s.sync("activate", w)
	}
	return false, nil
}

func (s *Screen) sync(op string, w x11.Window) error {
	if err := s.conn.Sync(); err != nil {
		return fmt.Errorf("%s window %#x: %w", op, w, err)
	}
	return nil
}
