package gui

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

func TestTerminalShowsInDom0(t *testing.T) {
	display, _ := startX(t)
	s := startAgent(t)
	d := connect(t, s, 1920, 1080)
	run(t, "xterm", "-T", "Töst", "-geometry", "80x24")
	w := d.awaitWindow("terminal", titled("Töst"))
	if w.class != "XTerm" || w.name != "xterm" {
		t.Errorf("class %q, name %q", w.class, w.name)
	}
	if w.hints.Flags&wire.HintPResizeInc == 0 || w.hints.WidthInc == 0 {
		t.Errorf("hints %+v tell no increment", w.hints)
	}
	if w.mapped.OverrideRedirect != 0 || w.mapped.TransientFor != 0 {
		t.Errorf("mapped as %+v", w.mapped)
	}
	x := dialX(t, display)
	d.awaitSame(x, w)
	if n := d.colours(w); n < 2 {
		t.Errorf("%d colours: nothing is drawn", n)
	}
}

func TestTypedKeysArrive(t *testing.T) {
	display, _ := startX(t)
	s := startAgent(t)
	d := connect(t, s, 1920, 1080)
	file := filepath.Join(t.TempDir(), "typed")
	run(t, "xterm", "-T", "typing", "-e", "sh", "-c", "stty -echo; read line; echo \"$line\" > "+file+"; sleep 100")
	w := d.awaitWindow("terminal", titled("typing"))
	x := dialX(t, display)
	k, err := x.Keyboard()
	if err != nil {
		t.Fatal(err)
	}
	d.configure(w, 100, 100, w.place.Width, w.place.Height)
	d.send(w.id, wire.Focus{EventType: focusIn})
	key := func(sym x11.Keysym, state uint32) {
		for _, kind := range []uint32{keyPress, keyPress + 1} {
			d.send(w.id, wire.KeyPress{EventType: kind, X: 5, Y: 5, State: state, Keycode: uint32(k.Code(sym))})
		}
	}
	// Modifiers are told by the state alone: capitals, then none, then Lock.
	for _, c := range "Hi" {
		state := uint32(0)
		if c < 'a' {
			state, c = x11.ModShift, c+'a'-'A'
		}
		key(x11.Keysym(c), state)
	}
	key('x', x11.ModLock)
	key('y', 0)
	// A held key: dom0's server repeats the press.
	for range 3 {
		d.send(w.id, wire.KeyPress{EventType: keyPress, Keycode: uint32(k.Code('z'))})
	}
	// Its release is lost; dom0's next keymap shows it up.
	d.send(0, wire.KeymapNotify{})
	key(0xff0d, 0) // Return
	want := "HiXyzzz\n"
	d.await("line typed", func() bool {
		b, _ := os.ReadFile(file)
		if len(b) > 0 && string(b) != want {
			t.Fatalf("typed %q, want %q", b, want)
		}
		return len(b) > 0
	})
	down, err := x.KeysDown()
	if err != nil || down != [32]byte{} {
		t.Errorf("keys still down: %v, %v", down, err)
	}
}

func TestMenuIsOverrideRedirectWhereItBelongs(t *testing.T) {
	display, _ := startX(t)
	s := startAgent(t)
	d := connect(t, s, 1920, 1080)
	run(t, "xterm", "-T", "menus")
	w := d.awaitWindow("terminal", titled("menus"))
	d.configure(w, 300, 200, w.place.Width, w.place.Height)
	d.send(w.id, wire.Crossing{EventType: enterNotify, X: 50, Y: 60})
	d.send(w.id, wire.Focus{EventType: focusIn})
	d.send(w.id, wire.Motion{X: 50, Y: 60})
	x := dialX(t, display)
	k, err := x.Keyboard()
	if err != nil {
		t.Fatal(err)
	}
	ctrl := uint32(k.Modifier(2)[0])
	d.send(w.id, wire.KeyPress{EventType: keyPress, Keycode: ctrl})
	d.send(w.id, wire.Button{EventType: buttonPress, X: 50, Y: 60, State: x11.ModControl, Button: 1})
	menu := d.awaitWindow("menu", func(v *view) bool { return v.mapped.OverrideRedirect != 0 })
	if p := menu.place; p.X > 350 || p.Y > 260 || p.X+int32(p.Width) < 350 || p.Y+int32(p.Height) < 260 {
		t.Errorf("the menu is at %+v, not at the pointer (350, 260)", p)
	}
	d.awaitSame(x, menu)
	d.send(w.id, wire.Button{EventType: buttonPress + 1, X: 50, Y: 60, State: x11.ModControl, Button: 1})
	d.await("end of the menu", func() bool { return menu.mapped == nil })
}

func TestResizingByDom0(t *testing.T) {
	display, _ := startX(t)
	s := startAgent(t)
	d := connect(t, s, 1920, 1080)
	run(t, "xclock", "-digital", "-title", "clock", "-update", "1")
	w := d.awaitWindow("clock", titled("clock"))
	x := dialX(t, display)
	for i := range uint32(20) {
		d.configure(w, int32(10*i), 40, 300+7*i, 200+3*i)
	}
	d.awaitSame(x, w)
	if w.dump.Width != 300+7*19 || w.dump.Height != 200+3*19 {
		t.Errorf("dumped %d×%d", w.dump.Width, w.dump.Height)
	}
	g, err := x.Geometry(x11.Drawable(w.id))
	if err != nil || g.X != 190 || g.Y != 40 || g.Width != 433 {
		t.Errorf("in the qube it is at %+v, %v", g, err)
	}
	// A place that is the present one is answered, too.
	d.configure(w, 190, 40, 433, 257)
}

func TestReconnectTellsAllAgain(t *testing.T) {
	display, _ := startX(t)
	s := startAgent(t)
	d := connect(t, s, 1920, 1080)
	run(t, "xterm", "-T", "stays")
	run(t, "xclock", "-title", "clock")
	d.awaitWindow("terminal", titled("stays"))
	d.awaitWindow("clock", titled("clock"))
	d.conn.Close()

	d = connect(t, s, 1920, 1080)
	x := dialX(t, display)
	for _, name := range []string{"stays", "clock"} {
		w := d.awaitWindow(name, titled(name))
		d.awaitSame(x, w)
		if w.dumps != 1 || w.maps != 1 {
			t.Errorf("%s: %d dumps, %d maps", name, w.dumps, w.maps)
		}
	}
}

func TestClosing(t *testing.T) {
	startX(t)
	s := startAgent(t)
	d := connect(t, s, 1920, 1080)
	term := run(t, "xterm", "-T", "polite")
	w := d.awaitWindow("terminal", titled("polite"))
	// xterm does nothing about it before its shell has started: click again.
	var asked time.Time
	d.await("end of the terminal", func() bool {
		if d.gone[w.id] == 0 && time.Since(asked) > 200*time.Millisecond {
			d.send(w.id, wire.Close{})
			asked = time.Now()
		}
		return d.gone[w.id] == 1
	})
	if err := term.Wait(); err != nil && !strings.Contains(err.Error(), "exit status") {
		t.Errorf("the terminal ended by %v", err)
	}
}

func TestScreenFollowsDom0(t *testing.T) {
	display, grows := startX(t)
	if !grows {
		t.Skip("Xvfb cannot resize its screen")
	}
	s := startAgent(t)
	x := dialX(t, display)
	var d *daemon
	for i, size := range [][2]int{{2560, 1440}, {1280, 800}, {3840, 2160}, {1920, 1200}, {2560, 1600}} {
		if i < 3 {
			if d != nil {
				d.conn.Close()
			}
			d = connect(t, s, uint32(size[0]), uint32(size[1])) // told by the handshake
		} else {
			d.send(0, wire.Resize{Width: uint32(size[0]), Height: uint32(size[1])})
		}
		deadline := time.Now().Add(patience)
		for {
			g, err := x.Geometry(x11.Drawable(x.Root()))
			if err != nil {
				t.Fatal(err)
			}
			if g.Width == size[0] && g.Height == size[1] {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the screen is %d×%d, not %v", g.Width, g.Height, size)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	startX(t)
	s := startAgent(t)
	connect(t, s, 1920, 1080)
	err := Run(context.Background(), switchboard{}, Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err == nil || !strings.Contains(err.Error(), "another window manager or GUI agent runs on this display") {
		t.Errorf("a second agent gets %v", err)
	}
}
