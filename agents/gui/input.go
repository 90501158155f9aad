package gui

import (
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// Event types and modes of X11, as they travel (spec/gui-protocol.md §4).
const (
	keyPress    = 2
	buttonPress = 4
	enterNotify = 7
	leaveNotify = 8
	focusIn     = 9
	modeNormal  = 0
)

// input is the state of keyboard and pointer.
type input struct {
	keyboard *x11.Keyboard
	locks    [8]bool       // modifier i is switched by a press, not held
	focus    *window       // has the keyboard
	under    *window       // has the pointer
	shielded bool          // the shield is mapped
	buttons  uint32        // bit n: button n is held
	now      x11.Timestamp // the server's time, as last heard
}

func (a *Agent) setUpInput() error {
	// Repetition comes from dom0 as presses of its own.
	a.x.SetAutoRepeat(false)
	if a.opts.Layout != "" {
		if err := a.setLayout(a.opts.Layout); err != nil {
			a.log.Error("the keyboard's layout is not dom0's: keys may type something else", "err", err)
		}
	}
	a.learnKeyboard()
	var err error
	a.shield, err = a.x.CreateInputOnly(a.x.Root(), -1, -1, 1, 1, x11.Attributes{})
	return err
}

// Keysyms of keys that switch a modifier, and of one that is on a modifier's
// list but switches the keyboard's group.
const (
	symModeSwitch x11.Keysym = 0xff7e
	symNumLock    x11.Keysym = 0xff7f
	symScrollLock x11.Keysym = 0xff14
	symCapsLock   x11.Keysym = 0xffe5
	symShiftLock  x11.Keysym = 0xffe6
)

// learnKeyboard reads which keys are modifiers.
func (a *Agent) learnKeyboard() {
	k, err := a.x.Keyboard()
	if err != nil {
		a.log.Warn("the keyboard's mapping is not known", "err", err)
		return
	}
	a.input.keyboard = k
	for i := range a.input.locks {
		a.input.locks[i] = false
		for _, key := range k.Modifier(i) {
			switch k.Sym(key, 0) {
			case symNumLock, symScrollLock, symCapsLock, symShiftLock:
				a.input.locks[i] = true
			}
		}
	}
}

// modify is what it takes to bring one modifier to the wanted state.
type modify struct {
	key   x11.Keycode
	press bool
}

// modifiers lists the keys to press and release so that the modifiers, now
// have, become want (spec/gui-protocol.md §11.6). down is which keys are down.
func (in *input) modifiers(have, want uint32, down [32]byte) []modify {
	if in.keyboard == nil {
		return nil
	}
	var steps []modify
	for i, locks := range in.locks {
		keys := in.keyboard.Modifier(i)
		if len(keys) > 1 && in.keyboard.Sym(keys[0], 0) == symModeSwitch {
			keys = keys[1:]
		}
		on := want>>i&1 != 0
		if len(keys) == 0 || on == (have>>i&1 != 0) {
			continue
		}
		switch {
		case locks:
			steps = append(steps, modify{keys[0], true}, modify{keys[0], false})
		case on:
			steps = append(steps, modify{keys[0], true})
		default:
			for _, key := range keys {
				if isDown(down, key) {
					steps = append(steps, modify{key, false})
				}
			}
		}
	}
	return steps
}

func isDown(down [32]byte, key x11.Keycode) bool { return down[key/8]>>(key%8)&1 != 0 }

func (a *Agent) onKey(m wire.KeyPress) {
	if m.Keycode < 8 || m.Keycode > 255 {
		return
	}
	key := x11.Keycode(m.Keycode)
	_, _, _, have, err := a.x.Pointer()
	if err != nil {
		return
	}
	down, err := a.x.KeysDown()
	if err != nil {
		return
	}
	for _, s := range a.input.modifiers(uint32(have), m.State, down) {
		a.x.FakeKey(s.key, s.press)
	}
	press := m.EventType == keyPress
	if press && isDown(down, key) {
		// A repetition: the server reports no second press of a key.
		a.x.FakeKey(key, false)
	}
	a.x.FakeKey(key, press)
}

// onKeymap releases keys whose release went elsewhere in dom0.
func (a *Agent) onKeymap(m wire.KeymapNotify) {
	down, err := a.x.KeysDown()
	if err != nil {
		return
	}
	for key := 8; key < 256; key++ {
		if k := x11.Keycode(key); isDown(down, k) && !isDown(m.Keys, k) {
			a.x.FakeKey(k, false)
		}
	}
}

// point moves the pointer to a place in a window.
func (a *Agent) point(w *window, x, y int32) {
	// While a button is held, the window that it was pressed in gets all
	// motion, also over menus that must stay above it.
	if a.input.under != w && a.input.buttons == 0 {
		a.enter(w)
	}
	at := limit(rect{w.place.x + int(clampCoord(x)), w.place.y + int(clampCoord(y)), 1, 1})
	a.x.FakeMotion(at.x, at.y)
}

func clampCoord(v int32) int32 { return min(max(v, -wire.MaxWindowWidth), wire.MaxWindowWidth) }

// enter makes a window the one that the pointer can reach: what the user sees
// on top in dom0 must be on top here.
func (a *Agent) enter(w *window) {
	a.input.under = w
	a.x.Raise(w.x)
	if a.input.shielded {
		a.input.shielded = false
		a.x.Unmap(a.shield)
	}
}

// maxButton is the last button that the X server's pointer has.
const maxButton = 10

func (a *Agent) onButton(w *window, m wire.Button) {
	if m.Button < 1 || m.Button > maxButton {
		return
	}
	a.point(w, m.X, m.Y)
	press := m.EventType == buttonPress
	if press {
		a.input.buttons |= 1 << m.Button
	} else {
		a.input.buttons &^= 1 << m.Button
	}
	a.x.FakeButton(byte(m.Button), press)
}

func (a *Agent) onCrossing(w *window, m wire.Crossing) {
	if m.Mode != modeNormal {
		return
	}
	switch m.EventType {
	case enterNotify:
		if a.input.buttons == 0 {
			a.input.under = nil // raise it again: others may have been since
		}
		a.point(w, m.X, m.Y)
	case leaveNotify:
		a.leave(w)
	}
}

// leave takes the pointer from a window without moving it: it is over
// something of dom0 or of another qube now.
func (a *Agent) leave(w *window) {
	if a.input.under != w || a.input.buttons != 0 {
		return
	}
	a.input.under = nil
	x, y, child, _, err := a.x.Pointer()
	if err != nil || child != w.x {
		return
	}
	a.x.Configure(a.shield, x11.Changes{X: &x, Y: &y, Stack: x11.Ptr[uint32](x11.StackAbove)})
	a.x.Map(a.shield)
	a.input.shielded = true
}

func (a *Agent) onFocus(w *window, m wire.Focus) {
	if m.EventType != focusIn {
		if a.input.focus == w {
			a.input.focus = nil
			a.x.SetInputFocus(x11.FocusNone, x11.CurrentTime)
			a.publishActive()
		}
		return
	}
	if !w.mapped {
		return
	}
	a.input.focus = w
	a.x.Raise(w.x)
	if !w.props.noInput {
		a.x.SetInputFocus(w.x, x11.CurrentTime)
	}
	if w.props.takesFocus {
		a.x.SendClientMessage(w.x, w.x, a.atoms.wmProtocols, 0, [5]uint32{uint32(a.atoms.wmTakeFocus), uint32(a.input.now)})
	}
	a.publishActive()
}
