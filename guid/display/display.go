// Package display draws one qube's windows on dom0's X server: it is the
// window.Display of a window.Session, and turns the server's events into calls
// of the session.
//
// A qube's window is two X windows. The frame is what the window manager sees;
// its background is the label's colour. The content is its child, inset by the
// frame's width on all sides, and the only place where a qube's pixels go. So
// the colour stays around menus, under any window manager and without one, and
// also when a window fills the screen.
package display

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"cubicle/guid/border"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// Label is a qube's colour as dom0 knows it.
type Label struct {
	Index uint8
	Color uint32 // 0x00RRGGBB
}

// Config says whose windows these are.
type Config struct {
	Name  string // of the qube, from a trusted source
	Label Label

	// Lockers are the WM_CLASS instances of screen lockers, which no window
	// of a qube may cover (spec/gui-protocol.md §11.3).
	Lockers []string
}

// background shows where a qube has not drawn.
const background = 0xffffff

// northWest is the bit gravity that keeps pixels while a window is resized.
const northWest = 1

const (
	frameEvents = x11.MaskKeyPress | x11.MaskKeyRelease | x11.MaskFocusChange |
		x11.MaskStructureNotify | x11.MaskPropertyChange
	contentEvents = x11.MaskExposure | x11.MaskButtonPress | x11.MaskButtonRelease |
		x11.MaskPointerMotion | x11.MaskEnterWindow | x11.MaskLeaveWindow
)

var _ window.Display = (*Display)(nil)

// Display is dom0's X server as one qube uses it. It is not safe for concurrent
// use. Errors of requests without an answer come as events; a lost server ends
// the events.
type Display struct {
	cfg    Config
	c      *x11.Conn
	log    *slog.Logger
	atoms  map[string]x11.Atom
	gc     x11.GC
	host   string
	bounds window.Bounds

	icon []uint32 // of all windows

	managed bool // a window manager runs
	waiting map[*local]*wait
	due     <-chan time.Time
	pause   time.Duration // before due

	byID    map[wire.WindowID]*local
	byX     map[x11.Window]*local // frames and contents
	moved   map[*local]bool       // whose place must be asked for
	cursors map[window.Glyph]x11.Cursor
}

// local are the X windows of one window of the qube.
type local struct {
	id             wire.WindowID
	frame, content x11.Window
	size           window.Size // of the content
	hints          window.Hints
	override       bool
	shown          bool // the session wants it seen

	// placed tells that the server has shown it since: before that, moves are
	// echoes of our own requests.
	placed bool
	asked  echoes
}

// New prepares the display of connection c, whose root window must have 24
// bits a pixel.
func New(c *x11.Conn, cfg Config, log *slog.Logger) (*Display, error) {
	s := &Display{cfg: cfg, c: c, log: log,
		byID: make(map[wire.WindowID]*local), byX: make(map[x11.Window]*local),
		icon: icon(cfg.Label.Color), moved: make(map[*local]bool), waiting: make(map[*local]*wait), cursors: make(map[window.Glyph]x11.Cursor)}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("prepare the screen for %s: %w", cfg.Name, err)
	}
	return s, nil
}

func (s *Display) prepare() error {
	if depth := s.c.RootDepth(); depth != 24 {
		return fmt.Errorf("the screen has %d bits a pixel, needed are 24", depth)
	}
	if err := s.c.InitShm(); err != nil {
		return err
	}
	var err error
	if s.atoms, err = s.c.Atoms(atomNames...); err != nil {
		return err
	}
	if s.host, err = os.Hostname(); err != nil {
		return err
	}
	if err := s.c.SelectInput(s.c.Root(), x11.MaskPropertyChange|x11.MaskStructureNotify); err != nil {
		return err
	}
	if s.gc, err = s.c.CreateGC(x11.Drawable(s.c.Root()), 0); err != nil {
		return err
	}
	resources, err := s.c.GetProperty(s.c.Root(), s.atoms["RESOURCE_MANAGER"], x11.AtomString, 1<<16)
	if err != nil {
		return err
	}
	s.bounds.Border = border.Width(string(resources.Data))
	return s.measure()
}

// measure asks for the size of the screen, its work area, and whether a window
// manager runs.
func (s *Display) measure() error {
	root, err := s.c.Geometry(x11.Drawable(s.c.Root()))
	if err != nil {
		return err
	}
	s.bounds.Root = window.Size{Width: root.Width, Height: root.Height}
	s.bounds.Work = window.Rect{Width: root.Width, Height: root.Height}
	area, ok, err := s.c.WorkArea()
	if err != nil {
		return err
	}
	work := s.bounds.Work.Intersect(window.Rect{X: area.X, Y: area.Y, Width: area.Width, Height: area.Height})
	if ok && !work.Empty() {
		s.bounds.Work = work
	}
	s.managed, err = s.c.Managed()
	return err
}

// XConf describes the screen to the agent.
func (s *Display) XConf() wire.XConf {
	return wire.NewXConf(uint32(s.bounds.Root.Width), uint32(s.bounds.Root.Height), uint32(s.c.RootDepth()))
}

// Bounds are the present limits of the screen.
func (s *Display) Bounds() window.Bounds { return s.bounds }

// Create makes a hidden window.
func (s *Display) Create(id wire.WindowID, g window.Geometry, override bool) error {
	outer := s.bounds.Outer(g)
	frame, err := s.c.CreateWindow(s.c.Root(), int16(outer.X), int16(outer.Y), uint16(outer.Width), uint16(outer.Height), x11.Attributes{
		BackPixel:        &s.cfg.Label.Color,
		OverrideRedirect: &override,
		EventMask:        x11.Ptr[uint32](frameEvents),
	})
	if err != nil {
		return err
	}
	b := int16(s.bounds.Border)
	content, err := s.c.CreateWindow(frame, b, b, uint16(g.Width), uint16(g.Height), x11.Attributes{
		BackPixel:  x11.Ptr[uint32](background),
		BitGravity: x11.Ptr[uint32](northWest),
		EventMask:  x11.Ptr[uint32](contentEvents),
	})
	if err != nil {
		return err
	}
	s.c.Map(content)
	l := &local{id: id, frame: frame, content: content, size: window.Size{Width: g.Width, Height: g.Height}, override: override}
	s.byID[id], s.byX[frame], s.byX[content] = l, l, l
	s.describe(l)
	return nil
}

// Destroy ends a window.
func (s *Display) Destroy(id wire.WindowID) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	delete(s.byID, id)
	delete(s.byX, l.frame)
	delete(s.byX, l.content)
	delete(s.moved, l)
	delete(s.waiting, l)
	s.c.Destroy(l.frame)
}

// Show makes a window visible.
func (s *Display) Show(id wire.WindowID, override bool) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	l.shown = true
	if override {
		s.stack(l)
		s.c.Map(l.frame)
		return
	}
	if managed, err := s.c.Managed(); err == nil {
		s.managed = managed
	}
	if s.managed {
		s.c.Map(l.frame)
		s.await(l)
		return
	}
	s.showUnmanaged(l)
}

// stack puts a borderless window on top of all but screen lockers.
func (s *Display) stack(l *local) {
	locker, err := s.c.LowestByInstance(s.cfg.Lockers)
	if err == nil && locker != 0 {
		s.c.Configure(l.frame, x11.Changes{Sibling: &locker, Stack: x11.Ptr[uint32](x11.StackBelow)})
		return
	}
	s.c.Raise(l.frame)
}

// showUnmanaged does what a window manager would.
func (s *Display) showUnmanaged(l *local) {
	if !l.hints.UserPosition && !l.hints.ProgramPosition {
		const step, rounds = 40, 9
		// A cascade over the windows of all qubes, not of ours alone.
		_, others, err := s.c.Tree(s.c.Root())
		if err != nil {
			others = nil // all in the middle then
		}
		work := s.bounds.Work
		shift := len(others)%rounds*step - rounds*step/2
		x := work.X + max(0, (work.Width-l.size.Width)/2-s.bounds.Border+shift)
		y := work.Y + max(0, (work.Height-l.size.Height)/2-s.bounds.Border+shift)
		s.c.Configure(l.frame, x11.Changes{X: &x, Y: &y})
	}
	s.c.Raise(l.frame)
	s.c.Map(l.frame)
	s.c.SetInputFocus(l.frame, x11.CurrentTime)
}

// Hide hides a window.
func (s *Display) Hide(id wire.WindowID) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	l.shown, l.placed = false, false
	delete(s.waiting, l)
	if l.override {
		s.c.Unmap(l.frame)
		return
	}
	s.c.Withdraw(l.frame)
}

// SetOverride changes override-redirect of a hidden window.
func (s *Display) SetOverride(id wire.WindowID, override bool) {
	if l, ok := s.byID[id]; ok {
		l.override = override
		s.c.SetAttributes(l.frame, x11.Attributes{OverrideRedirect: &override})
	}
}

// Place asks for a place of the content. A window manager puts its own frame
// where we ask ours to be, so the width of its edges is taken off.
func (s *Display) Place(id wire.WindowID, g window.Geometry) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	l.asked.add(window.Size{Width: g.Width, Height: g.Height})
	outer := s.bounds.Outer(g)
	if s.managed && !l.override && l.shown {
		left, top := s.extents(l)
		outer.X -= left
		outer.Y -= top
	}
	s.c.MoveResize(l.frame, outer.X, outer.Y, outer.Width, outer.Height)
}

// maxExtent is the widest edge of a window manager that is believed.
const maxExtent = 1024

// extents are the widths of the window manager's left and top edges.
func (s *Display) extents(l *local) (left, top int) {
	p, err := s.c.GetProperty(l.frame, s.atoms["_NET_FRAME_EXTENTS"], x11.AtomCardinal, 16)
	words := p.Words()
	if err != nil || len(words) != 4 || words[0] > maxExtent || words[2] > maxExtent {
		return 0, 0
	}
	return int(words[0]), int(words[2])
}

// SetCursor sets the pointer's shape over the content.
func (s *Display) SetCursor(id wire.WindowID, glyph window.Glyph) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	cursor := x11.Cursor(0) // the parent's
	if glyph != window.DefaultCursor {
		var have bool
		if cursor, have = s.cursors[glyph]; !have {
			made, err := s.c.GlyphCursor(uint16(glyph))
			if err != nil {
				s.log.Warn("no cursor", "glyph", glyph, "error", err)
				return
			}
			cursor = made
			s.cursors[glyph] = made
		}
	}
	s.c.SetAttributes(l.content, x11.Attributes{Cursor: &cursor})
}

// Paint copies a rectangle of a shared image to the content.
func (s *Display) Paint(id wire.WindowID, b window.Buffer, src window.Rect, x, y int) {
	l, ok := s.byID[id]
	if !ok {
		return
	}
	if image, ok := b.(painter); ok {
		image.paint(s, l.content, src, x, y)
	}
}

// KeysDown are the keys that are down.
func (s *Display) KeysDown() [32]byte {
	down, err := s.c.KeysDown()
	if err != nil { // the server is lost, which the events tell
		return [32]byte{}
	}
	return down
}
