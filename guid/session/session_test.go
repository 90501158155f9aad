package session_test

import (
	"errors"
	"testing"
	"time"

	"cubicle/guid/session"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"

	"github.com/google/go-cmp/cmp"
)

// managers are the window managers under which everything must work; "" is
// none.
var managers = []string{"", "openbox", "xfwm4"}

func eachManager(t *testing.T, test func(t *testing.T, screen string)) {
	for _, name := range managers {
		title := name
		if title == "" {
			title = "none"
		}
		t.Run(title, func(t *testing.T) {
			screen := x11test.Start(t, 800, 600)
			if name != "" {
				x11test.StartWM(t, screen, name)
			}
			test(t, screen)
		})
	}
}

func title(text string) (m wire.WMName) {
	copy(m.Text[:], text)
	return m
}

func class(instance, name string) (m wire.WMClass) {
	copy(m.Name[:], instance)
	copy(m.Class[:], name)
	return m
}

func TestWindowShowsExactPixelsInItsLabelsColour(t *testing.T) {
	eachManager(t, func(t *testing.T, screen string) {
		a, u := connect(t, screen), newUser(t, screen)
		if a.conf != wire.NewXConf(800, 600, 24) {
			t.Errorf("the agent hears of screen %+v", a.conf)
		}
		a.show(1, wire.Create{X: 100, Y: 80, Width: 201, Height: 150}, 0x40,
			wire.WindowHints{Flags: wire.HintUSPosition}, title("hello \x1b[31m\u202eevil"), class("xterm", "XTerm"))
		frame := u.frame(1)
		x11test.Eventually(t, "content's place known to the agent", func() bool {
			_, g := u.content(frame)
			c, told := a.place(1)
			if !told {
				c = wire.Configure{X: 100, Y: 80, Width: 201, Height: 150}
			}
			return g == window.Geometry{X: int(c.X), Y: int(c.Y), Width: int(c.Width), Height: int(c.Height)}
		})
		_, g := u.content(frame)
		u.checkPixels(g, 201, 150, 0x40)

		want := map[string]string{
			"title":    "[work] hello _[31m___evil",
			"class":    "work:xterm\x00work:XTerm\x00",
			"vmname":   "work",
			"label":    "\x06",
			"color":    string([]byte{0xa4, 0x65, 0x34, 0}),
			"windowid": "\x01\x00\x00\x00",
		}
		got := map[string]string{
			"title":    u.text(frame, u.atoms["_NET_WM_NAME"]),
			"class":    u.text(frame, x11.AtomWMClass),
			"vmname":   u.text(frame, u.atoms["_QUBES_VMNAME"]),
			"label":    u.text(frame, u.atoms["_QUBES_LABEL"]),
			"color":    u.text(frame, u.atoms["_QUBES_LABEL_COLOR"]),
			"windowid": u.text(frame, u.atoms["_QUBES_VMWINDOWID"]),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}

		// What the qube draws later appears, and only where it says so.
		a.draw(4<<20, 201, 150, 0x80)
		a.send(1, wire.ShmImage{Width: 201, Height: 150})
		u.checkPixels(g, 201, 150, 0x80)

		a.send(1, wire.Unmap{}, wire.Destroy{})
		wait(a, 1, "the answer to DESTROY", any[wire.Destroy])
		if left := u.frames(); len(left) != 0 {
			t.Errorf("windows are left: %v", left)
		}
	})
}

func TestMenusAreFramedAndStayOnScreen(t *testing.T) {
	eachManager(t, func(t *testing.T, screen string) {
		a, u := connect(t, screen), newUser(t, screen)
		a.show(2, wire.Create{X: 700, Y: 550, Width: 200, Height: 120, OverrideRedirect: 1}, 0x20)
		frame := u.frame(2)
		info, err := u.Info(frame)
		if err != nil || !info.OverrideRedirect {
			t.Errorf("the menu has override-redirect %v, %v", info.OverrideRedirect, err)
		}
		_, g := u.content(frame)
		if g.X-border < 0 || g.Y-border < 0 || g.X+g.Width+border > 800 || g.Y+g.Height+border > 600 {
			t.Errorf("the menu's frame leaves the screen: %+v", g)
		}
		u.checkPixels(g, 200, 120, 0x20)
		wait(a, 2, "the menu's true place", func(c wire.Configure) bool { return int(c.X) == g.X && int(c.Y) == g.Y })
	})
}

func TestBorderlessWindowOverTheWholeScreenIsRefused(t *testing.T) {
	screen := x11test.Start(t, 800, 600)
	x11test.StartWM(t, screen, "openbox")
	a, u := connect(t, screen), newUser(t, screen)
	a.show(3, wire.Create{Width: 790, Height: 580, OverrideRedirect: 1}, 1)
	frame := u.frame(3)
	if info, err := u.Info(frame); err != nil || info.OverrideRedirect {
		t.Errorf("override-redirect %v, %v", info.OverrideRedirect, err)
	}
	a.show(4, wire.Create{X: 10, Y: 10, Width: 100, Height: 100, OverrideRedirect: 1}, 1)
	if info, err := u.Info(u.frame(4)); err != nil || !info.OverrideRedirect {
		t.Errorf("a small menu: override-redirect %v, %v", info.OverrideRedirect, err)
	}
	// Growing after it was mapped does not help.
	a.send(4, wire.Configure{X: 0, Y: 0, Width: 795, Height: 590})
	x11test.Eventually(t, "the grown menu loses override-redirect", func() bool {
		info, err := u.Info(u.frames()[4])
		return err == nil && !info.OverrideRedirect
	})
}

func TestBorderlessWindowStaysUnderTheLocker(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen), newUser(t, screen)
	locker, err := u.CreateWindow(u.Root(), 0, 0, 400, 300, x11.Attributes{OverrideRedirect: x11.Ptr(true), BackPixel: x11.Ptr[uint32](0)})
	if err != nil {
		t.Fatal(err)
	}
	u.SetText(locker, x11.AtomWMClass, x11.AtomString, "xscreensaver\x00XScreenSaver\x00")
	u.Map(locker)
	if err := u.Sync(); err != nil {
		t.Fatal(err)
	}
	a.show(1, wire.Create{X: 50, Y: 50, Width: 50, Height: 50, OverrideRedirect: 1}, 0xff, class("xscreensaver", "XScreenSaver"))
	u.frame(1)
	for _, p := range u.look(0, 0, 400, 300) {
		if p != 0 {
			t.Fatal("the menu can be seen above the locker")
		}
	}
}

func TestInputReachesTheWindow(t *testing.T) {
	eachManager(t, func(t *testing.T, screen string) {
		a, u := connect(t, screen), newUser(t, screen)
		keys, err := u.Keyboard()
		if err != nil {
			t.Fatal(err)
		}
		a.show(1, wire.Create{X: 60, Y: 60, Width: 200, Height: 150}, 1, wire.WindowHints{Flags: wire.HintUSPosition})
		a.show(2, wire.Create{X: 400, Y: 300, Width: 200, Height: 150}, 2, wire.WindowHints{Flags: wire.HintUSPosition})
		u.frame(2)
		_, g := u.content(u.frame(1))
		u.FakeMotion(g.X+17, g.Y+23)
		wait(a, 1, "the pointer's entry", func(m wire.Crossing) bool { return m.EventType == window.EnterNotify })
		u.FakeButton(1, true)
		u.FakeButton(1, false)
		wait(a, 1, "the button", func(m wire.Button) bool {
			return m.EventType == window.ButtonPress && m.X == 17 && m.Y == 23 && m.Button == 1
		})
		wait(a, 1, "the button's release", func(m wire.Button) bool {
			return m.EventType == window.ButtonRelease && m.State&0x100 != 0
		})
		wait(a, 1, "the focus", func(m wire.Focus) bool { return m.EventType == window.FocusIn })
		wait(a, 0, "the keys that are down", any[wire.KeymapNotify])
		u.FakeMotion(g.X+30, g.Y+40)
		wait(a, 1, "the motion", func(m wire.Motion) bool { return m.X == 30 && m.Y == 40 })

		shift, letter := keys.Code(0xffe1), keys.Code('a')
		if shift == 0 || letter == 0 {
			t.Fatal("the keyboard lacks keys")
		}
		u.FakeKey(shift, true)
		u.FakeKey(letter, true)
		u.FakeKey(letter, false)
		u.FakeKey(shift, false)
		wait(a, 1, "Shift+a", func(m wire.KeyPress) bool {
			return m.EventType == window.KeyPress && m.Keycode == uint32(letter) && m.State == x11.ModShift && m.X == 30 && m.Y == 40
		})
		wait(a, 1, "its release", func(m wire.KeyPress) bool {
			return m.EventType == window.KeyRelease && m.Keycode == uint32(letter)
		})
		if n := len(messages[wire.KeyPress](a, 2)); n != 0 {
			t.Errorf("%d keys reached the other window", n)
		}
		if len(u.words(u.frame(1), u.atoms["_NET_WM_USER_TIME"])) != 1 {
			t.Error("no user time")
		}
	})
}

func TestMoveAndResizeFromBothSides(t *testing.T) {
	eachManager(t, func(t *testing.T, screen string) {
		a, u := connect(t, screen), newUser(t, screen)
		a.show(1, wire.Create{X: 100, Y: 100, Width: 200, Height: 150}, 1, wire.WindowHints{Flags: wire.HintUSPosition})
		frame := u.frame(1)
		agrees := func(what string, width, height uint32) {
			t.Helper()
			x11test.Eventually(t, what, func() bool {
				_, g := u.content(frame)
				c, ok := a.place(1)
				return ok && c.Width == width && c.Height == height &&
					g == window.Geometry{X: int(c.X), Y: int(c.Y), Width: int(width), Height: int(height)}
			})
		}
		// The user resizes.
		u.MoveResize(frame, 50, 60, 300+2*border, 250+2*border)
		agrees("the user's size", 300, 250)
		// The qube moves and resizes; no answer of dom0 is due where dom0
		// gives it what it wants, so ask the screen.
		x11test.Eventually(t, "the qube's wish", func() bool {
			a.send(1, wire.Configure{X: 200, Y: 220, Width: 240, Height: 180})
			_, g := u.content(frame)
			return g == window.Geometry{X: 200, Y: 220, Width: 240, Height: 180}
		})
		a.draw(4<<20, 240, 180, 9)
		a.send(1, wire.WindowDump{Kind: wire.DumpRegion, Width: 240, Height: 180, BPP: 32, Offset: 4 << 20, Stride: 4 * 240}, wire.ShmImage{Width: 240, Height: 180})
		u.checkPixels(window.Geometry{X: 200, Y: 220, Width: 240, Height: 180}, 240, 180, 9)
	})
}

// A client that makes its window in steps (as xterm does) hears of none of
// them again: it would be small once more while it draws.
func TestWindowMadeInStepsKeepsItsSize(t *testing.T) {
	eachManager(t, func(t *testing.T, screen string) {
		a, u := connect(t, screen), newUser(t, screen)
		const windows = 12
		for id := wire.WindowID(1); id <= windows; id++ {
			a.send(id, wire.Create{X: 10, Y: 10, Width: 1, Height: 1}, wire.Configure{X: 10, Y: 10, Width: 10, Height: 17})
			if id%2 == 0 { // the steps do not come all at once
				time.Sleep(time.Duration(id) * time.Millisecond)
			}
			a.send(id, wire.Configure{X: 10, Y: 10, Width: 244, Height: 82}, wire.Map{})
			if id%3 == 0 { // and go on while it is being shown
				a.send(id, wire.Configure{X: 10, Y: 10, Width: 250, Height: 90}, wire.Configure{X: 10, Y: 10, Width: 244, Height: 82})
			}
		}
		for id := wire.WindowID(1); id <= windows; id++ {
			frame := u.frame(id)
			x11test.Eventually(t, "the window's size", func() bool {
				_, g := u.content(frame)
				return g.Width == 244 && g.Height == 82
			})
			// What comes later comes in order: an answer to this is the last.
			a.send(id, wire.Configure{X: 300, Y: 200, Width: 260, Height: 100})
			x11test.Eventually(t, "the new size", func() bool {
				_, g := u.content(frame)
				return g.Width == 260 && g.Height == 100
			})
			for _, c := range messages[wire.Configure](a, id) {
				if c.Width < 244 || c.Height < 82 {
					t.Errorf("window %d was told to be %d×%d", id, c.Width, c.Height)
				}
			}
		}
	})
}

func TestFullscreenBecomesMaximisedWithFrame(t *testing.T) {
	for _, wm := range []string{"openbox", "xfwm4"} {
		t.Run(wm, func(t *testing.T) {
			screen := x11test.Start(t, 800, 600)
			x11test.StartWM(t, screen, wm)
			a, u := connect(t, screen), newUser(t, screen)
			a.show(1, wire.Create{X: 100, Y: 100, Width: 200, Height: 150}, 1)
			frame := u.frame(1)
			a.send(1, wire.WindowFlags{Set: wire.FlagFullscreen})
			wait(a, 1, "the agent believes in full screen", func(m wire.WindowFlags) bool { return m.Set&wire.FlagFullscreen != 0 })
			if u.has(frame, "_NET_WM_STATE_FULLSCREEN") || !u.has(frame, "_NET_WM_STATE_MAXIMIZED_VERT") {
				t.Error("the window is not maximised instead of full screen")
			}
			a.send(1, wire.WindowFlags{Unset: wire.FlagFullscreen})
			wait(a, 1, "the end of full screen", func(m wire.WindowFlags) bool { return m.Unset&wire.FlagFullscreen != 0 })

			// The user's own full screen: the frame stays visible.
			u.ChangeState(frame, x11.StateAdd, u.atoms["_NET_WM_STATE_FULLSCREEN"], 0)
			wait(a, 1, "the size of the whole screen", func(m wire.Configure) bool { return m.Width == 800-2*border && m.Height == 600-2*border })
			a.draw(4<<20, 792, 592, 5)
			a.send(1, wire.WindowDump{Kind: wire.DumpRegion, Width: 792, Height: 592, BPP: 32, Offset: 4 << 20, Stride: 4 * 792}, wire.ShmImage{Width: 792, Height: 592})
			u.checkPixels(window.Geometry{X: border, Y: border, Width: 792, Height: 592}, 792, 592, 5)
		})
	}
}

func (u *user) has(w x11.Window, state string) bool {
	for _, word := range u.words(w, u.atoms["_NET_WM_STATE"]) {
		if x11.Atom(word) == u.atoms[state] {
			return true
		}
	}
	return false
}

func TestCloseAsksTheQube(t *testing.T) {
	for _, wm := range []string{"openbox", "xfwm4"} {
		t.Run(wm, func(t *testing.T) {
			screen := x11test.Start(t, 400, 300)
			x11test.StartWM(t, screen, wm)
			a, u := connect(t, screen), newUser(t, screen)
			a.show(1, wire.Create{Width: 100, Height: 100}, 1)
			frame := u.frame(1)
			u.SendClientMessage(u.Root(), frame, u.atoms["_NET_CLOSE_WINDOW"], x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect, [5]uint32{0, 2})
			wait(a, 1, "CLOSE", any[wire.Close])
		})
	}
}

func TestTransientForOnlyOwnWindows(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen), newUser(t, screen)
	a.show(1, wire.Create{Width: 100, Height: 100}, 1)
	a.send(2, wire.Create{Width: 50, Height: 50}, wire.Map{TransientFor: 1})
	a.send(3, wire.Create{Width: 50, Height: 50}, wire.Map{TransientFor: uint32(u.Root())})
	f1, f2, f3 := u.frame(1), u.frame(2), u.frame(3)
	if got := u.words(f2, x11.AtomWMTransientFor); len(got) != 1 || got[0] != uint32(f1) {
		t.Errorf("transient for %#x, want %#x", got, f1)
	}
	if got := u.words(f3, x11.AtomWMTransientFor); got != nil {
		t.Errorf("transient for a window of dom0: %#x", got)
	}
	// A cycle is refused.
	a.send(1, wire.Unmap{}, wire.Map{TransientFor: 2}, wire.Destroy{})
	wait(a, 1, "the end of the window", any[wire.Destroy])
	x11test.Eventually(t, "the reference is gone", func() bool { return u.words(f2, x11.AtomWMTransientFor) == nil })
}

func TestOffencesEndTheirSessionAlone(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	u := newUser(t, screen)
	good := connect(t, screen)
	good.show(9, wire.Create{X: 300, Y: 200, Width: 50, Height: 50, OverrideRedirect: 1}, 7)
	_, place := u.content(u.frame(9))

	ok := wire.Create{X: 10, Y: 10, Width: 100, Height: 100}
	dump := wire.WindowDump{Kind: wire.DumpRegion, Width: 100, Height: 100, BPP: 32, Stride: 400}
	changed := func(f func(*wire.WindowDump)) wire.WindowDump { d := dump; f(&d); return d }
	raw := func(h wire.Header, body ...byte) []byte { return append(h.AppendTo(nil), body...) }
	made := wire.Append(nil, 1, ok)
	after := func(m wire.Message) []byte { return wire.Append(append([]byte(nil), made...), 1, m) }
	for name, bytes := range map[string][]byte{
		"unknown window":            wire.Append(nil, 5, wire.Map{}),
		"window created twice":      after(ok),
		"window destroyed twice":    append(after(wire.Destroy{}), wire.Append(nil, 1, wire.Destroy{})...),
		"no such type":              raw(wire.Header{Type: 77, Window: 1}),
		"a message of the daemon":   append(made, wire.Append(nil, 1, wire.Close{})...),
		"machine frame numbers":     append(made, raw(wire.Header{Type: wire.TypeMFNDump, Window: 1, Len: 28}, make([]byte, 28)...)...),
		"wrong length":              raw(wire.Header{Type: wire.TypeCreate, Window: 1, Len: 4}, 0, 0, 0, 0),
		"window without a size":     wire.Append(nil, 1, wire.Create{}),
		"window of 2^31 pixels":     wire.Append(nil, 1, wire.Create{Width: 1 << 31, Height: 1}),
		"configured to nothing":     after(wire.Configure{Width: 0, Height: 5}),
		"unknown kind of dump":      append(append([]byte(nil), made...), raw(wire.Header{Type: wire.TypeWindowDump, Window: 1, Len: 16}, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0)...),
		"offset outside the region": after(changed(func(d *wire.WindowDump) { d.Offset = regionSize })),
		"image past the region":     after(changed(func(d *wire.WindowDump) { d.Offset = regionSize - 400*100 + 4 })),
		"offset that overflows":     after(changed(func(d *wire.WindowDump) { d.Offset = ^uint64(0) - 3 })),
		"odd offset":                after(changed(func(d *wire.WindowDump) { d.Offset = 2 })),
		"short stride":              after(changed(func(d *wire.WindowDump) { d.Stride = 396 })),
		"huge stride":               after(changed(func(d *wire.WindowDump) { d.Stride = 0xfffffffc })),
		"image of 2^31 rows":        after(changed(func(d *wire.WindowDump) { d.Height = 1 << 31 })),
		"empty image":               after(changed(func(d *wire.WindowDump) { d.Width = 0 })),
		"grants without Xen":        after(wire.WindowDump{Width: 1, Height: 1, BPP: 32, Grants: []uint32{8}}),
		"no such cursor":            after(wire.Cursor{Cursor: 0x19a}),
		"contradicting flags":       after(wire.WindowFlags{Set: 1, Unset: 1}),
		"clipboard of a megabyte":   raw(wire.Header{Type: wire.TypeClipboardData, Len: 1 << 20}),
	} {
		t.Run(name, func(t *testing.T) {
			bad := connect(t, screen)
			bad.conn.Write(bytes)
			err := bad.end()
			var offence *window.OffenceError
			var protocol *wire.ProtocolError
			if !errors.As(err, &offence) && !errors.As(err, &protocol) {
				t.Fatalf("the session ended with %v", err)
			}
			t.Log(err)
		})
	}
	if left := u.frames(); len(left) != 1 {
		t.Errorf("%d windows are left, want the good qube's one", len(left))
	}
	u.checkPixels(place, 50, 50, 7)
}

func TestAbsurdNumbersAreBoundedNotBelieved(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen), newUser(t, screen)
	a.show(1, wire.Create{X: 20, Y: 20, Width: 100, Height: 100}, 3, wire.WindowHints{Flags: wire.HintUSPosition})
	_, g := u.content(u.frame(1))
	for _, m := range []wire.Message{
		wire.ShmImage{X: -1, Y: 0, Width: 5, Height: 5},
		wire.ShmImage{X: 0, Y: 0, Width: 1 << 31, Height: 5},
		wire.ShmImage{X: 1<<31 - 1, Y: 1<<31 - 1, Width: 1<<31 - 1, Height: 1<<31 - 1},
		wire.ShmImage{Width: 1<<31 - 1, Height: 1<<31 - 1},
		wire.WindowHints{Flags: ^uint32(0)},
		wire.WindowHints{Flags: ^uint32(0), MinWidth: 500, MinHeight: 500, MaxWidth: 1, MaxHeight: 1, WidthInc: ^uint32(0), BaseWidth: ^uint32(0)},
		wire.WindowFlags{Set: 0xfffffff8},
		wire.ClipboardData{Data: []byte("nobody asked")},
		wire.Cursor{Cursor: 0x199}, wire.Cursor{Cursor: 0x198}, wire.Cursor{},
		wire.Dock{}, wire.Map{}, title(string(make([]byte, 128))),
	} {
		a.send(1, m)
	}
	a.send(2, wire.Create{X: -1 << 31, Y: 1<<31 - 1, Width: 1<<31 - 1, Height: 1<<31 - 1}, wire.Map{}, wire.Destroy{})
	wait(a, 2, "the end of the giant", any[wire.Destroy])
	a.send(1, wire.ShmImage{Width: 100, Height: 100})
	u.checkPixels(g, 100, 100, 3)
}

func TestExposedPixelsComeBack(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen), newUser(t, screen)
	a.show(1, wire.Create{X: 20, Y: 20, Width: 100, Height: 100}, 3, wire.WindowHints{Flags: wire.HintUSPosition})
	_, g := u.content(u.frame(1))
	u.checkPixels(g, 100, 100, 3)
	cover, err := u.CreateWindow(u.Root(), 0, 0, 400, 300, x11.Attributes{OverrideRedirect: x11.Ptr(true), BackPixel: x11.Ptr[uint32](0)})
	if err != nil {
		t.Fatal(err)
	}
	u.Map(cover)
	if p := u.look(g.X, g.Y, 1, 1)[0]; p != 0 {
		t.Fatalf("the cover does not cover: %#x", p)
	}
	u.Destroy(cover)
	u.checkPixels(g, 100, 100, 3)
}

func TestLossOfTheDisplayEndsTheSession(t *testing.T) {
	screen, server := x11test.StartServer(t, 400, 300)
	a := connect(t, screen)
	a.show(1, wire.Create{Width: 100, Height: 100}, 1)
	server.Kill()
	if err := a.end(); !errors.Is(err, session.ErrDisplayLost) {
		t.Errorf("the session ended with %v", err)
	}
}

func TestEndOfTheAgentIsNoFailure(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen), newUser(t, screen)
	a.show(1, wire.Create{Width: 100, Height: 100}, 1)
	a.conn.Close()
	if err := a.end(); err != nil {
		t.Errorf("the session ended with %v", err)
	}
	x11test.Eventually(t, "the windows vanish", func() bool { return len(u.frames()) == 0 })
}
