package gui

import (
	"cmp"
	"slices"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// rect is a place on the root window, or a part of a window, in pixels.
type rect struct{ x, y, w, h int }

// firstOwnID is above every X resource id (29 bits).
const firstOwnID wire.WindowID = 1 << 31

// window is a child of the root that can be seen in dom0.
type window struct {
	x     x11.Window
	id    wire.WindowID
	born  uint64 // order of adoption
	depth byte

	place  rect // as we last set or saw it
	expect []rect
	// expect are places that we have given to a window that also moves
	// itself (override-redirect); their ConfigureNotify is no news to dom0.

	overrideRedirect bool
	asked            bool // its client wants it mapped, and we have
	mapped           bool // in our X server
	toldMapped       bool // in the daemon's eyes
	props            props
	flags            uint32 // wire.Flag bits: the window's state in both eyes
	cursor           uint32 // as dom0 was told

	damage x11.Damage
	dirty  rect // of the window, not yet copied
	buffer *buffer
	stale  []span // buffers that dom0 reads until the next dump

	starved bool // it could not be given a buffer, and we have said so
}

// adopt takes on a new child of the root.
func (a *Agent) adopt(x x11.Window) {
	if a.byX[x] != nil || x == a.wm || x == a.shield {
		return
	}
	info, err := a.x.Info(x)
	if err != nil || info.InputOnly {
		return // gone already, or never to be seen
	}
	g, err := a.x.Geometry(x11.Drawable(x))
	if err != nil {
		return
	}
	w := &window{x: x, id: a.newID(x), born: a.births, depth: g.Depth, place: limit(rect{g.X, g.Y, g.Width, g.Height}), overrideRedirect: info.OverrideRedirect}
	a.births++
	if w.damage, err = a.x.CreateDamage(x11.Drawable(x), x11.DamageBoundingBox); err != nil {
		a.log.Error("a window cannot be followed", "window", x, "err", err)
		return
	}
	a.x.SetAttributes(x, x11.Attributes{EventMask: x11.Ptr[uint32](x11.MaskPropertyChange)})
	a.byX[x], a.byID[w.id] = w, w
	if g.BorderWidth != 0 {
		a.dropBorder(w)
	}
	a.readProps(w)
	if a.session != nil {
		a.announce(w)
	}
	if info.MapState != x11.MapStateUnmapped {
		a.onMapped(x, info.OverrideRedirect)
	}
}

// newID returns the window's number for dom0: the X id, unless the daemon has
// not yet released it from an earlier window (§7 DESTROY).
func (a *Agent) newID(x x11.Window) wire.WindowID {
	id := wire.WindowID(x)
	if !a.dying[id] && a.byID[id] == nil {
		return id
	}
	a.nextID++
	return a.nextID
}

// inOrder lists the windows, eldest first.
func (a *Agent) inOrder() []*window {
	var all []*window
	for _, w := range a.byX {
		all = append(all, w)
	}
	slices.SortFunc(all, func(v, w *window) int { return cmp.Compare(v.born, w.born) })
	return all
}

// announce tells a daemon about a window that it does not know.
func (a *Agent) announce(w *window) {
	p := w.place
	a.send(w, wire.Create{X: int32(p.x), Y: int32(p.y), Width: uint32(p.w), Height: uint32(p.h),
		Parent: uint32(a.x.Root()), OverrideRedirect: bit(w.overrideRedirect)})
	a.sendPlace(w)
	a.sendProps(w)
}

func bit(v bool) uint32 {
	if v {
		return 1
	}
	return 0
}

func (a *Agent) sendPlace(w *window) {
	p := w.place
	a.send(w, wire.Configure{X: int32(p.x), Y: int32(p.y), Width: uint32(p.w), Height: uint32(p.h), OverrideRedirect: bit(w.overrideRedirect)})
}

// forget ends a window that was destroyed or has left the root.
func (a *Agent) forget(x x11.Window) {
	w := a.byX[x]
	if w == nil {
		return
	}
	delete(a.byX, x)
	delete(a.byID, w.id)
	if a.input.under == w {
		a.input.under = nil
	}
	if a.input.focus == w {
		a.input.focus = nil
		a.publishActive()
	}
	a.publishClients()
	s := a.session
	if s == nil {
		return
	}
	a.releaseBuffer(w)
	s.send(w.id, wire.Destroy{})
	s.retired.add(w.id, false, w.stale...)
	w.stale = nil
	if s.version.AnswersDestroy() {
		a.dying[w.id] = true
	}
}

// onMapRequest shows a window that a client wants to be shown.
func (a *Agent) onMapRequest(x x11.Window) {
	w := a.byX[x]
	if w != nil {
		w.asked = true
		a.dropBorder(w)
		a.setWMState(w, true)
	}
	a.x.Map(x)
}

// onMapped tells dom0 of a window that can be seen now.
func (a *Agent) onMapped(x x11.Window, overrideRedirect bool) {
	w := a.byX[x]
	if w == nil || w.mapped {
		return
	}
	w.mapped = true
	w.overrideRedirect = overrideRedirect
	a.announceMapped(w)
	a.publishClients()
}

func (a *Agent) announceMapped(w *window) {
	if a.session == nil {
		return
	}
	a.send(w, wire.WindowFlags{Set: w.flags})
	a.send(w, wire.Map{TransientFor: uint32(a.idOf(w.props.transientFor)), OverrideRedirect: bit(w.overrideRedirect)})
	a.send(w, wire.WMName{Text: titleField(w.props.title)})
	w.toldMapped = true
	w.dirty = rect{0, 0, w.place.w, w.place.h}
}

// idOf is dom0's number of a window, 0 for one that it does not know.
func (a *Agent) idOf(x x11.Window) wire.WindowID {
	if w := a.byX[x]; w != nil {
		return w.id
	}
	return 0
}

// onWithdrawn follows a client that unmapped a window before we had mapped it,
// which the server does not report (ICCCM §4.1.4).
func (a *Agent) onWithdrawn(x x11.Window) {
	if w := a.byX[x]; w != nil && w.asked {
		w.asked = false
		a.x.Unmap(x)
	}
}

func (a *Agent) onUnmapped(x x11.Window) {
	w := a.byX[x]
	if w == nil {
		return
	}
	w.asked = false
	if !w.mapped {
		return
	}
	w.mapped = false
	w.dirty = rect{}
	if !w.overrideRedirect {
		a.setWMState(w, false)
		w.flags = 0
	}
	a.publishClients()
	if a.session == nil || !w.toldMapped {
		return
	}
	w.toldMapped = false
	a.releaseBuffer(w)
	a.send(w, wire.Unmap{})
	a.session.retired.add(w.id, false, w.stale...)
	w.stale = nil
	a.retryEmpty()
}

// onConfigureRequest carries out a client's wish, and tells it to dom0, which
// may answer with another place.
func (a *Agent) onConfigureRequest(e x11.ConfigureRequestEvent) {
	w := a.byX[e.Window]
	p := rect{int(e.X), int(e.Y), int(e.Width), int(e.Height)}
	if w == nil {
		// A window that nobody sees, or one that is on its way to us.
		if p.w > 0 && p.h > 0 {
			a.x.MoveResize(e.Window, p.x, p.y, p.w, p.h)
		}
		return
	}
	if !w.mapped {
		// Its client may still be choosing a size.
		a.x.Grab()
		defer a.x.Ungrab()
		a.takeLastWish(&e)
		p = rect{int(e.X), int(e.Y), int(e.Width), int(e.Height)}
	}
	// Parts that the client did not name have the server's values, which may
	// be older than what we have asked for since.
	if e.ValueMask&configX == 0 {
		p.x = w.place.x
	}
	if e.ValueMask&configY == 0 {
		p.y = w.place.y
	}
	if e.ValueMask&configWidth == 0 {
		p.w = w.place.w
	}
	if e.ValueMask&configHeight == 0 {
		p.h = w.place.h
	}
	p = limit(p)
	if e.ValueMask&configStack != 0 && e.StackMode == x11.StackAbove {
		a.x.Raise(w.x)
	}
	if p == w.place {
		// ICCCM §4.1.5: a refused wish is answered, too.
		a.x.SendConfigureNotify(w.x, p.x, p.y, p.w, p.h)
		return
	}
	a.setPlace(w, p)
	a.sendPlace(w)
}

// takeLastWish joins to a wish those that its client has uttered since, which
// are then not carried out one by one. Toolkits (Xt) make a window in steps
// and take the answer to an earlier step, if it comes after they have asked
// for the next one, for a refusal of that: xterm then prints its first text
// in a window of one letter. While the server is ours, no answer of ours can
// come so late.
func (a *Agent) takeLastWish(e *x11.ConfigureRequestEvent) {
	if a.x.Sync() != nil {
		return // the server is lost, which the events tell
	}
	for more := true; more; {
		select {
		case ev, ok := <-a.x.Events():
			if more = ok; ok {
				a.early = append(a.early, ev)
			}
		default:
			more = false
		}
	}
	rest := a.early[:0]
	shown := false
	for _, ev := range a.early {
		switch next := ev.Body.(type) {
		case x11.MapRequestEvent:
			shown = shown || next.Window == e.Window
		case x11.ConfigureRequestEvent:
			if next.Window == e.Window && !shown {
				join(e, next)
				continue
			}
		}
		rest = append(rest, ev)
	}
	a.early = rest
}

// join adds a later wish to an earlier one.
func join(e *x11.ConfigureRequestEvent, next x11.ConfigureRequestEvent) {
	if next.ValueMask&configX != 0 {
		e.X = next.X
	}
	if next.ValueMask&configY != 0 {
		e.Y = next.Y
	}
	if next.ValueMask&configWidth != 0 {
		e.Width = next.Width
	}
	if next.ValueMask&configHeight != 0 {
		e.Height = next.Height
	}
	if next.ValueMask&configStack != 0 {
		e.StackMode, e.Sibling = next.StackMode, next.Sibling
	}
	e.ValueMask |= next.ValueMask
}

// The bits of ConfigureRequestEvent.ValueMask.
const (
	configX = 1 << iota
	configY
	configWidth
	configHeight
	_ // border
	_ // sibling
	configStack
)

// limit keeps a place within what the protocol and X allow (§4, §9).
func limit(p rect) rect {
	return rect{
		min(max(p.x, -wire.MaxWindowWidth), wire.MaxWindowWidth),
		min(max(p.y, -wire.MaxWindowHeight), wire.MaxWindowHeight),
		min(max(p.w, 1), wire.MaxWindowWidth),
		min(max(p.h, 1), wire.MaxWindowHeight),
	}
}

// setPlace moves and resizes a window in our X server.
func (a *Agent) setPlace(w *window, p rect) {
	if p == w.place {
		return
	}
	resized := p.w != w.place.w || p.h != w.place.h
	w.place = p
	if w.overrideRedirect {
		w.expect = append(w.expect, p)
	}
	a.x.MoveResize(w.x, p.x, p.y, p.w, p.h)
	if resized {
		a.renewBuffer(w)
	}
}

// onConfigured follows windows that place themselves (override-redirect); all
// others are where we have put them.
func (a *Agent) onConfigured(e x11.ConfigureNotifyEvent) {
	w := a.byX[e.Window]
	if w == nil {
		return
	}
	if e.BorderWidth != 0 {
		a.dropBorder(w)
	}
	if !w.overrideRedirect {
		return
	}
	p := limit(rect{int(e.X), int(e.Y), int(e.Width), int(e.Height)})
	if i := slices.Index(w.expect, p); i >= 0 {
		w.expect = slices.Delete(w.expect, 0, i+1)
		return
	}
	if p == w.place {
		return
	}
	w.expect = nil
	resized := p.w != w.place.w || p.h != w.place.h
	w.place = p
	if resized {
		a.renewBuffer(w)
	}
	a.sendPlace(w)
}

// dropBorder takes a window's border away: the pixmap that we copy from would
// include it.
func (a *Agent) dropBorder(w *window) {
	a.x.Configure(w.x, x11.Changes{BorderWidth: x11.Ptr(0)})
	a.renewBuffer(w)
}

// onMessage handles a message of the daemon.
func (a *Agent) onMessage(id wire.WindowID, m wire.Message) {
	w := a.byID[id]
	switch m := m.(type) {
	case wire.KeymapNotify: // about the keyboard, not a window
		a.onKeymap(m)
		return
	case wire.Resize: // about the screen
		a.resizeScreen(int(m.Width), int(m.Height))
		return
	case wire.ClipboardReq:
		a.onClipboardReq()
		return
	case wire.ClipboardData:
		a.onClipboardData(m)
		return
	case wire.WindowDumpAck:
		a.giveBack(a.session.retired.ack())
		return
	case wire.Destroy:
		if a.dying[id] {
			delete(a.dying, id)
			a.giveBack(a.session.retired.gone(id))
		}
		return
	}
	if w == nil {
		return // destroyed while the message was under way
	}
	switch m := m.(type) {
	case wire.Configure:
		a.setPlace(w, limit(rect{int(m.X), int(m.Y), int(m.Width), int(m.Height)}))
		// Each one is answered, whatever it changed: the daemon waits for
		// agreement, and X reports no event for a move to the same place.
		a.sendPlace(w)
	case wire.Map:
		if !w.mapped {
			a.x.SetAttributes(w.x, x11.Attributes{OverrideRedirect: x11.Ptr(m.OverrideRedirect != 0)})
			a.onMapRequest(w.x)
		}
	case wire.Close:
		a.close(w)
	case wire.WindowFlags:
		w.flags = (w.flags | m.Set) &^ m.Unset & knownFlags
		a.writeState(w)
	case wire.KeyPress:
		a.onKey(m)
	case wire.Button:
		a.onButton(w, m)
	case wire.Motion:
		a.point(w, m.X, m.Y)
	case wire.Crossing:
		a.onCrossing(w, m)
	case wire.Focus:
		a.onFocus(w, m)
	}
}
