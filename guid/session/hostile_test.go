package session_test

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"cubicle/guid/session"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

func impatient(cfg *session.Config) { cfg.Patience = time.Second }

// Spec §18.31 and the handshake: silence where something is due.
func TestSilenceWhereSomethingIsDueEndsTheSession(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	version := []byte{8, 0, 1, 0}
	create := wire.Append(nil, 1, wire.Create{Width: 50, Height: 50})
	dump := wire.Append(nil, 1, wire.WindowDump{Width: 16384, Height: 6144, BPP: 32, Grants: make([]uint32, wire.MaxGrants)})
	agents := make(map[string]*agent) // all wait at once
	for name, bytes := range map[string][]byte{
		"nothing at all":                  nil,
		"half a version":                  version[:2],
		"one byte of a header":            append(slices.Clone(version), create[0]),
		"a header alone":                  append(slices.Clone(version), create[:wire.HeaderSize]...),
		"all but the last byte":           append(slices.Clone(version), create[:len(create)-1]...),
		"a dump that promises 98304 refs": append(slices.Concat(version, create), dump[:wire.HeaderSize+20]...),
	} {
		agents[name] = start(t, screen, impatient)
		agents[name].conn.Write(bytes)
	}
	for name, a := range agents {
		if err := a.end(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the session ended with %v", name, err)
		}
	}
}

func TestSilenceBetweenMessagesMayLast(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen, impatient), newUser(t, screen)
	a.show(1, wire.Create{X: 20, Y: 20, Width: 50, Height: 50}, 1)
	time.Sleep(1500 * time.Millisecond) // more than the patience within a message
	a.send(1, wire.Destroy{})
	wait(a, 1, "the answer after a silence", any[wire.Destroy])
	if left := u.frames(); len(left) != 0 {
		t.Errorf("windows are left: %v", left)
	}
}

// Half a message stalls nobody: events of the screen still reach the agent.
func TestHalfAMessageStallsNothing(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a, u := connect(t, screen), newUser(t, screen)
	a.show(1, wire.Create{X: 100, Y: 100, Width: 100, Height: 100}, 1, wire.WindowHints{Flags: wire.HintUSPosition})
	_, g := u.content(u.frame(1))
	a.conn.Write(wire.Append(nil, 1, wire.WMName{})[:40])
	u.FakeMotion(g.X+5, g.Y+6)
	wait(a, 1, "the pointer", func(m wire.Crossing) bool { return m.EventType == window.EnterNotify })
}

func TestOtherMajorVersionIsRefused(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	for name, bytes := range map[string][]byte{"a later one": {8, 0, 2, 0}, "an older one": {8, 0, 0, 0}, "garbage": {0xff, 0xff, 0xff, 0xff}} {
		t.Run(name, func(t *testing.T) {
			a := start(t, screen)
			a.conn.Write(bytes)
			var version *wire.VersionError
			if err := a.end(); !errors.As(err, &version) {
				t.Errorf("the session ended with %v", err)
			}
		})
	}
}

// Spec §18.30: an agent that makes dom0 answer and never reads.
func TestAgentThatDoesNotReadLosesItsSession(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a := start(t, screen, func(cfg *session.Config) { cfg.QueueLimit = 1 << 16 })
	if _, _, err := wire.AgentHandshake(a.conn); err != nil {
		t.Fatal(err)
	}
	a.send(1, wire.Create{Width: 50, Height: 50}, wire.Dock{})
	go func() {
		var b []byte
		for range 1000 {
			b = wire.Append(b, 1, wire.Configure{Width: 9, Height: 9}) // a tray icon's size is dom0's
		}
		for {
			if _, err := a.conn.Write(b); err != nil {
				return
			}
		}
	}()
	if err := a.end(); !errors.Is(err, wire.ErrQueueFull) {
		t.Errorf("the session ended with %v", err)
	}
}

func TestTenThousandWindows(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	u := newUser(t, screen)
	good := connect(t, screen)
	good.show(7, wire.Create{X: 300, Y: 200, Width: 50, Height: 50, OverrideRedirect: 1}, 7)
	bad := connect(t, screen)
	go func() {
		for id := range wire.WindowID(10_000) {
			bad.send(100+id, wire.Create{X: 5, Y: 5, Width: 30, Height: 30})
		}
	}()
	var offence *window.OffenceError
	if err := bad.end(); !errors.As(err, &offence) {
		t.Fatalf("the session ended with %v", err)
	}
	x11test.Eventually(t, "only the good qube's window is left", func() bool { return len(u.frames()) == 1 })
	_, g := u.content(u.frame(7))
	u.checkPixels(g, 50, 50, 7)
}

// A compositor keeps the pixels of all visible windows.
func TestVisiblePixelsAreLimited(t *testing.T) {
	screen := x11test.Start(t, 400, 300)
	a := connect(t, screen)
	for id := range wire.WindowID(4) {
		a.send(id, wire.Create{Width: wire.MaxWindowWidth, Height: wire.MaxWindowHeight}, wire.Map{})
	}
	var offence *window.OffenceError
	if err := a.end(); !errors.As(err, &offence) {
		t.Fatalf("the session ended with %v", err)
	}
}

// Spec §18.12: many borderless windows that cover the screen together.
func TestBorderlessWindowsCoverLittleTogether(t *testing.T) {
	screen := x11test.Start(t, 800, 600)
	x11test.StartWM(t, screen, "openbox")
	a, u := connect(t, screen), newUser(t, screen)
	for i := range 4 { // four quarters, each within the limit
		a.show(wire.WindowID(i+1), wire.Create{X: int32(i%2*400 + border), Y: int32(i/2*300 + border), Width: 400 - 2*border, Height: 300 - 2*border, OverrideRedirect: 1}, byte(i))
	}
	borderless := 0
	for id := range wire.WindowID(4) {
		if info, err := u.Info(u.frame(id + 1)); err == nil && info.OverrideRedirect {
			borderless++
		}
	}
	if borderless != 3 {
		t.Errorf("%d quarters of the screen are covered by borderless windows, want 3", borderless)
	}
}

// floods are what a hostile agent may do for ever. Window 1 is a visible one.
var floods = map[string]func(round int) []byte{
	"SHMIMAGE": func(int) []byte {
		return wire.Append(nil, 1, wire.ShmImage{Width: 600, Height: 400})
	},
	"WMNAME": func(round int) []byte {
		m := wire.WMName{}
		copy(m.Text[:], time.Duration(round).String())
		return wire.Append(nil, 1, m)
	},
	"CONFIGURE": func(round int) []byte {
		return wire.Append(nil, 1, wire.Configure{X: int32(round % 50), Y: int32(round % 70), Width: uint32(500 + round%100), Height: uint32(300 + round%90)})
	},
	"attention": func(round int) []byte {
		return wire.Append(wire.Append(nil, 1, wire.WindowFlags{Set: wire.FlagDemandsAttention}), 1, wire.WindowFlags{Unset: wire.FlagDemandsAttention})
	},
	"windows that come and go": func(round int) []byte {
		id := wire.WindowID(round + 100)
		b := wire.Append(nil, id, wire.Create{Width: 300, Height: 200})
		return wire.Append(wire.Append(b, id, wire.Map{}), id, wire.Destroy{})
	},
	"windows shown and hidden": func(int) []byte {
		return wire.Append(wire.Append(nil, 1, wire.Unmap{}), 1, wire.Map{})
	},
	"class and hints": func(round int) []byte {
		return wire.Append(nil, 1, wire.WindowHints{Flags: wire.HintPMinSize, MinWidth: uint32(round % 300), MinHeight: 10})
	},
	"clipboards that nobody asked for": func(int) []byte {
		return wire.Append(nil, 1, wire.ClipboardData{Data: make([]byte, wire.MaxClipboard)})
	},
}

// slower is how many times slower than on a calm desktop another qube may
// become while one floods. Without limits it is hundreds of times.
const slower = 25

// A flooding qube slows itself: another one's pixels and keys go on.
func TestFloodSlowsTheFloodingQubeAlone(t *testing.T) {
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			screen := x11test.Start(t, 1280, 800)
			x11test.StartWM(t, screen, "openbox")
			u := newUser(t, screen)
			bad, good := connect(t, screen), connect(t, screen)
			bad.show(1, wire.Create{X: 20, Y: 20, Width: 600, Height: 400}, 1, wire.WindowHints{Flags: wire.HintUSPosition})
			good.show(9, wire.Create{X: 800, Y: 500, Width: 200, Height: 150, OverrideRedirect: 1}, 9)
			_, place := u.content(u.frame(9))
			good.show(8, wire.Create{X: 900, Y: 100, Width: 50, Height: 50}, 8)
			normal := u.frame(8)
			calm := good.speed(u, place, normal)

			stop := make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for round := 0; ; {
					var b []byte
					for len(b) < 1<<14 {
						b = append(b, flood(round)...)
						round++
					}
					if _, err := bad.conn.Write(b); err != nil {
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			}()
			time.Sleep(300 * time.Millisecond) // let it build up
			flooded := good.speed(u, place, normal)
			close(stop)
			bad.conn.Close()
			<-done
			t.Logf("calm %+v, flooded %+v", calm, flooded)
			for _, c := range [][2]time.Duration{{calm.pixels, flooded.pixels}, {calm.presses, flooded.presses}, {calm.wishes, flooded.wishes}} {
				if c[1] > slower*max(c[0], time.Millisecond) {
					t.Errorf("the flood slows another qube down from %v to %v", c[0], c[1])
				}
			}
		})
	}
}

// speeds are medians of how long another qube's pixels (window 9) take to the
// screen, a press of the pointer's button over them to the agent, and a
// user's wish about a normal window (8) through the window manager.
type speeds struct{ pixels, presses, wishes time.Duration }

func (a *agent) speed(u *user, place window.Geometry, normal x11.Window) speeds {
	a.t.Helper()
	const rounds = 9
	var drawn, pressed, wished []time.Duration
	timed := func(to *[]time.Duration, what string, begin func(), ok func() bool) {
		start := time.Now()
		begin()
		x11test.Eventually(a.t, what, ok)
		*to = append(*to, time.Since(start))
	}
	u.FakeMotion(place.X+20, place.Y+20)
	for range rounds {
		a.shade++
		a.draw(9*4<<20, 200, 150, a.shade)
		timed(&drawn, "the drawing",
			func() { a.send(9, wire.ShmImage{Width: 200, Height: 150}) },
			func() bool { return u.look(place.X, place.Y, 1, 1)[0] == pixel(0, 0, a.shade) })
		before := len(messages[wire.Button](a, 9))
		timed(&pressed, "the button",
			func() { u.FakeButton(1, true); u.FakeButton(1, false) },
			func() bool { return len(messages[wire.Button](a, 9)) >= before+2 })
		width := 100 + int(a.shade)
		timed(&wished, "the window manager",
			func() { u.MoveResize(normal, 900, 100, width, 100) },
			func() bool { c, ok := a.place(8); return ok && int(c.Width) == width-2*border })
	}
	median := func(d []time.Duration) time.Duration { slices.Sort(d); return d[rounds/2] }
	return speeds{median(drawn), median(pressed), median(wished)}
}

// A window that the manager has missed while it started comes under its
// control.
func TestWindowOfAStartingWindowManagerIsManaged(t *testing.T) {
	screen := x11test.Start(t, 800, 600)
	a, u := connect(t, screen), newUser(t, screen)
	state, err := u.Atom("WM_STATE")
	if err != nil {
		t.Fatal(err)
	}
	// One that takes the window's request with it.
	deaf := x11test.Dial(t, screen)
	if err := deaf.SelectInput(deaf.Root(), x11.MaskSubstructureRedirect); err != nil {
		t.Fatal(err)
	}
	a.show(1, wire.Create{X: 50, Y: 50, Width: 100, Height: 100}, 1)
	deaf.Close()
	x11test.StartWM(t, screen, "openbox")
	x11test.Eventually(t, "the window is managed", func() bool {
		frame := u.frames()[1]
		if frame == 0 {
			return false
		}
		p, err := u.GetProperty(frame, state, x11.AtomAny, 8)
		return err == nil && p.Type == state
	})
}
