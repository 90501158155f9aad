package gui

import (
	"fmt"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// atoms are the names that the agent uses, interned once.
type atoms struct {
	utf8String, manager                 x11.Atom
	wmProtocols, wmDeleteWindow         x11.Atom
	wmTakeFocus, wmState, wmChangeState x11.Atom
	netSupported, netSupportingWMCheck  x11.Atom
	netWMName, netWMState               x11.Atom
	stateFullscreen, stateAttention     x11.Atom
	stateHidden                         x11.Atom
	netActiveWindow, netClientList      x11.Atom
	netCloseWindow, wmSelection         x11.Atom

	primary, clipboard, targets, incr, textPlain, qubesSelection x11.Atom
}

func internAtoms(x *x11.Conn) (atoms, error) {
	var t atoms
	names := map[string]*x11.Atom{
		"UTF8_STRING":                     &t.utf8String,
		"MANAGER":                         &t.manager,
		"WM_PROTOCOLS":                    &t.wmProtocols,
		"WM_DELETE_WINDOW":                &t.wmDeleteWindow,
		"WM_TAKE_FOCUS":                   &t.wmTakeFocus,
		"WM_STATE":                        &t.wmState,
		"WM_CHANGE_STATE":                 &t.wmChangeState,
		"WM_S0":                           &t.wmSelection,
		"_NET_SUPPORTED":                  &t.netSupported,
		"_NET_SUPPORTING_WM_CHECK":        &t.netSupportingWMCheck,
		"_NET_WM_NAME":                    &t.netWMName,
		"_NET_WM_STATE":                   &t.netWMState,
		"_NET_WM_STATE_FULLSCREEN":        &t.stateFullscreen,
		"_NET_WM_STATE_DEMANDS_ATTENTION": &t.stateAttention,
		"_NET_WM_STATE_HIDDEN":            &t.stateHidden,
		"_NET_ACTIVE_WINDOW":              &t.netActiveWindow,
		"_NET_CLIENT_LIST":                &t.netClientList,
		"_NET_CLOSE_WINDOW":               &t.netCloseWindow,
		"PRIMARY":                         &t.primary,
		"CLIPBOARD":                       &t.clipboard,
		"TARGETS":                         &t.targets,
		"INCR":                            &t.incr,
		"text/plain;charset=utf-8":        &t.textPlain,
		"QUBES_SELECTION":                 &t.qubesSelection,
	}
	var list []string
	for name := range names {
		list = append(list, name)
	}
	got, err := x.Atoms(list...)
	if err != nil {
		return t, err
	}
	for name, field := range names {
		*field = got[name]
	}
	return t, nil
}

// becomeWM tells clients that a window manager runs (EWMH; the properties are
// those of spec/gui-protocol.md §17 and what else we do). _NET_WM_MOVERESIZE
// is left out: toolkits then move their windows themselves, which works here.
func (a *Agent) becomeWM() error {
	t := &a.atoms
	root := a.x.Root()
	var err error
	if a.wm, err = a.x.CreateInputOnly(root, -1, -1, 1, 1, x11.Attributes{EventMask: x11.Ptr[uint32](x11.MaskPropertyChange)}); err != nil {
		return fmt.Errorf("become window manager: %w", err)
	}
	a.x.SetWords(root, t.netSupportingWMCheck, x11.AtomWindow, uint32(a.wm))
	a.x.SetWords(a.wm, t.netSupportingWMCheck, x11.AtomWindow, uint32(a.wm))
	a.x.SetText(a.wm, t.netWMName, t.utf8String, "Qubes")
	a.x.SetWords(root, t.netSupported, x11.AtomAtom, words(t.netSupported, t.netSupportingWMCheck,
		t.netWMState, t.stateFullscreen, t.stateAttention, t.stateHidden,
		t.netActiveWindow, t.netClientList, t.netCloseWindow)...)
	a.x.SetSelectionOwner(a.wm, t.wmSelection, x11.CurrentTime)
	a.x.SendClientMessage(root, root, t.manager, x11.MaskStructureNotify,
		[5]uint32{uint32(x11.CurrentTime), uint32(t.wmSelection), uint32(a.wm)})
	a.publishClients()
	a.publishActive()
	return nil
}

func words(atoms ...x11.Atom) []uint32 {
	var out []uint32
	for _, atom := range atoms {
		out = append(out, uint32(atom))
	}
	return out
}

// publishClients lists the managed windows, eldest first.
func (a *Agent) publishClients() {
	var list []uint32
	for _, w := range a.inOrder() {
		if w.mapped && !w.overrideRedirect {
			list = append(list, uint32(w.x))
		}
	}
	a.x.SetWords(a.x.Root(), a.atoms.netClientList, x11.AtomWindow, list...)
}

func (a *Agent) publishActive() {
	var active x11.Window
	if a.input.focus != nil {
		active = a.input.focus.x
	}
	a.x.SetWords(a.x.Root(), a.atoms.netActiveWindow, x11.AtomWindow, uint32(active))
}

// setWMState keeps ICCCM's WM_STATE: Normal while a window is managed, no
// property when it is withdrawn, and then no state of EWMH either.
func (a *Agent) setWMState(w *window, normal bool) {
	const stateNormal = 1
	if normal {
		a.x.SetWords(w.x, a.atoms.wmState, a.atoms.wmState, stateNormal, 0)
		return
	}
	a.x.DeleteProperty(w.x, a.atoms.wmState)
	a.x.DeleteProperty(w.x, a.atoms.netWMState)
}

const knownFlags = wire.FlagFullscreen | wire.FlagDemandsAttention | wire.FlagMinimize

// maxStates is how many atoms of an initial _NET_WM_STATE count.
const maxStates = 10

// flags translates atoms of _NET_WM_STATE.
func (t *atoms) flags(words []uint32) uint32 {
	var flags uint32
	for _, word := range words[:min(len(words), maxStates)] {
		flags |= t.flag(x11.Atom(word))
	}
	return flags &^ wire.FlagMinimize // a client cannot map a window hidden
}

func (t *atoms) flag(atom x11.Atom) uint32 {
	switch atom {
	case x11.AtomNone:
		return 0
	case t.stateFullscreen:
		return wire.FlagFullscreen
	case t.stateAttention:
		return wire.FlagDemandsAttention
	case t.stateHidden:
		return wire.FlagMinimize
	}
	return 0
}

// writeState shows a window's state to its client.
func (a *Agent) writeState(w *window) {
	t := &a.atoms
	var list []x11.Atom
	for _, atom := range []x11.Atom{t.stateFullscreen, t.stateAttention, t.stateHidden} {
		if w.flags&t.flag(atom) != 0 {
			list = append(list, atom)
		}
	}
	a.x.SetWords(w.x, t.netWMState, x11.AtomAtom, words(list...)...)
}

// onClientMessage handles what clients ask of the window manager.
func (a *Agent) onClientMessage(e x11.ClientMessageEvent) {
	w := a.byX[e.Window]
	if w == nil || e.Format != 32 {
		return
	}
	t := &a.atoms
	args := x11.Words(e)
	switch e.Type {
	case t.netWMState:
		a.changeState(w, args[0], t.flag(x11.Atom(args[1]))|t.flag(x11.Atom(args[2])))
	case t.wmChangeState:
		const stateIconic = 3
		if args[0] == stateIconic {
			a.send(w, wire.WindowFlags{Set: wire.FlagMinimize})
		}
	case t.netActiveWindow:
		// Which window is active is the user's choice; dom0 points it out.
		if w != a.input.focus {
			a.send(w, wire.WindowFlags{Set: wire.FlagDemandsAttention})
		}
	case t.netCloseWindow:
		a.close(w)
	}
}

// changeState passes a client's wish for a state to dom0. What dom0 makes of
// it comes back as its own WINDOW_FLAGS; before a window is mapped, there is
// only what we note here.
func (a *Agent) changeState(w *window, action, flags uint32) {
	flags &= wire.FlagFullscreen | wire.FlagDemandsAttention
	if flags == 0 {
		return
	}
	var m wire.WindowFlags
	switch action {
	case x11.StateAdd:
		m.Set = flags
	case x11.StateRemove:
		m.Unset = flags
	case x11.StateToggle:
		m.Set, m.Unset = flags&^w.flags, flags&w.flags
	default:
		return
	}
	if !w.mapped {
		w.flags = w.flags&^m.Unset | m.Set
		return
	}
	a.send(w, m)
}

// close asks a client to close a window, or ends a client that cannot be asked.
func (a *Agent) close(w *window) {
	if !w.props.deletes {
		a.x.KillClient(uint32(w.x))
		return
	}
	a.x.SendClientMessage(w.x, w.x, a.atoms.wmProtocols, 0, [5]uint32{uint32(a.atoms.wmDeleteWindow), uint32(a.input.now)})
}

// resizeScreen makes the root as large as dom0's screen, so that a window can
// be here where it is there.
func (a *Agent) resizeScreen(width, height int) {
	g, err := a.x.Geometry(x11.Drawable(a.x.Root()))
	if err == nil && g.Width == width && g.Height == height {
		return
	}
	if width < 1 || height < 1 || width > 1<<15 || height > 1<<15 {
		a.log.Warn("dom0's screen makes no sense", "width", width, "height", height)
		return
	}
	if err := a.x.ResizeScreen(uint16(width), uint16(height)); err != nil {
		a.log.Warn("the screen stays as it is: menus near dom0's edges may be misplaced", "err", err)
	}
}
