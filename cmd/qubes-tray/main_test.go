package main

import (
	"bytes"
	"encoding/binary"
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
const patience = 15 * time.Second

// rig is the tray on a screen with a window manager, and the daemon's face
// behind it.
type rig struct {
	t        *testing.T
	x        *x11.Conn
	screen   *screen.Screen
	session  *dbus.Conn
	service  *dom0test.Service
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
	if r.service, err = dom0test.Serve(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.service.Close() })
	r.service.Step = 20 * time.Millisecond
	r.service.Add("debian-12", qube.TemplateVM, "black", "")
	r.service.Add("vault", qube.AppVM, "black", "debian-12")
	for name, labelName := range map[string]string{"work": "blue", "untrusted": "red", "personal": "yellow"} {
		id := r.service.Add(name, qube.AppVM, labelName, "debian-12")
		r.service.Set(id, map[string]any{"State": "Running", "XID": int32(0x8000), "MemoryUsed": uint64(412 << 20)})
	}
	if r.session, err = dbus.Connect(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.session.Close() })
	display := x11test.Start(t, wide, high)
	x11test.StartWM(t, display, "openbox")
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

func (r *rig) key(keysym x11.Keysym) {
	r.t.Helper()
	keys, err := r.x.Keyboard()
	if err != nil {
		r.t.Fatal(err)
	}
	code := keys.Code(keysym)
	r.x.FakeKey(code, true)
	r.x.FakeKey(code, false)
	if err := r.x.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

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
	right := image.Rect(wide-60, 0, wide, bar.Dy())
	eventually(t, "the tray's own icon", func() bool { return r.count(right, panel) < right.Dx()*(right.Dy()-12) })
	r.shot("strip-dark")

	// A click opens a qube's menu, the keyboard moves in it.
	r.click(r.find(bar, blue))
	var menu image.Rectangle
	eventually(t, "the menu", func() bool {
		var ok bool
		menu, ok = r.window("Cubicle menu")
		return ok && menu.Dy() > 100
	})
	if menu.Min.Y < bar.Max.Y || menu.Min.X < 0 {
		t.Errorf("the menu is at %v, the strip at %v", menu, bar)
	}
	time.Sleep(300 * time.Millisecond)
	r.shot("menu-dark")
	r.key(0xff54) // down: Terminal
	r.key(0xff0d)
	var calls []string
	asked := func(call string) func() bool {
		return func() bool {
			calls = append(calls, r.service.Calls()...)
			return slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, call) })
		}
	}
	eventually(t, "the terminal", asked("app qubes-run-terminal work"))
	eventually(t, "the menu's end", func() bool { _, open := r.window("Cubicle menu"); return !open })
}
