package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/app/dom0/dom0test"
	"cubicle/daemon/qube"
	"cubicle/guid/screen"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

const wide, high = 1000, 640

// patience bounds every wait: far above what a loaded machine needs.
const patience = 90 * time.Second

// rig is the tray on a screen with a window manager, and the daemon's face
// behind it.
type rig struct {
	t        *testing.T
	x        *x11.Conn
	screen   *screen.Screen
	address  string
	display  string
	session  *dbus.Conn
	service  *dom0test.Service
	ids      map[string]string // of the qubes
	asked    []string
	pictures string
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func start(t *testing.T, look string, before func(r *rig)) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an X server")
	}
	r := &rig{t: t, pictures: os.Getenv("CUBICLE_PICTURES")}
	folder := t.TempDir()
	program := filepath.Join(folder, "qubes-tray")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	manager := filepath.Join(folder, "manager")
	if err := os.WriteFile(manager, []byte("#!/bin/sh\ntouch "+folder+"/opened\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	address, stop, err := dom0test.StartBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	r.address = address
	if r.service, err = dom0test.Serve(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.service.Close() })
	r.service.Step = 20 * time.Millisecond
	r.service.Add("debian-12", qube.TemplateVM, "black", "")
	r.ids = map[string]string{"vault": r.service.Add("vault", qube.AppVM, "black", "debian-12")}
	for name, labelName := range map[string]string{"work": "blue", "untrusted": "red", "personal": "yellow"} {
		id := r.service.Add(name, qube.AppVM, labelName, "debian-12")
		r.ids[name] = id
		r.service.Set(id, map[string]any{"State": "Running", "XID": int32(0x8000), "MemoryUsed": uint64(412 << 20)})
	}
	if r.session, err = dbus.Connect(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.session.Close() })
	display := x11test.Start(t, wide, high)
	x11test.StartWM(t, display, "openbox")
	r.display = display
	r.x = x11test.Dial(t, display)
	if err := r.x.InitXTest(); err != nil {
		t.Fatal(err)
	}
	if r.screen, err = screen.Open(display); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.screen.Close)
	if err := r.screen.SetBackground(); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(r)
	}
	tray := exec.Command(program, "--bus", address, "--manager", manager)
	tray.Env = append(os.Environ(), "DISPLAY="+display, "HOME="+folder, "XDG_CONFIG_HOME="+folder, "XDG_CACHE_HOME="+folder,
		"FYNE_THEME="+look, "DBUS_SESSION_BUS_ADDRESS="+address)
	var log bytes.Buffer
	tray.Stdout, tray.Stderr = &log, &log
	if err := tray.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			r.shot("failed-" + look)
		}
		tray.Process.Signal(os.Interrupt)
		end := time.AfterFunc(patience, func() { tray.Process.Kill() })
		defer end.Stop()
		if err := tray.Wait(); err != nil {
			t.Errorf("qubes-tray: %v", err)
		}
		if t.Failed() {
			t.Logf("qubes-tray said:\n%s", log.String())
		}
	})
	return r
}

// count is the number of pixels of exactly that colour in a rectangle.
func (r *rig) count(at image.Rectangle, rgb uint32) (n int) {
	r.t.Helper()
	at = at.Intersect(image.Rect(0, 0, wide, high))
	if at.Empty() {
		return 0
	}
	data, err := r.x.Image(x11.Drawable(r.x.Root()), at.Min.X, at.Min.Y, at.Dx(), at.Dy())
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+3 < len(data); i += 4 {
		if binary.LittleEndian.Uint32(data[i:])&0xffffff == rgb {
			n++
		}
	}
	return n
}

// find is the middle of the pixels of a colour in a rectangle.
func (r *rig) find(at image.Rectangle, rgb uint32) image.Point {
	r.t.Helper()
	var sum image.Point
	n := 0
	for x := at.Min.X; x < at.Max.X; x++ {
		if c := r.count(image.Rect(x, at.Min.Y, x+1, at.Max.Y), rgb); c > 0 {
			sum, n = sum.Add(image.Pt(x, 0)), n+1
		}
	}
	if n == 0 {
		r.t.Fatalf("no pixel of colour %06x in %v", rgb, at)
	}
	return image.Pt(sum.X/n, (at.Min.Y+at.Max.Y)/2)
}

func (r *rig) click(p image.Point) {
	r.t.Helper()
	r.x.FakeMotion(p.X, p.Y)
	if err := r.x.Sync(); err != nil {
		r.t.Fatal(err)
	}
	// A widget takes the pointer's place from a frame of its window.
	time.Sleep(100 * time.Millisecond)
	r.x.FakeButton(1, true)
	r.x.FakeButton(1, false)
	if err := r.x.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

// Keys.
const (
	up     x11.Keysym = 0xff52
	down   x11.Keysym = 0xff54
	enter  x11.Keysym = 0xff0d
	escape x11.Keysym = 0xff1b
	tab    x11.Keysym = 0xff09
)

func (r *rig) keys(list ...x11.Keysym) {
	r.t.Helper()
	keyboard, err := r.x.Keyboard()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, k := range list {
		r.x.FakeKey(keyboard.Code(k), true)
		r.x.FakeKey(keyboard.Code(k), false)
		if err := r.x.Sync(); err != nil {
			r.t.Fatal(err)
		}
		// GLFW takes two presses in one millisecond for one.
		time.Sleep(30 * time.Millisecond)
	}
}

// menu waits for a menu that is drawn and has the keyboard.
func (r *rig) menu() image.Rectangle {
	r.t.Helper()
	return r.settle("Cubicle menu")
}

func (r *rig) noMenu() bool { _, open := r.window("Cubicle menu"); return !open }

// settle waits until a window has its size, is drawn and has the keyboard.
func (r *rig) settle(title string) (bounds image.Rectangle) {
	r.t.Helper()
	eventually(r.t, title+" with the keyboard", func() bool {
		windows, err := r.screen.Windows()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, w := range windows {
			p, err := r.x.GetProperty(w.ID, x11.AtomWMName, x11.AtomAny, 256)
			if err != nil || string(p.Data) != title || w.Bounds.Dy() < 60 {
				continue
			}
			focus, err := r.x.InputFocus()
			drawn, err2 := r.screen.IsDrawn(w)
			bounds = w.Bounds
			return err == nil && err2 == nil && focus == w.ID && drawn
		}
		return false
	})
	return bounds
}

// calls are all that the daemon was asked so far.
func (r *rig) calls() []string {
	r.asked = append(r.asked, r.service.Calls()...)
	return r.asked
}

// quiet tells whether the daemon was asked nothing so far.
func (r *rig) quiet() bool { return len(r.calls()) == 0 }

func (r *rig) shot(name string) {
	r.t.Helper()
	if r.pictures == "" {
		return
	}
	if err := r.screen.SavePNG(filepath.Join(r.pictures, name+".png")); err != nil {
		r.t.Fatal(err)
	}
}

// window looks for a window of the tray by its title.
func (r *rig) window(title string) (image.Rectangle, bool) {
	r.t.Helper()
	windows, err := r.screen.Windows()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, w := range windows {
		p, err := r.x.GetProperty(w.ID, x11.AtomWMName, x11.AtomAny, 256)
		if err == nil && string(p.Data) == title {
			return w.Bounds, true
		}
	}
	return image.Rectangle{}, false
}

// strip waits for the strip with its chips and tray icon.
func (r *rig) strip() image.Rectangle {
	r.t.Helper()
	var bounds image.Rectangle
	eventually(r.t, "the strip across the screen", func() bool {
		var ok bool
		bounds, ok = r.window("Cubicle tray")
		return ok && bounds.Min == image.Pt(0, 0) && bounds.Dx() == wide && bounds.Dy() < 60
	})
	return bounds
}

const (
	red   = 0xcc0000
	blue  = 0x3465a4
	panel = 0x25282d
)

func TestStripOnABareScreen(t *testing.T) {
	r := start(t, "dark", nil)
	bar := r.strip()
	eventually(t, "the chips' colours", func() bool { return r.count(bar, red) > 50 && r.count(bar, blue) > 50 })
	eventually(t, "room reserved for the strip", func() bool {
		area, ok, err := r.x.WorkArea()
		return err == nil && ok && area.Y == bar.Dy() && area.Height == high-bar.Dy()
	})
	right := image.Rect(wide-60, 0, wide, bar.Dy()-1) // without the edge
	eventually(t, "the tray's own icon", func() bool { return r.count(right, panel) < right.Dx()*right.Dy()-80 })
	r.shot("strip-dark")

	// A click opens a qube's menu, the keyboard moves in it.
	chips := image.Rect(0, 0, wide/2, bar.Dy())
	r.click(r.find(chips, blue))
	if menu := r.menu(); menu.Min.Y < bar.Max.Y || menu.Min.X < 0 {
		t.Errorf("the menu is at %v, the strip at %v", menu, bar)
	}
	r.shot("menu-dark")
	r.keys(down, enter)
	eventually(t, "the terminal", func() bool { return slices.Contains(r.calls(), "app qubes-run-terminal work") })
	eventually(t, "the menu's end", r.noMenu)

	// Esc and a click elsewhere close it.
	r.click(r.find(chips, red))
	r.menu()
	r.keys(escape)
	eventually(t, "the menu's end by Esc", r.noMenu)
	r.click(r.find(chips, red))
	r.menu()
	r.click(image.Pt(wide/2, high/2))
	eventually(t, "the menu's end by a click elsewhere", r.noMenu)

	// A qube that starts and one that ends.
	r.service.Set(r.ids["vault"], map[string]any{"State": "Running"})
	r.service.Set(r.ids["work"], map[string]any{"State": "Halted"})
	eventually(t, "the chip's end", func() bool { return r.count(chips, blue) == 0 })
}

// The tray icon's menu holds the qubes with their actions; killing asks
// first, and the answer No does nothing.
func TestKillAsksFirst(t *testing.T) {
	r := start(t, "light", nil)
	bar := r.strip()
	eventually(t, "the chips' colours", func() bool { return r.count(bar, red) > 50 && r.count(bar, blue) > 50 })
	icon := image.Rect(wide-60, 0, wide, bar.Dy())
	eventually(t, "the tray's own icon", func() bool { return r.count(icon, red) > 10 })
	r.shot("strip-light")
	r.click(r.find(icon, red))
	menu := r.menu()
	if menu.Max.X > wide {
		t.Errorf("the menu is at %v", menu)
	}
	r.shot("menu-light")
	// personal, untrusted, work: open the last one's submenu and kill it.
	r.keys(down, down, down, enter)
	eventually(t, "the submenu", func() bool {
		now, ok := r.window("Cubicle menu")
		return ok && now.Dy() > menu.Dy()
	})
	r.shot("submenu-light")
	r.keys(down, down, down, down, enter) // terminal, pause, shut down, kill
	ask := func() bool { _, ok := r.window("Kill work?"); return ok }
	eventually(t, "the question", ask)
	if !r.quiet() {
		t.Fatal("the daemon was asked before the person answered")
	}
	r.settle("Kill work?")
	r.shot("kill-light")
	r.keys(enter) // Cancel has the focus
	eventually(t, "the question's end", func() bool { return !ask() })
	if !r.quiet() {
		t.Error("Cancel killed")
	}
	r.click(r.find(image.Rect(0, 0, wide/2, bar.Dy()), red))
	r.menu()
	r.keys(up, enter) // kill is the last entry
	eventually(t, "the question", func() bool { _, ok := r.window("Kill untrusted?"); return ok })
	r.settle("Kill untrusted?")
	r.keys(tab, enter)
	eventually(t, "the kill", func() bool { return slices.Contains(r.calls(), "kill untrusted") })
	eventually(t, "the chip's end", func() bool { return r.count(image.Rect(0, 0, wide/2, bar.Dy()), red) == 0 })
}

// Where somebody else shows the tray, there is no strip; when he leaves,
// there is one, and when he comes, it goes.
func TestStripStaysAwayFromAnotherTray(t *testing.T) {
	var other *dbus.Conn
	registered := make(chan string, 10)
	r := start(t, "dark", func(r *rig) { other = foreignWatcher(r, registered) })
	select {
	case item := <-registered:
		layout := r.layout(item)
		for _, want := range []string{"personal", "untrusted", "work", "Terminal", "Kill …", "Open Qube Manager"} {
			if !strings.Contains(layout, want) {
				t.Errorf("the menu has no %q: %s", want, layout)
			}
		}
	case <-time.After(patience):
		t.Fatal("the icon did not register")
	}
	if _, ok := r.window("Cubicle tray"); ok {
		t.Error("there are two trays")
	}
	if _, err := other.ReleaseName(watcherName); err != nil {
		t.Fatal(err)
	}
	r.strip()
	if _, err := other.RequestName(watcherName, dbus.NameFlagReplaceExisting); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the strip's end", func() bool { _, ok := r.window("Cubicle tray"); return !ok })
	eventually(t, "all the room", func() bool {
		area, ok, err := r.x.WorkArea()
		return err == nil && ok && area.Height == high
	})
}

const (
	watcherName = "org.kde.StatusNotifierWatcher"
	watcherPath = "/StatusNotifierWatcher"
)

// foreignWatcher is a desktop's own tray.
func foreignWatcher(r *rig, registered chan<- string) *dbus.Conn {
	r.t.Helper()
	conn, err := dbus.Connect(r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	methods := map[string]any{"RegisterStatusNotifierItem": func(sender dbus.Sender, _ string) *dbus.Error {
		registered <- string(sender)
		return nil
	}}
	if err := conn.ExportMethodTable(methods, watcherPath, watcherName); err != nil {
		r.t.Fatal(err)
	}
	if _, err := conn.RequestName(watcherName, 0); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// layout asks an icon's menu for all that is in it, once the qubes are.
func (r *rig) layout(item string) (text string) {
	r.t.Helper()
	eventually(r.t, "the qubes in the menu", func() bool {
		var revision uint32
		var root struct {
			ID         int32
			Properties map[string]dbus.Variant
			Children   []dbus.Variant
		}
		err := r.session.Object(item, "/StatusNotifierItem/menu").Call("com.canonical.dbusmenu.GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root)
		if err != nil {
			r.t.Fatal(err)
		}
		text = fmt.Sprint(root.Children)
		return strings.Contains(text, "work")
	})
	return text
}
