package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/app/dom0/dom0test"
	"cubicle/daemon/qube"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

// The screen's size.
const wide, high = 1280, 800

// desktop is a window on a screen, with the daemon's face behind it.
type desktop struct {
	t       *testing.T
	display string
	x       *x11.Conn
	window  string
	service *dom0test.Service
}

func (d *desktop) run(name string, arguments ...string) []byte {
	d.t.Helper()
	c := exec.Command(name, arguments...)
	c.Env = append(os.Environ(), "DISPLAY="+d.display)
	out, err := c.Output()
	if err != nil {
		d.t.Fatalf("%s %s: %v", name, strings.Join(arguments, " "), err)
	}
	return out
}

func (d *desktop) keys(names ...string) {
	d.t.Helper()
	d.run("xdotool", append([]string{"key", "--delay", "60"}, names...)...)
}

// pixels counts those of exactly that colour, 0x00RRGGBB, on the screen.
func (d *desktop) pixels(rgb uint32) (n int) {
	d.t.Helper()
	image, err := d.x.Image(x11.Drawable(d.x.Root()), 0, 0, wide, high)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i+3 < len(image); i += 4 {
		if binary.LittleEndian.Uint32(image[i:])&0xffffff == rgb {
			n++
		}
	}
	return n
}

func (d *desktop) until(what string, ready func() bool) {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ready() {
			return
		}
	}
	d.t.Fatalf("%s did not happen", what)
}

// The program itself, on a screen: opens fast, shows the qubes in their
// colours, and acts on keys.
func TestWindowOnAScreen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an X server")
	}
	for _, needed := range []string{"Xvfb", "xdotool", "dbus-daemon"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Fatalf("%s is needed: see make setup", needed)
		}
	}
	folder := t.TempDir()
	program := filepath.Join(folder, "qube-manager")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	address, stop, err := dom0test.StartBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	service, err := dom0test.Serve(address)
	if err != nil {
		t.Fatal(err)
	}
	d := &desktop{t: t, service: service}
	t.Cleanup(func() { d.service.Close() })
	service.Step = 50 * time.Millisecond
	service.Add("debian-12", qube.TemplateVM, "black", "")
	service.Add("vault", qube.AppVM, "blue", "debian-12")
	service.Add("work", qube.AppVM, "green", "debian-12")

	d.display = x11test.Start(t, wide, high)
	d.x = x11test.Dial(t, d.display)
	manager := exec.Command(program, "--bus", address)
	manager.Env = append(os.Environ(), "DISPLAY="+d.display, "HOME="+folder, "XDG_CONFIG_HOME="+folder, "XDG_CACHE_HOME="+folder,
		"FYNE_THEME=dark", "LC_ALL=C", "DBUS_SESSION_BUS_ADDRESS="+address)
	var log bytes.Buffer
	manager.Stdout, manager.Stderr = &log, &log
	began := time.Now()
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		manager.Process.Kill()
		manager.Wait()
		// The first start has nothing to complain about.
		if strings.Contains(strings.ToLower(log.String()), "error") {
			t.Error("the program complains")
		}
		if t.Failed() {
			t.Logf("qube-manager said:\n%s", log.String())
		}
	})
	d.window = strings.Fields(string(d.run("xdotool", "search", "--sync", "--onlyvisible", "--name", "^Qube Manager$")))[0]
	t.Logf("the window was there after %v", time.Since(began).Round(time.Millisecond))
	d.until("the picture with both labels", func() bool {
		return d.pixels(0x3465a4) > 100 && d.pixels(0x73d216) > 100
	})

	// No window manager here: the focus is given by hand.
	d.run("xdotool", "windowfocus", "--sync", d.window)
	d.run("xdotool", "type", "--delay", "60", "vau")
	d.until("the filter", func() bool { return d.pixels(0x73d216) == 0 })
	d.keys("Return")
	d.until("the start", func() bool { return slices.Contains(service.Calls(), "start vault") })
	d.keys("Escape")
	d.until("all qubes", func() bool { return d.pixels(0x73d216) > 100 })

	// A second start ends at once, and the first window does what it was for.
	second := exec.Command(program, "--bus", address, "--settings", "vault")
	second.Env = manager.Env
	if out, err := second.CombinedOutput(); err != nil {
		t.Fatalf("the second start: %v\n%s", err, out)
	}
	d.until("the settings above the list", func() bool { return d.pixels(0x73d216) == 0 })
	d.keys("Escape")
	d.until("the list again", func() bool { return d.pixels(0x73d216) > 100 })

	d.keys("ctrl+n")
	d.run("xdotool", "type", "--delay", "60", "web")
	d.keys("Return")
	var calls []string
	d.until("the creation", func() bool {
		calls = append(calls, service.Calls()...)
		return slices.Contains(calls, "create web AppVM red debian-12") && slices.Contains(calls, "start web")
	})

	// A new daemon is found without help.
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := dom0test.Serve(address)
	if err != nil {
		t.Fatal(err)
	}
	d.service = again
	again.Add("other", qube.AppVM, "yellow", "")
	d.until("the restarted daemon", func() bool {
		return d.pixels(0xedd400) > 100 && d.pixels(0x73d216) == 0
	})
}
