package window

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"cubicle/guid/wire"
)

const regionBytes = 1 << 20

// screen is a Display that fails the test when a Session asks for something
// that a real one could not do.
type screen struct {
	t       testing.TB
	bounds  Bounds
	windows map[wire.WindowID]*shown
}

type shown struct {
	place        Geometry
	override     bool
	mapped       bool
	title        string
	instance     string
	transientFor *wire.WindowID
	state        State
	painted      int
}

func newScreen(t testing.TB) *screen {
	return &screen{t, Bounds{Size{1000, 800}, Rect{0, 0, 1000, 760}, 4}, make(map[wire.WindowID]*shown)}
}

func (s *screen) get(id wire.WindowID) *shown {
	w, ok := s.windows[id]
	if !ok {
		s.t.Fatalf("window %#x is used but does not exist", id)
	}
	return w
}

func (s *screen) checkPlace(g Geometry, override bool) {
	s.t.Helper()
	if g.Width < 1 || g.Height < 1 || g.Width > wire.MaxWindowWidth || g.Height > wire.MaxWindowHeight ||
		max(g.X, -g.X) > wire.MaxWindowWidth+4 || max(g.Y, -g.Y) > wire.MaxWindowHeight+4 {
		s.t.Fatalf("a place out of bounds: %+v", g)
	}
	if !override {
		return
	}
	outer, root := s.bounds.Outer(g), Rect{0, 0, s.bounds.Root.Width, s.bounds.Root.Height}
	if !outer.Intersect(root).Empty() && !s.bounds.Work.Contains(outer) {
		s.t.Fatalf("a borderless window leaves the work area: %+v", g)
	}
}

func (s *screen) Create(id wire.WindowID, g Geometry, override bool) error {
	if s.windows[id] != nil {
		s.t.Fatalf("window %#x is created twice", id)
	}
	s.checkPlace(g, false)
	s.windows[id] = &shown{place: g, override: override}
	return nil
}
func (s *screen) Destroy(id wire.WindowID) { s.get(id); delete(s.windows, id) }
func (s *screen) Show(id wire.WindowID, override bool) {
	w := s.get(id)
	if w.override != override {
		s.t.Fatalf("window %#x is shown with override-redirect %v, made with %v", id, override, w.override)
	}
	s.checkPlace(w.place, override)
	w.mapped = true
}
func (s *screen) Hide(id wire.WindowID) { s.get(id).mapped = false }
func (s *screen) SetOverride(id wire.WindowID, override bool) {
	w := s.get(id)
	if w.mapped {
		s.t.Fatalf("override-redirect of visible window %#x changes", id)
	}
	w.override = override
}
func (s *screen) Place(id wire.WindowID, g Geometry) {
	w := s.get(id)
	s.checkPlace(g, w.override && w.mapped)
	w.place = g
}
func (s *screen) SetTitle(id wire.WindowID, text Text) {
	title := text.String()
	if len(title) < 7 || title[:7] != "[work] " {
		s.t.Fatalf("a title without the qube's name: %q", title)
	}
	for _, r := range title {
		if r < 0x20 || r >= 0x7f && !showable(r) {
			s.t.Fatalf("a title with %q", r)
		}
	}
	s.get(id).title = title
}
func (s *screen) SetClass(id wire.WindowID, instance, class Text) {
	s.get(id).instance = instance.String()
}
func (s *screen) SetHints(id wire.WindowID, h Hints) {
	s.get(id)
	if h.Min != nil && h.Max != nil && (h.Min.Width > h.Max.Width || h.Min.Height > h.Max.Height) {
		s.t.Fatalf("hints without a size between: %+v", h)
	}
}
func (s *screen) SetTransientFor(id wire.WindowID, of *wire.WindowID) {
	w := s.get(id)
	w.transientFor = of
	for n := 0; w.transientFor != nil; n++ {
		if n > len(s.windows) {
			s.t.Fatalf("window %#x belongs to itself", id)
		}
		w = s.get(*w.transientFor)
	}
}
func (s *screen) SetCursor(id wire.WindowID, glyph Glyph) {
	s.get(id)
	if glyph < -1 || glyph > 153 || glyph > 0 && glyph%2 != 0 {
		s.t.Fatalf("cursor glyph %d", glyph)
	}
}
func (s *screen) SetState(id wire.WindowID, state State) { s.get(id).state = state }
func (s *screen) ChangeState(id wire.WindowID, add bool, state State) {
	w := s.get(id)
	if state.Fullscreen && add {
		s.t.Fatal("full screen although it is not allowed")
	}
	if state.Maximized {
		w.state.Maximized = add
	}
}
func (s *screen) Iconify(id wire.WindowID) { s.get(id) }
func (s *screen) Paint(id wire.WindowID, b Buffer, src Rect, x, y int) {
	w := s.get(id)
	size := b.Size()
	if src.Empty() || !(Rect{0, 0, size.Width, size.Height}).Contains(src) || x < 0 || y < 0 {
		s.t.Fatalf("paint %+v of %+v at (%d,%d)", src, size, x, y)
	}
	if b.(*image).closed {
		s.t.Fatal("pixels are used after they were given back")
	}
	w.painted++
}
func (s *screen) Bounds() Bounds     { return s.bounds }
func (s *screen) KeysDown() [32]byte { return [32]byte{1: 4} }

type image struct {
	Image
	closed bool
}

func (i *image) Size() Size { return i.Image.Size }
func (i *image) Close()     { i.closed = true }

// region is a Buffers that tracks what is open.
type region struct{ open []*image }

func (r *region) Open(d wire.WindowDump) (Buffer, error) {
	if d.Kind == wire.DumpGrants {
		return nil, errors.Join(CheckGrantDump(d), errors.New("no grants"))
	}
	i, err := CheckRegionDump(d, regionBytes)
	if err != nil {
		return nil, err
	}
	if i.Offset+uint64(i.Stride)*uint64(i.Size.Height) > regionBytes || i.Offset > regionBytes {
		return nil, fmt.Errorf("image %+v was let through", i)
	}
	b := &image{Image: i}
	r.open = append(r.open, b)
	return b, nil
}

type outbox []struct {
	id wire.WindowID
	m  wire.Message
}

func (o *outbox) Send(id wire.WindowID, m wire.Message) error {
	*o = append(*o, struct {
		id wire.WindowID
		m  wire.Message
	}{id, m})
	return nil
}

func (o *outbox) take() []wire.Message {
	var out []wire.Message
	for _, e := range *o {
		out = append(out, e.m)
	}
	*o = nil
	return out
}

func newTestSession(t testing.TB) (*Session, *screen, *region, *outbox) {
	sc, r, o := newScreen(t), &region{}, &outbox{}
	return NewSession(Config{Name: "work", Version: wire.Current}, sc, r, o, slog.New(slog.DiscardHandler)), sc, r, o
}
