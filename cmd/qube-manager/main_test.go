package main

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/app/dom0/dom0test"
	"cubicle/daemon/qube"
)

// screen runs an X server of its own and returns its display.
func screen(t *testing.T) string {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	x := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1280x800x24", "-nolisten", "tcp")
	x.ExtraFiles = []*os.File{write}
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	t.Cleanup(func() { x.Process.Kill(); x.Wait() })
	number, err := io.ReadAll(io.LimitReader(read, 3))
	if err != nil && len(number) == 0 {
		t.Fatalf("Xvfb told no display: %v", err)
	}
	return ":" + strings.TrimSpace(string(number))
}

// desktop is a window on a screen, with the daemon's face behind it.
type desktop struct {
	t       *testing.T
	display string
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

func (d *desktop) picture() image.Image {
	d.t.Helper()
	p, err := png.Decode(bytes.NewReader(d.run("import", "-window", "root", "png:-")))
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// pixels counts those of exactly that colour.
func pixels(p image.Image, rgb uint32) (n int) {
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y++ {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x++ {
			r, g, b, _ := p.At(x, y).RGBA()
			if r>>8<<16|g>>8<<8|b>>8 == rgb {
				n++
			}
		}
	}
	return n
}

func (d *desktop) until(what string, ready func() bool) {
	d.t.Helper()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
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
	for _, needed := range []string{"Xvfb", "xdotool", "import", "dbus-daemon"} {
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

	d.display = screen(t)
	manager := exec.Command(program, "--bus", address)
	manager.Env = append(os.Environ(), "DISPLAY="+d.display, "HOME="+folder, "XDG_CONFIG_HOME="+folder, "XDG_CACHE_HOME="+folder,
		"FYNE_THEME=dark", "DBUS_SESSION_BUS_ADDRESS="+address)
	var log bytes.Buffer
	manager.Stdout, manager.Stderr = &log, &log
	began := time.Now()
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		manager.Process.Kill()
		manager.Wait()
		if t.Failed() {
			t.Logf("qube-manager said:\n%s", log.String())
		}
	})
	d.window = strings.Fields(string(d.run("xdotool", "search", "--sync", "--onlyvisible", "--name", "^Qube Manager$")))[0]
	t.Logf("the window was there after %v", time.Since(began).Round(time.Millisecond))
	d.until("the picture with both labels", func() bool {
		p := d.picture()
		return pixels(p, 0x3465a4) > 100 && pixels(p, 0x73d216) > 100
	})

	// No window manager here: the focus is given by hand.
	d.run("xdotool", "windowfocus", "--sync", d.window)
	d.run("xdotool", "type", "--delay", "60", "vau")
	d.until("the filter", func() bool { return pixels(d.picture(), 0x73d216) == 0 })
	d.keys("Return")
	d.until("the start", func() bool { return slices.Contains(service.Calls(), "start vault") })
	d.keys("Escape")
	d.until("all qubes", func() bool { return pixels(d.picture(), 0x73d216) > 100 })

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
		p := d.picture()
		return pixels(p, 0xedd400) > 100 && pixels(p, 0x73d216) == 0
	})
}

func TestMetadataComesFromFyneApp(t *testing.T) {
	m, err := metadata()
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != "org.cubicle.QubeManager" || m.Name != "Qube Manager" || m.Icon == nil || !m.Migrations["fyneDo"] {
		t.Errorf("metadata: %s", fmt.Sprint(m))
	}
}
