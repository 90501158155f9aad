package x11

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/xgb/xproto"
)

// AddRemove are the actions of a _NET_WM_STATE message.
const (
	StateRemove = 0
	StateAdd    = 1
	StateToggle = 2
)

// SupportingWM asks for the window manager's own window (EWMH
// _NET_SUPPORTING_WM_CHECK); 0 when no EWMH window manager runs.
func (c *Conn) SupportingWM() (Window, error) {
	check, err := c.Atom("_NET_SUPPORTING_WM_CHECK")
	if err != nil {
		return 0, err
	}
	p, err := c.GetProperty(c.Root(), check, AtomWindow, 4)
	if err != nil {
		return 0, err
	}
	words := p.Words()
	if len(words) != 1 {
		return 0, nil
	}
	// A stale property names a window that is gone, or names itself no more.
	own, err := c.GetProperty(Window(words[0]), check, AtomWindow, 4)
	if err != nil {
		if c.Err() != nil {
			return 0, err
		}
		return 0, nil
	}
	if w := own.Words(); len(w) != 1 || w[0] != words[0] {
		return 0, nil
	}
	return Window(words[0]), nil
}

// Supported tells whether the window manager lists hint in _NET_SUPPORTED.
func (c *Conn) Supported(hint Atom) (bool, error) {
	prop, err := c.Atom("_NET_SUPPORTED")
	if err != nil {
		return false, err
	}
	p, err := c.GetProperty(c.Root(), prop, AtomAtom, 4096)
	if err != nil {
		return false, err
	}
	for _, word := range p.Words() {
		if Atom(word) == hint {
			return true, nil
		}
	}
	return false, nil
}

// maxArea is the largest number of a work area that is believed
// (spec/gui-protocol.md §11.1).
const maxArea = 1 << 20

// WorkArea asks for the current desktop's area without panels (EWMH
// _NET_WORKAREA); ok is false when there is none, or none that makes sense.
func (c *Conn) WorkArea() (area Geometry, ok bool, err error) {
	atoms, err := c.Atoms("_NET_WORKAREA", "_NET_CURRENT_DESKTOP")
	if err != nil {
		return Geometry{}, false, err
	}
	current, err := c.GetProperty(c.Root(), atoms["_NET_CURRENT_DESKTOP"], AtomCardinal, 4)
	if err != nil {
		return Geometry{}, false, err
	}
	areas, err := c.GetProperty(c.Root(), atoms["_NET_WORKAREA"], AtomCardinal, 4096)
	if err != nil {
		return Geometry{}, false, err
	}
	desktop := 0
	if w := current.Words(); len(w) == 1 && w[0] < maxArea {
		desktop = int(w[0])
	}
	words := areas.Words()
	if len(words) < 4*(desktop+1) {
		return Geometry{}, false, nil
	}
	words = words[4*desktop:][:4]
	for _, v := range words {
		if v > maxArea {
			return Geometry{}, false, nil
		}
	}
	if words[2] == 0 || words[3] == 0 {
		return Geometry{}, false, nil
	}
	return Geometry{X: int(words[0]), Y: int(words[1]), Width: int(words[2]), Height: int(words[3])}, true, nil
}

// ChangeState asks the window manager to add or remove up to two states of a
// mapped window (EWMH _NET_WM_STATE).
func (c *Conn) ChangeState(w Window, action uint32, first, second Atom) error {
	state, err := c.Atom("_NET_WM_STATE")
	if err != nil {
		return fmt.Errorf("change the state of window %#x: %w", w, err)
	}
	c.SendClientMessage(c.Root(), w, state, MaskSubstructureNotify|MaskSubstructureRedirect,
		[5]uint32{action, uint32(first), uint32(second), 1, 0})
	return nil
}

// Managed tells whether a window manager runs, EWMH or not: some client
// redirects what happens to the root window's children.
func (c *Conn) Managed() (bool, error) {
	r, err := xproto.GetWindowAttributes(c.x, c.Root()).Reply()
	if err != nil {
		return false, wrap("look for a window manager", c.orLost(err))
	}
	return r.AllEventMasks&MaskSubstructureRedirect != 0, nil
}

// LowestByInstance returns the lowest viewable override-redirect child of the
// root whose WM_CLASS instance is one of names, 0 for none. Two round trips.
func (c *Conn) LowestByInstance(names []string) (Window, error) {
	_, children, err := c.Tree(c.Root())
	if err != nil {
		return 0, err
	}
	attributes := make([]xproto.GetWindowAttributesCookie, len(children))
	classes := make([]xproto.GetPropertyCookie, len(children))
	for i, w := range children {
		attributes[i] = xproto.GetWindowAttributes(c.x, w)
		classes[i] = xproto.GetProperty(c.x, false, w, AtomWMClass, AtomString, 0, 64)
	}
	found := Window(0)
	for i, w := range children {
		// A window may vanish meanwhile: an error is one that is not there.
		a, err := attributes[i].Reply()
		class, err2 := classes[i].Reply()
		if found != 0 || err != nil || err2 != nil || !a.OverrideRedirect || a.MapState != MapStateViewable {
			continue
		}
		instance, _, _ := strings.Cut(string(class.Value), "\x00")
		if slices.Contains(names, instance) {
			found = w
		}
	}
	return found, c.Err()
}

// Withdraw hides a window and tells a window manager so, also one that has not
// seen it yet (ICCCM §4.1.4).
func (c *Conn) Withdraw(w Window) {
	c.Unmap(w)
	ev := UnmapNotifyEvent{Event: c.Root(), Window: w}
	xproto.SendEvent(c.x, false, c.Root(), MaskSubstructureNotify|MaskSubstructureRedirect, string(ev.Bytes()))
}
