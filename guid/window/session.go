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
const maxWindows = 1024

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
	effort  int             // see Effort
	painted uint64          // pixels, ever
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
	w, known := s.windows[id]
	_, creates := m.(wire.Create)
	_, clipboard := m.(wire.ClipboardData) // its id is not looked up
	switch {
	case creates && known:
		return offence(m.Type(), id, "the window exists already")
	case !creates && !known && !clipboard:
		return offence(m.Type(), id, "there is no such window")
	}
	if _, dumps := m.(wire.WindowDump); dumps {
		w.detach() // the old buffer goes first, whatever follows (§10.1)
	}
	asked, err := check(m, s.cfg, s.buffers)
	if err != nil {
		return offence(m.Type(), id, "%v", err)
	}
	s.effort++
	return s.do(id, w, asked)
}

// managerEffort is what a wish costs that the window manager and the X server
// have work with, compared to one that is only noted.
const managerEffort = 50

// Effort is how much work the agent has caused since the last call: 1 for each
// message, and managerEffort for each that changes a window. Whoever reads the
// agent's messages slows down by it, so that a flood is the qube's own loss.
func (s *Session) Effort() int {
	n := s.effort
	s.effort = 0
	return n
}

// do carries a wish out; w is nil for a new window.
func (s *Session) do(id wire.WindowID, w *win, asked wish) error {
	switch asked.(type) {
	case configureWish, damageWish, dumpWish, nothingWish: // counted where they have an effect
	default:
		s.effort += managerEffort
	}
	switch m := asked.(type) {
	case createWish:
		return s.create(id, m)
	case destroyWish:
		return s.destroy(w)
	case mapWish:
		return s.mapWindow(w, m)
	case unmapWish:
		s.unmap(w)
	case configureWish:
		return s.configure(w, m)
	case damageWish:
		s.damage(w, m)
	case titleWish:
		s.display.SetTitle(w.id, m.text.behind(s.prefix()))
	case classWish:
		s.setClass(w, m)
	case hintsWish:
		s.display.SetHints(w.id, m.hints)
	case flagsWish:
		s.setFlags(w, m)
	case dumpWish:
		return s.dump(w, m)
	case cursorWish:
		s.display.SetCursor(w.id, m.glyph)
	case dockWish:
		s.dock(w)
	case nothingWish:
		s.log.Debug("clipboard data without a request")
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
func (s *Session) create(id wire.WindowID, m createWish) error {
	if len(s.windows) >= maxWindows {
		return offence(wire.TypeCreate, id, "more than %d windows", maxWindows)
	}
	w := &win{id: id, geometry: m.place}
	w.override = s.mayOverride(w, m.override)
	// A borderless window is forced on screen when it is shown, not now:
	// toolkits make menus in a corner and move them at once, and an answer
	// from us would cross that (§9: the move would be lost).
	if err := s.display.Create(id, m.place, w.override); err != nil {
		return fmt.Errorf("create window %#x: %w", uint32(id), err)
	}
	s.windows[id] = w
	name := trusted(s.cfg.Name)
	s.display.SetTitle(id, trusted(s.prefix()))
	s.display.SetClass(id, name, name)
	return nil
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
func (s *Session) mapWindow(w *win, m mapWish) error {
	if w.mapped || w.docked {
		return nil
	}
	if err := s.checkShown(w.id, w.geometry); err != nil {
		return err
	}
	w.transientFor = s.transientFor(w, m.transientFor)
	s.display.SetTransientFor(w.id, w.transientFor)
	if override := s.mayOverride(w, m.override); override != w.override {
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
	return nil
}

// maxShown is the largest sum of the visible windows' pixels: a compositor
// keeps 4 bytes for each, wherever they are.
const maxShown = 256 << 20

// checkShown judges whether a window may be shown with size g.
func (s *Session) checkShown(id wire.WindowID, g Geometry) error {
	sum := int64(g.Width) * int64(g.Height)
	for _, w := range s.windows {
		if w.mapped && w.id != id {
			sum += int64(w.geometry.Width) * int64(w.geometry.Height)
		}
	}
	if sum > maxShown {
		return offence(wire.TypeMap, id, "visible windows of more than %d pixels", maxShown)
	}
	return nil
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
	if s.cfg.UnlimitedOverride || !s.display.Bounds().tooLarge(w.geometry, s.borderless(w)) {
		return true
	}
	if !s.warned {
		s.warned = true
		s.log.Warn("borderless windows would cover almost the whole screen: the last one was put under the window manager's control", "window", w.id)
	}
	return false
}

// borderless are the places of the visible borderless windows but w.
func (s *Session) borderless(w *win) []Geometry {
	var places []Geometry
	for _, other := range s.windows {
		if other.override && other.mapped && other != w {
			places = append(places, other.geometry)
		}
	}
	return places
}

// configure is CONFIGURE from the agent (§9).
func (s *Session) configure(w *win, m configureWish) error {
	switch same := m.place == w.geometry; {
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
		if w.mapped {
			if err := s.checkShown(w.id, m.place); err != nil {
				return err
			}
		}
		s.effort += managerEffort
		s.follow(w, m.place)
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
	if w.override && w.mapped {
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
	if w.override && w.mapped {
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

// LocalBounds says that the screen had other bounds before: what a window
// manager does not place comes back into the work area if it could be seen.
func (s *Session) LocalBounds(before Bounds) {
	for _, w := range s.windows {
		if !w.override || !w.mapped || !before.shows(w.geometry) {
			continue
		}
		place := s.display.Bounds().within(w.geometry)
		switch {
		case !s.mayOverride(w, true):
			s.follow(w, w.geometry)
		case place != w.geometry:
			s.display.Place(w.id, place)
		}
	}
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

// prefix comes first in a title, and the qube alone cannot produce it.
func (s *Session) prefix() string { return "[" + s.cfg.Name + "] " }

// setClass is WMCLASS (§12.2).
func (s *Session) setClass(w *win, m classWish) {
	if w.mapped {
		s.log.Debug("the class of a visible window does not change", "window", w.id)
		return
	}
	prefix := s.cfg.Name + ":"
	s.display.SetClass(w.id, m.instance.behind(prefix), m.class.behind(prefix))
}

// Windows is the number of windows that exist.
func (s *Session) Windows() int { return len(s.windows) }
