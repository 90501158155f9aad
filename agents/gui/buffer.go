package gui

import (
	"errors"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// buffer is where a window's pixels lie in the region, for one size of it.
type buffer struct {
	span   span
	w, h   int
	from   x11.Pixmap // the window's own pixels
	to     x11.Pixmap // the region's, at span
	dumped bool       // dom0 was told of it
}

// copyDone is a copy that the X server has finished.
type copyDone struct {
	session *session
	parts   []part
	err     error
}

// part is what was copied of one window.
type part struct {
	window *window
	buffer *buffer
	rect   rect
}

// onDamage notes what a client has drawn.
func (a *Agent) onDamage(e x11.DamageNotifyEvent) {
	w := a.byX[x11.Window(e.Drawable)]
	if w == nil || !w.mapped {
		return
	}
	w.dirty = union(w.dirty, rect{int(e.Area.X), int(e.Area.Y), int(e.Area.Width), int(e.Area.Height)})
}

func union(a, b rect) rect {
	if a.w == 0 || a.h == 0 {
		return b
	}
	if b.w == 0 || b.h == 0 {
		return a
	}
	x, y := min(a.x, b.x), min(a.y, b.y)
	return rect{x, y, max(a.x+a.w, b.x+b.w) - x, max(a.y+a.h, b.y+b.h) - y}
}

// clip cuts r to a window of w×h pixels.
func clip(r rect, w, h int) rect {
	x0, y0 := max(r.x, 0), max(r.y, 0)
	x1, y1 := min(r.x+r.w, w), min(r.y+r.h, h)
	if x1 <= x0 || y1 <= y0 {
		return rect{}
	}
	return rect{x0, y0, x1 - x0, y1 - y0}
}

// copyDirty lets the X server copy what has changed in all windows into the
// region, and one goroutine wait until it has. What changes meanwhile is
// copied after that, which paces us without a timer.
func (a *Agent) copyDirty() {
	s := a.session
	if s == nil || s.space == nil || a.copying {
		return
	}
	var parts []part
	for _, w := range a.byX {
		if w.dirty.w == 0 || !w.toldMapped {
			continue
		}
		if w.buffer == nil && !a.newBuffer(w) {
			continue
		}
		r := clip(w.dirty, w.buffer.w, w.buffer.h)
		w.dirty = rect{}
		if r.w == 0 {
			continue
		}
		gc, err := a.gc(w)
		if err != nil {
			a.log.Error("a window cannot be copied", "window", w.x, "err", err)
			continue
		}
		// Whatever is drawn after this is reported again.
		a.x.SubtractDamage(w.damage)
		a.x.CopyArea(x11.Drawable(w.buffer.from), x11.Drawable(w.buffer.to), gc,
			int16(r.x), int16(r.y), int16(r.x), int16(r.y), uint16(r.w), uint16(r.h))
		parts = append(parts, part{w, w.buffer, r})
	}
	if len(parts) == 0 {
		return
	}
	a.copying = true
	go func() { a.copied <- copyDone{s, parts, a.x.Sync()} }()
}

// onCopied tells dom0 of pixels that are in the region now.
func (a *Agent) onCopied(done copyDone) {
	a.copying = false
	s := a.session
	if done.err != nil || s == nil || s != done.session {
		return
	}
	for _, p := range done.parts {
		w, b := p.window, p.buffer
		if w.buffer != b || !w.toldMapped {
			continue // resized or hidden meanwhile
		}
		if !b.dumped {
			a.dump(w)
		}
		s.send(w.id, wire.ShmImage{X: int32(p.rect.x), Y: int32(p.rect.y), Width: uint32(p.rect.w), Height: uint32(p.rect.h)})
	}
}

// dump tells dom0 where a window's pixels lie.
func (a *Agent) dump(w *window) {
	s, b := a.session, w.buffer
	b.dumped = true
	s.send(w.id, wire.WindowDump{Kind: wire.DumpRegion, Width: uint32(b.w), Height: uint32(b.h), BPP: 32,
		Offset: b.span.offset, Stride: uint32(4 * b.w)})
	s.retired.sent++
	s.retired.add(w.id, true, w.stale...)
	w.stale = nil
}

// provoke dumps some window once more, unchanged: only the answer to a dump
// tells that dom0 has let go of what an earlier UNMAP detached.
func (a *Agent) provoke() {
	for _, w := range a.byX {
		if w.buffer != nil && w.buffer.dumped && w.toldMapped {
			a.dump(w)
			a.session.send(w.id, wire.ShmImage{Width: uint32(w.buffer.w), Height: uint32(w.buffer.h)})
			return
		}
	}
}

// newBuffer gives a window a place in the region. It reports false when that
// is not possible now.
func (a *Agent) newBuffer(w *window) bool {
	// A client may make a window larger than the protocol knows.
	b := &buffer{w: min(w.place.w, wire.MaxWindowWidth), h: min(w.place.h, wire.MaxWindowHeight)}
	w.dirty = rect{}
	err := a.fill(w, b)
	switch {
	case err == nil:
		w.buffer, w.starved = b, false
		w.dirty = rect{0, 0, b.w, b.h}
		return true
	case errors.Is(err, errNoSpace) || errors.Is(err, errDepth):
		if !w.starved { // once, not at each of its changes
			a.log.Error("a window stays empty", "window", w.x, "width", b.w, "height", b.h, "err", err)
		}
		w.starved = true
		if errors.Is(err, errNoSpace) && a.session.retired.stuck() {
			a.provoke()
		}
	default:
		// It was unmapped or destroyed: the event is on its way.
		a.log.Debug("a window has no pixels", "window", w.x, "err", err)
	}
	return false
}

// Why a window cannot be shown.
var (
	errNoSpace = errors.New("the pixel region is full")
	errDepth   = errors.New("it has no 32 bits a pixel")
)

// fill makes the pixmaps of a buffer whose size is known.
func (a *Agent) fill(w *window, b *buffer) error {
	if w.depth != 24 && w.depth != 32 {
		return errDepth
	}
	s := a.session
	var ok bool
	if b.span, ok = s.space.take(4 * uint64(b.w) * uint64(b.h)); !ok {
		return errNoSpace
	}
	var err error
	if b.from, err = a.x.NameWindowPixmap(w.x); err == nil {
		b.to, err = a.x.ShmPixmap(x11.Drawable(w.x), uint16(b.w), uint16(b.h), w.depth, s.segment, uint32(b.span.offset))
		if err != nil {
			a.x.FreePixmap(b.from)
		}
	}
	if err != nil {
		s.space.give(b.span)
	}
	return err
}

// renewBuffer is called when the server gives a window a new pixmap.
func (a *Agent) renewBuffer(w *window) {
	a.releaseBuffer(w)
	if w.mapped {
		w.dirty = rect{0, 0, w.place.w, w.place.h}
	}
}

// releaseBuffer ends the use of a window's buffer on our side. dom0 may read
// it until it has handled what we send next about the window.
func (a *Agent) releaseBuffer(w *window) {
	b := w.buffer
	if b == nil {
		return
	}
	a.dropBuffer(w)
	if b.dumped {
		w.stale = append(w.stale, b.span)
	} else {
		a.giveBack([]span{b.span})
	}
}

// dropBuffer frees what the X server holds for a window's buffer.
func (a *Agent) dropBuffer(w *window) {
	if w.buffer != nil {
		a.x.FreePixmap(w.buffer.from)
		a.x.FreePixmap(w.buffer.to)
		w.buffer = nil
	}
	if a.session == nil {
		w.stale = nil
	}
}

// giveBack returns spans to the region. Windows that found it full get
// another try.
func (a *Agent) giveBack(spans []span) {
	s := a.session
	if s == nil || s.space == nil || len(spans) == 0 {
		return
	}
	for _, place := range spans {
		s.space.give(place)
	}
	a.retryEmpty()
}

// retryEmpty looks for space again for windows that had none.
func (a *Agent) retryEmpty() {
	for _, w := range a.byX {
		if w.toldMapped && w.buffer == nil {
			w.dirty = rect{0, 0, w.place.w, w.place.h}
		}
	}
}

// gc returns the graphics context for a window's depth.
func (a *Agent) gc(w *window) (x11.GC, error) {
	if gc, ok := a.gcs[w.depth]; ok {
		return gc, nil
	}
	gc, err := a.x.CreateCopyGC(x11.Drawable(w.buffer.to))
	if err == nil {
		a.gcs[w.depth] = gc
	}
	return gc, err
}
