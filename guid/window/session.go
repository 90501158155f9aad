package window

import (
	"fmt"
	"log/slog"

	"cubicle/guid/wire"
)

// Config is what dom0 knows about a qube and its user's wishes.
type Config struct {
	Name    string       // of the qube, from a trusted source
	Version wire.Version // of the session

	AllowFullscreen   bool // else full screen becomes maximised (§11.4)
	AllowUTF8Titles   bool
	ForbidOverride    bool // no borderless windows at all
	UnlimitedOverride bool // no 90 % rule (§11.2)
}

// maxWindows is the most windows of one qube; upstream has no limit, and dom0's
// X server would run out of memory.
const maxWindows = 2048

// Session are the windows of one qube. Its methods must not run at the same
// time; a method whose error is not nil was the last one.
type Session struct {
	cfg     Config
	display Display
	buffers Buffers
	agent   Agent
	log     *slog.Logger

	windows map[wire.WindowID]*win
	dirty   []wire.WindowID // windows with damage, in the order of their first
	warned  bool            // about the 90 % rule
}

// win is one window.
type win struct {
	id       wire.WindowID
	geometry Geometry // G of spec/gui-protocol.md §9
	pending  bool     // P of §9: a CONFIGURE of ours waits for agreement
	override bool
	mapped   bool // by the agent's wish
	docked   bool
	buffer   Buffer // nil: none
	damage   []Rect

	transientFor *wire.WindowID
	flags        uint32 // last told to or wished by the agent
	maximized    bool   // M of §11.4: maximised in place of full screen
}

// NewSession returns the session of a qube that has no windows yet.
func NewSession(cfg Config, display Display, buffers Buffers, agent Agent, log *slog.Logger) *Session {
	return &Session{cfg: cfg, display: display, buffers: buffers, agent: agent, log: log, windows: make(map[wire.WindowID]*win)}
}

// Handle does what a message of the agent asks.
func (s *Session) Handle(id wire.WindowID, m wire.Message) error {
	if _, ok := m.(wire.ClipboardData); ok {
		// Nobody asked: consumed and forgotten (§14.2). The id is not looked up.
		s.log.Debug("clipboard data without a request")
		return nil
	}
	w, known := s.windows[id]
	if create, ok := m.(wire.Create); ok {
		if known {
			return offence(m.Type(), id, "the window exists already")
		}
		return s.create(id, create)
	}
	if !known {
		return offence(m.Type(), id, "there is no such window")
	}
	switch m := m.(type) {
	case wire.Destroy:
		return s.destroy(w)
	case wire.Map:
		s.mapWindow(w, m)
	case wire.Unmap:
		s.unmap(w)
	case wire.Configure:
		return s.configure(w, m)
	case wire.ShmImage:
		s.damage(w, m)
	case wire.WMName:
		s.display.SetTitle(w.id, s.title(m))
	case wire.WMClass:
		s.setClass(w, m)
	case wire.WindowHints:
		s.display.SetHints(w.id, checkHints(m))
	case wire.WindowFlags:
		return s.setFlags(w, m)
	case wire.WindowDump:
		return s.dump(w, m)
	case wire.Cursor:
		glyph, err := checkCursor(m)
		if err != nil {
			return offence(m.Type(), id, "%v", err)
		}
		s.display.SetCursor(w.id, glyph)
	case wire.Dock:
		s.dock(w)
	default:
		return offence(m.Type(), id, "an agent does not send this")
	}
	return nil
}

// Close gives all buffers back; the display's windows are its owner's.
func (s *Session) Close() {
	for _, w := range s.windows {
		w.detach()
	}
}

// create is CREATE (§7).
func (s *Session) create(id wire.WindowID, m wire.Create) error {
	if len(s.windows) >= maxWindows {
		return offence(m.Type(), id, "more than %d windows", maxWindows)
	}
	g, err := checkGeometry(m.X, m.Y, m.Width, m.Height)
	if err != nil {
		return offence(m.Type(), id, "%v", err)
	}
	w := &win{id: id, geometry: g}
	w.override = s.mayOverride(w, m.OverrideRedirect != 0)
	place := g
	if w.override {
		place = s.display.Bounds().force(g)
	}
	if err := s.display.Create(id, place, w.override); err != nil {
		return fmt.Errorf("create window %#x: %w", uint32(id), err)
	}
	s.windows[id] = w
	s.display.SetTitle(id, s.prefix())
	s.display.SetClass(id, s.cfg.Name, s.cfg.Name)
	// A new window of a display reports no change, so the agent hears now.
	return s.LocalConfigure(id, place)
}

// destroy is DESTROY (§7).
func (s *Session) destroy(w *win) error {
	for _, other := range s.windows {
		if other.transientFor != nil && *other.transientFor == w.id {
			other.transientFor = nil
			s.display.SetTransientFor(other.id, nil)
		}
	}
	s.display.Destroy(w.id)
	w.detach()
	delete(s.windows, w.id)
	if s.cfg.Version.AnswersDestroy() {
		return s.agent.Send(w.id, wire.Destroy{})
	}
	return nil
}

// mapWindow is MAP (§7).
func (s *Session) mapWindow(w *win, m wire.Map) {
	if w.mapped || w.docked {
		return
	}
	w.transientFor = s.transientFor(w, wire.WindowID(m.TransientFor))
	s.display.SetTransientFor(w.id, w.transientFor)
	if override := s.mayOverride(w, m.OverrideRedirect != 0); override != w.override {
		w.override = override
		s.display.SetOverride(w.id, override)
	}
	if w.override {
		if place := s.display.Bounds().force(w.geometry); place != w.geometry {
			s.display.Place(w.id, place)
		}
	}
	w.mapped = true
	s.display.Show(w.id, w.override)
}

// transientFor returns the window that w may belong to: one of this agent's,
// and so that no window belongs to itself.
func (s *Session) transientFor(w *win, of wire.WindowID) *wire.WindowID {
	if of == 0 {
		return nil
	}
	next := &of
	for range len(s.windows) + 1 {
		if *next == w.id {
			return nil
		}
		other, ok := s.windows[*next]
		if !ok {
			return nil
		}
		if next = other.transientFor; next == nil {
			return &of
		}
	}
	return nil
}

// unmap is UNMAP (§7).
func (s *Session) unmap(w *win) {
	if w.docked {
		return
	}
	s.display.Hide(w.id)
	w.mapped = false
	if w.id != wholeScreen {
		w.detach()
	}
}

// wholeScreen is the id of the window whose buffer serves windows without one
// (§10.4).
const wholeScreen wire.WindowID = 0

// mayOverride decides on a wish for override-redirect (§11.2).
func (s *Session) mayOverride(w *win, wish bool) bool {
	if w.mapped {
		wish = w.override
	}
	if !wish || s.cfg.ForbidOverride || w.docked {
		return false
	}
	if s.cfg.UnlimitedOverride || !s.display.Bounds().tooLarge(w.geometry) {
		return true
	}
	if !s.warned {
		s.warned = true
		s.log.Warn("a borderless window that covers almost the whole screen was put under the window manager's control", "window", w.id)
	}
	return false
}

// configure is CONFIGURE from the agent (§9).
func (s *Session) configure(w *win, m wire.Configure) error {
	c, err := checkConfigure(m)
	if err != nil {
		return offence(m.Type(), w.id, "%v", err)
	}
	switch same := c == w.geometry; {
	case w.docked:
		w.pending = false
		if !same {
			return s.sendConfigure(w)
		}
	case w.pending && same:
		w.pending = false
	case w.pending:
		return s.sendConfigure(w)
	case !same:
		s.follow(w, c)
	}
	return nil
}

// follow moves the local window where the agent wants it.
func (s *Session) follow(w *win, c Geometry) {
	w.geometry = c
	lost := w.override && !s.mayOverride(w, true)
	if lost {
		w.override = false
		if w.mapped {
			s.display.Hide(w.id)
		}
		s.display.SetOverride(w.id, false)
	}
	if w.override {
		c = s.display.Bounds().force(c)
	}
	s.display.Place(w.id, c)
	if lost && w.mapped {
		s.display.Show(w.id, false)
	}
}

func (s *Session) sendConfigure(w *win) error {
	g := w.geometry
	return s.agent.Send(w.id, wire.Configure{X: int32(g.X), Y: int32(g.Y), Width: uint32(g.Width), Height: uint32(g.Height)})
}

// LocalConfigure says where the content of a window is now (§9).
func (s *Session) LocalConfigure(id wire.WindowID, l Geometry) error {
	w, ok := s.windows[id]
	if !ok || l == w.geometry {
		return nil
	}
	w.geometry = l
	if w.override {
		if place := s.display.Bounds().force(l); place != l {
			s.display.Place(id, place)
		}
	}
	if w.pending {
		return nil
	}
	w.pending = id != wholeScreen
	return s.sendConfigure(w)
}

// LocalMap says that the window manager shows or hides a window. One that the
// agent wants hidden is told to the agent when it can be seen, else hidden
// again (§8).
func (s *Session) LocalMap(id wire.WindowID, viewable bool) error {
	w, ok := s.windows[id]
	if !ok || w.mapped {
		return nil
	}
	if !viewable {
		s.display.Hide(id)
		return nil
	}
	w.mapped = true
	override := uint32(0)
	if w.override {
		override = 1
	}
	return s.agent.Send(id, wire.Map{OverrideRedirect: override})
}

// LocalClose says that the user wants a window closed.
func (s *Session) LocalClose(id wire.WindowID) error { return s.send(id, wire.Close{}) }

// send passes a message on to the agent when the window is its.
func (s *Session) send(id wire.WindowID, m wire.Message) error {
	if _, ok := s.windows[id]; !ok {
		return nil
	}
	return s.agent.Send(id, m)
}

// dock is DOCK (§13): the window waits for a tray, as it does where none runs.
func (s *Session) dock(w *win) {
	if w.mapped {
		s.log.Warn("a visible window cannot go to the tray", "window", w.id)
		return
	}
	w.docked = true
	if w.override {
		w.override = false
		s.display.SetOverride(w.id, false)
	}
	s.log.Info("a tray icon waits: this session has no tray", "window", w.id)
}

func (s *Session) prefix() string { return "[" + s.cfg.Name + "] " }

// title is the text for a window's title: the qube's name comes first and
// cannot be produced by the qube alone.
func (s *Session) title(m wire.WMName) string {
	return s.prefix() + cleanText(firstText(m.Text[:]), s.cfg.AllowUTF8Titles)
}

// setClass is WMCLASS (§12.2).
func (s *Session) setClass(w *win, m wire.WMClass) {
	if w.mapped {
		s.log.Debug("the class of a visible window does not change", "window", w.id)
		return
	}
	clean := func(b []byte) string { return s.cfg.Name + ":" + cleanText(firstText(b), false) }
	s.display.SetClass(w.id, clean(m.Name[:]), clean(m.Class[:]))
}

// Windows is the number of windows that exist.
func (s *Session) Windows() int { return len(s.windows) }
