package gui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// client is an X client of the test's own.
type client struct {
	t *testing.T
	*x11.Conn
	atoms atoms
}

func newClient(t *testing.T, display string) *client {
	t.Helper()
	x := dialX(t, display)
	names, err := internAtoms(x)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t, x, names}
}

// window makes a window of one colour.
func (c *client) window(title string, p rect, color uint32, overrideRedirect bool) x11.Window {
	c.t.Helper()
	w, err := c.CreateWindow(c.Root(), int16(p.x), int16(p.y), uint16(p.w), uint16(p.h),
		x11.Attributes{BackPixel: &color, OverrideRedirect: &overrideRedirect})
	if err != nil {
		c.t.Fatal(err)
	}
	c.SetText(w, c.atoms.netWMName, c.atoms.utf8String, title)
	return w
}

func TestTransientAndInitialState(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	parent := c.window("parent", rect{10, 10, 200, 100}, 0xff0000, false)
	c.Map(parent)
	dialog := c.window("dialog", rect{30, 30, 100, 50}, 0x00ff00, false)
	c.SetWords(dialog, x11.AtomWMTransientFor, x11.AtomWindow, uint32(parent))
	c.SetWords(dialog, c.atoms.netWMState, x11.AtomAtom, uint32(c.atoms.stateFullscreen), uint32(c.atoms.stateHidden))
	c.Map(dialog)
	v := d.awaitWindow("dialog", titled("dialog"))
	if v.mapped.TransientFor != uint32(parent) {
		t.Errorf("transient for %#x, not %#x", v.mapped.TransientFor, parent)
	}
	if v.flags != wire.FlagFullscreen {
		t.Errorf("flags %#x", v.flags)
	}
	d.awaitSame(c.Conn, v)
	if px := d.rows(v); px[0] != 0 || px[1] != 0xff || px[2] != 0 {
		t.Errorf("the first pixel is %v", px[:3])
	}
}

func TestStatesTravelBothWays(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("states", rect{10, 10, 200, 100}, 0, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("states"))
	wish := func(action uint32, state x11.Atom) {
		c.SendClientMessage(c.Root(), w, c.atoms.netWMState, x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect,
			[5]uint32{action, uint32(state), 0, 1})
	}
	state := func() []uint32 {
		p, err := c.GetProperty(w, c.atoms.netWMState, x11.AtomAtom, 64)
		if err != nil {
			t.Fatal(err)
		}
		return p.Words()
	}
	wish(x11.StateAdd, c.atoms.stateFullscreen)
	d.await("wish for full screen", func() bool { return v.flags == wire.FlagFullscreen })
	// dom0 grants it, and the client sees that.
	d.send(v.id, wire.WindowFlags{Set: wire.FlagFullscreen})
	d.await("state", func() bool { s := state(); return len(s) == 1 && x11.Atom(s[0]) == c.atoms.stateFullscreen })
	wish(x11.StateToggle, c.atoms.stateFullscreen)
	d.await("wish for an end of it", func() bool { return v.flags == 0 })
	d.send(v.id, wire.WindowFlags{Set: wire.FlagMinimize | 1<<31, Unset: wire.FlagFullscreen})
	d.await("state", func() bool { s := state(); return len(s) == 1 && x11.Atom(s[0]) == c.atoms.stateHidden })
	// A withdrawn window has no state.
	c.Unmap(w)
	d.await("unmapped window", func() bool { return v.mapped == nil })
	d.await("no state", func() bool { return len(state()) == 0 })
}

func TestClientsWishToMoveIsToldAndCarriedOut(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("mover", rect{10, 10, 200, 100}, 0x123456, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("mover"))
	x, y := 400, 300
	c.Configure(w, x11.Changes{X: &x, Y: &y})
	d.await("wish", func() bool { return v.place == wire.Configure{X: 400, Y: 300, Width: 200, Height: 100} })
	// dom0 has another opinion, which is final.
	d.configure(v, 77, 88, 222, 111)
	d.awaitSame(c.Conn, v)
	if g, err := c.Geometry(x11.Drawable(w)); err != nil || g.X != 77 || g.Y != 88 || g.Width != 222 || g.Height != 111 {
		t.Errorf("the window is at %+v, %v", g, err)
	}
	// What a client wishes of what it has not named stays as it was.
	width := 333
	c.Configure(w, x11.Changes{Width: &width})
	d.await("wish", func() bool { return v.place == wire.Configure{X: 77, Y: 88, Width: 333, Height: 111} })
	d.awaitSame(c.Conn, v)
}

func TestMenusPlaceThemselves(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("menu", rect{10, 10, 200, 100}, 0xabcdef, true)
	border := 3
	c.Configure(w, x11.Changes{BorderWidth: &border})
	c.Map(w)
	v := d.awaitWindow("menu", titled("menu"))
	for i := range 10 {
		c.MoveResize(w, 50+i, 60, 210+i, 110)
	}
	d.await("last place", func() bool {
		p := v.place
		return p.X == 59 && p.Y == 60 && p.Width == 219 && p.Height == 110
	})
	d.awaitSame(c.Conn, v)
	// dom0 forces it on the screen; that is no news to tell back but the answer.
	d.configure(v, 0, 0, 219, 110)
	c.Sync()
	time.Sleep(50 * time.Millisecond)
	d.drain()
	if v.place.X != 0 || v.place.Y != 0 {
		t.Errorf("the place went back to %+v", v.place)
	}
}

func TestWindowsComeAndGo(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	hidden, err := c.CreateInputOnly(c.Root(), 5, 5, 50, 50, x11.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	c.Map(hidden)
	w := c.window("flicker", rect{10, 10, 300, 200}, 0x0000ff, true)
	for range 20 {
		c.Map(w)
		c.Unmap(w)
	}
	c.Map(w)
	v := d.awaitWindow("window", titled("flicker"))
	d.await("21 maps", func() bool { return v.maps == 21 && v.mapped != nil && v.painted > 0 })
	d.awaitSame(c.Conn, v)
	if _, seen := d.windows[wire.WindowID(hidden)]; seen {
		t.Error("a window that shows nothing is told to dom0")
	}
	c.Destroy(w)
	d.await("end", func() bool { return d.gone[v.id] == 1 })

	// Many short lives leave no space taken.
	for i := range 200 {
		w := c.window("short", rect{i, i, 640, 480}, uint32(i), true)
		c.Map(w)
		c.Sync()
		c.Destroy(w)
	}
	last := c.window("last", rect{0, 0, 300, 200}, 0x112233, false)
	c.Map(last)
	v = d.awaitWindow("window", titled("last"))
	d.awaitSame(c.Conn, v)
	if len(d.windows) != 1 {
		t.Errorf("%d windows are left", len(d.windows))
	}
	if v.dump.Offset > 64<<20 {
		t.Errorf("the region is used up to %d", v.dump.Offset)
	}
}

func TestCursorIsRecognised(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("pointer", rect{100, 100, 200, 100}, 0, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("pointer"))
	d.configure(v, 100, 100, 200, 100)
	d.send(v.id, wire.Crossing{EventType: enterNotify, X: 20, Y: 20})
	for _, glyph := range []uint16{152, 60, 108, 150} {
		cursor, err := c.GlyphCursor(glyph)
		if err != nil {
			t.Fatal(err)
		}
		c.SetAttributes(w, x11.Attributes{Cursor: &cursor})
		d.await("cursor", func() bool { return v.cursor == wire.CursorX11|uint32(glyph) })
	}
}

func TestPointerReachesTheWindowThatDom0Shows(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	lower := c.window("lower", rect{100, 100, 200, 200}, 1, false)
	upper := c.window("upper", rect{100, 100, 200, 200}, 2, false)
	c.Map(lower)
	c.Map(upper)
	v := map[string]*view{}
	for _, name := range []string{"lower", "upper"} {
		v[name] = d.awaitWindow(name, titled(name))
		d.configure(v[name], 100, 100, 200, 200)
	}
	under := func(want x11.Window, x, y int) {
		t.Helper()
		d.await("pointer", func() bool {
			px, py, child, _, err := c.Pointer()
			return err == nil && px == x && py == y && child == want
		})
	}
	// In dom0 the one that is lower here is on top.
	d.send(v["lower"].id, wire.Crossing{EventType: enterNotify, X: 30, Y: 40})
	under(lower, 130, 140)
	d.send(v["upper"].id, wire.Crossing{EventType: enterNotify, X: 31, Y: 41})
	under(upper, 131, 141)
	d.send(v["upper"].id, wire.Motion{X: 50, Y: 60})
	under(upper, 150, 160)
	// Over something of another qube, no window here has the pointer.
	d.send(v["upper"].id, wire.Crossing{EventType: leaveNotify, X: 50, Y: 60})
	d.await("pointer over nothing", func() bool {
		_, _, child, _, err := c.Pointer()
		return err == nil && child != upper && child != lower
	})
	if len(d.windows) != 2 {
		t.Errorf("%d windows: dom0 is told of our own", len(d.windows))
	}
	d.send(v["lower"].id, wire.Crossing{EventType: enterNotify, X: 1, Y: 2})
	under(lower, 101, 102)

	// Focus follows dom0's word, and leaves with it.
	focus := func(want x11.Window) {
		t.Helper()
		d.await("focus", func() bool { f, err := c.InputFocus(); return err == nil && f == want })
	}
	d.send(v["lower"].id, wire.Focus{EventType: focusIn})
	focus(lower)
	d.send(v["lower"].id, wire.Focus{EventType: focusIn + 1})
	focus(x11.FocusNone)
}

func TestNonsenseFromDom0IsSurvived(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("target", rect{0, 0, 200, 100}, 0, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("target"))
	for _, m := range []wire.Message{
		wire.Configure{X: -1 << 31, Y: 1<<31 - 1, Width: 0, Height: 1<<32 - 1},
		wire.KeyPress{EventType: 99, Keycode: 1 << 30},
		wire.Button{Button: 1 << 20},
		wire.Motion{X: 1<<31 - 1, Y: -1 << 31},
		wire.Crossing{EventType: 1, Mode: 9},
		wire.Focus{EventType: 0},
		wire.WindowDumpAck{}, wire.WindowDumpAck{}, wire.Destroy{},
		wire.Map{TransientFor: 1<<32 - 1},
		wire.ClipboardData{Data: []byte("text")},
	} {
		d.send(v.id, m)
		d.send(0xdead, m)
	}
	// A message of a later protocol is skipped by its length.
	head := wire.Header{Type: 150, Window: 5, Len: 3}.AppendTo(nil)
	if _, err := d.conn.Write(append(head, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	d.configure(v, 20, 30, 210, 110)
	d.awaitSame(c.Conn, v)
}

func TestWithoutARegionWindowsAreToldAll(t *testing.T) {
	display, _ := startX(t)
	s := startAgent(t)
	d := connectWith(t, s, 1920, 1080, 0)
	c := newClient(t, display)
	w := c.window("empty", rect{0, 0, 200, 100}, 0, false)
	c.Map(w)
	d.await("window", func() bool { v := d.windows[wire.WindowID(w)]; return v != nil && v.mapped != nil })
	d.configure(d.windows[wire.WindowID(w)], 1, 2, 100, 50)
	if n := d.windows[wire.WindowID(w)].dumps; n != 0 {
		t.Errorf("%d dumps of memory that nobody has", n)
	}
	// The next daemon has one.
	d.conn.Close()
	d = connect(t, s, 1920, 1080)
	d.awaitSame(c.Conn, d.awaitWindow("window", titled("empty")))
}

func TestHugeWindowStaysWithinTheProtocol(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("wide", rect{-20000, 5, 20000, 50}, 0x445566, true)
	c.Map(w)
	v := d.awaitWindow("window", titled("wide"))
	if v.dump.Width != wire.MaxWindowWidth || v.dump.Height != 50 || v.place.Width != wire.MaxWindowWidth {
		t.Errorf("dump %+v at %+v", v.dump, v.place)
	}
	c.MoveResize(w, 3, 4, 30, 20000)
	d.await("tall window", func() bool { return v.dump != nil && v.dump.Height == wire.MaxWindowHeight && v.painted > 0 })
}

func TestFullRegionIsNoEnd(t *testing.T) {
	display, _ := startX(t)
	d := connectWith(t, startAgent(t), 1920, 1080, 5<<20)
	c := newClient(t, display)
	var all []x11.Window
	for range 4 { // of 1 MiB and a bit: the last is too much
		w := c.window("one of four", rect{0, 0, 600, 600}, 0x778899, true)
		c.Map(w)
		all = append(all, w)
	}
	shown := func() (n int) {
		for _, w := range all {
			if v := d.windows[wire.WindowID(w)]; v != nil && v.painted > 0 {
				n++
			}
		}
		return n
	}
	d.await("windows", func() bool { return len(d.windows) == 4 && shown() == 3 })
	for _, w := range all {
		if d.windows[wire.WindowID(w)].dump != nil {
			c.Destroy(w)
			break
		}
	}
	d.await("window that waited", func() bool { return len(d.windows) == 3 && shown() == 3 })

	// A hidden one makes room, too, although nothing answers UNMAP.
	late := c.window("late", rect{0, 0, 600, 600}, 0x778899, true)
	c.Map(late)
	d.await("late window", func() bool { v := d.windows[wire.WindowID(late)]; return v != nil && v.mapped != nil })
	for _, w := range all {
		if v := d.windows[wire.WindowID(w)]; v != nil && v.dump != nil {
			c.Unmap(w)
			break
		}
	}
	d.await("late window's pixels", func() bool { return d.windows[wire.WindowID(late)].painted > 0 })
}

func TestModifiersBecomeDom0s(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	c := newClient(t, display)
	w := c.window("keys", rect{0, 0, 200, 100}, 0, false)
	c.Map(w)
	v := d.awaitWindow("window", titled("keys"))
	k, err := c.Keyboard()
	if err != nil {
		t.Fatal(err)
	}
	// dom0's numbers are evdev's: 111 is Up, 119 Delete, 92 AltGr.
	for code, sym := range map[x11.Keycode]x11.Keysym{111: 0xff52, 119: 0xffff, 92: 0xfe03} {
		if got := k.Sym(code, 0); got != sym {
			t.Errorf("key %d is %#x, not %#x", code, got, sym)
		}
	}
	key := uint32(k.Code('a'))
	have := 0
	for i := range 8 {
		if len(k.Modifier(i)) == 0 {
			continue
		}
		have++
		for _, state := range []uint32{1 << i, 1<<i | x11.ModShift, 0, 1 << i, 0} {
			d.send(v.id, wire.KeyPress{EventType: keyPress, Keycode: key, State: state})
			d.send(v.id, wire.KeyPress{EventType: keyPress + 1, Keycode: key, State: state})
			d.await(fmt.Sprintf("modifiers %#x after %d", state, i), func() bool { _, _, _, got, err := c.Pointer(); return err == nil && uint32(got)&0xff == state })
		}
	}
	if have < 5 {
		t.Errorf("the keyboard has %d modifiers", have)
	}
}

func TestLayoutArgs(t *testing.T) {
	for layout, want := range map[string]string{
		"us":                          "-rules evdev -model pc105 -layout us -option ",
		"de+nodeadkeys":               "-rules evdev -model pc105 -layout de -variant nodeadkeys -option ",
		"us,de++grp:alt_shift_toggle": "-rules evdev -model pc105 -layout us,de -option  -option grp:alt_shift_toggle",
		"":                            "",
		"-print":                      "",
		"us+-print":                   "",
		"us us":                       "",
		"+variant":                    "",
	} {
		args, err := layoutArgs(layout)
		if got := strings.Join(args, " "); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", layout, got, err)
		}
	}
}
