package window

import (
	"slices"

	"cubicle/guid/wire"
)

// maxDamage is how many rectangles of one window are kept apart.
const maxDamage = 16

// detach gives the window's buffer back.
func (w *win) detach() {
	if w.buffer != nil {
		w.buffer.Close()
		w.buffer = nil
	}
	w.damage = nil
}

// dump is WINDOW_DUMP (§10.1).
func (s *Session) dump(w *win, m dumpWish) error {
	w.detach()
	w.buffer = m.buffer
	if s.cfg.Version.AcksDumps() {
		return s.agent.Send(w.id, wire.WindowDumpAck{})
	}
	return nil
}

// damage is SHMIMAGE (§7): remembered until Flush.
func (s *Session) damage(w *win, m damageWish) {
	if w.mapped || w.docked {
		s.addDamage(w, m.area)
	}
}

func (s *Session) addDamage(w *win, r Rect) {
	r = r.Intersect(Rect{0, 0, w.geometry.Width, w.geometry.Height})
	if r.Empty() {
		return
	}
	if len(w.damage) == 0 {
		s.dirty = append(s.dirty, w.id)
	}
	for i, old := range w.damage {
		if old.Contains(r) {
			return
		}
		if r.Contains(old) {
			w.damage[i] = r
			return
		}
	}
	if len(w.damage) == maxDamage {
		for _, old := range w.damage {
			r = r.Union(old)
		}
		w.damage = w.damage[:0]
	}
	w.damage = append(w.damage, r)
}

// LocalExpose says that a rectangle of the content must be painted again. It
// is remembered until Flush.
func (s *Session) LocalExpose(id wire.WindowID, r Rect) {
	if w, ok := s.windows[id]; ok {
		s.addDamage(w, r)
	}
}

// maxFlush is how many pixels one Flush hands to the X server, but for the
// window that goes beyond it: two screens of 3840×2160.
const maxFlush = 2 * 3840 * 2160

// Flush paints what has changed since the last time, and tells whether that
// was anything. What is more than the X server should get at once is left for
// the next call.
func (s *Session) Flush() bool {
	before := s.painted
	for i, id := range s.dirty {
		w, ok := s.windows[id]
		if !ok {
			continue
		}
		if s.painted-before > maxFlush {
			s.dirty = slices.Delete(s.dirty, 0, i)
			return true
		}
		for _, r := range w.damage {
			s.paint(w, r)
		}
		w.damage = w.damage[:0]
	}
	s.dirty = s.dirty[:0]
	return s.painted != before
}

// paint shows a rectangle of the window, as far as an image covers it: the
// window's own, else that of the whole screen, shifted (§10.4).
func (s *Session) paint(w *win, r Rect) {
	b, dx, dy := w.buffer, 0, 0
	if b == nil {
		if screen, ok := s.windows[wholeScreen]; ok && screen.buffer != nil {
			b, dx, dy = screen.buffer, w.geometry.X, w.geometry.Y
		}
	}
	if b == nil {
		return
	}
	r = r.Intersect(Rect{0, 0, w.geometry.Width, w.geometry.Height})
	size := b.Size()
	src := Rect{r.X + dx, r.Y + dy, r.Width, r.Height}.Intersect(Rect{0, 0, size.Width, size.Height})
	if r.Empty() || src.Empty() {
		return
	}
	s.painted += uint64(src.Width) * uint64(src.Height)
	s.display.Paint(w.id, b, src, src.X-dx, src.Y-dy)
}
