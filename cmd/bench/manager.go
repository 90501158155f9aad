package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cubicle/app/dom0/dom0test"
	"cubicle/daemon/qube"
	"cubicle/guid/screen"
	"cubicle/guid/x11"
)

// managerResult is about the Qube Manager's window.
type managerResult struct {
	paint, empty           samples       // program start → list of 200 qubes; → an empty window
	firstPaint, firstEmpty time.Duration // the same at the very first start in a home
	filter                 samples       // key → filtered list of 500 qubes
}

const (
	paintQubes  = 200
	filterQubes = 500
)

// Colours of labels.
const (
	red  = 0xcc0000
	blue = 0x3465a4
)

// manager measures the Qube Manager on a screen of its own, with a daemon
// whose qubes exist only on the bus.
func (b *bench) manager(ctx context.Context) (*managerResult, error) {
	b.log.Info("measuring", "part", "manager")
	stop, err := screenOfOurOwn(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	r := &managerResult{}
	daemon, err := serve(paintQubes)
	if err != nil {
		return nil, err
	}
	// Each keeps its home, as people's programs do: what the graphics driver
	// has compiled lies there, and which fonts there are.
	homes, err := os.MkdirTemp("", "cubicle-bench-homes-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(homes)
	if err := os.Chmod(homes, 0o711); err != nil {
		return nil, err
	}
	manager, err := lend(homes, filepath.Join(b.Bin, "qube-manager"))
	if err != nil {
		return nil, err
	}
	empty, err := lend(homes, b.tool("emptywindow"))
	if err != nil {
		return nil, err
	}
	for i := range b.count.paints + 1 {
		list, err := b.paint(ctx, filepath.Join(homes, "manager"), manager, []string{"--bus", daemon.address}, func(seen colors) bool { return seen.red > 100 })
		if err != nil {
			return nil, err
		}
		bare, err := b.paint(ctx, filepath.Join(homes, "empty"), empty, nil, func(seen colors) bool { return seen.light > seen.all*9/10 })
		if err != nil {
			return nil, err
		}
		if i == 0 {
			r.firstPaint, r.firstEmpty = list, bare
			continue
		}
		r.paint, r.empty = append(r.paint, list), append(r.empty, bare)
	}
	daemon.close()
	if daemon, err = serve(filterQubes); err != nil {
		return nil, err
	}
	defer daemon.close()
	r.filter, err = b.filter(ctx, filepath.Join(homes, "manager"), manager, daemon.address)
	return r, err
}

// screenOfOurOwn starts an X server without anything on it.
func screenOfOurOwn(ctx context.Context) (stop func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-nolisten", "tcp", "-noreset", "-screen", "0", "1280x800x24")
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		stop()
		return nil, fmt.Errorf("the X server tells no display: %w", err)
	}
	return stop, errors.Join(os.Setenv("DISPLAY", ":"+strings.TrimSpace(line)), os.Setenv("XAUTHORITY", os.DevNull))
}

// daemon is qubesd's face on a bus.
type daemon struct {
	address string
	stop    func()
	service *dom0test.Service
}

func serve(qubes int) (*daemon, error) {
	d := &daemon{}
	var err error
	if d.address, d.stop, err = dom0test.StartOpenBus(); err != nil {
		return nil, err
	}
	if d.service, err = dom0test.Serve(d.address); err != nil {
		d.stop()
		return nil, err
	}
	d.service.Add("debian-12", qube.TemplateVM, "black", "")
	for i := range qubes - 2 {
		d.service.Add(fmt.Sprintf("qube-%03d", i), qube.AppVM, "red", "debian-12")
	}
	d.service.Add("zebra", qube.AppVM, "blue", "debian-12")
	return d, nil
}

func (d *daemon) close() {
	_ = d.service.Close() // the bus ends with it
	d.stop()
}

// colors are pixels counted on the screen's upper left part, where the list is.
type colors struct{ all, light, red, blue int }

func look(x *x11.Conn) (colors, error) {
	const width, height = 500, 500
	data, err := x.Image(x11.Drawable(x.Root()), 0, 0, width, height)
	if err != nil {
		return colors{}, err
	}
	c := colors{all: width * height}
	for i := 0; i+3 < len(data); i += 4 {
		switch v := binary.LittleEndian.Uint32(data[i:]) & 0xffffff; {
		case v == red:
			c.red++
		case v == blue:
			c.blue++
		case v >= 0xc0c0c0:
			c.light++
		}
	}
	return c, nil
}

// person is the user and the group that programs with windows run as: nobody
// works as root, for whom libX11 keeps no compose sequences.
const person = 65534

// lend copies a program to where the person may read it.
func lend(folder, program string) (string, error) {
	code, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	copied := filepath.Join(folder, "run-"+filepath.Base(program))
	return copied, os.WriteFile(copied, code, 0o755)
}

// window starts a program with a window; stop ends it.
func (b *bench) window(ctx context.Context, home, program string, args []string) (stop func(), err error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chown(home, person, person); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = home
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: person, Gid: person}}
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "FYNE_THEME=light",
		"LANG=C.UTF-8", "DBUS_SESSION_BUS_ADDRESS=")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill() // fails when it has ended
		_ = cmd.Wait()
	}, nil
}

// paint starts a program and waits for what it shall show.
func (b *bench) paint(ctx context.Context, home, program string, args []string, shows func(colors) bool) (time.Duration, error) {
	x, err := x11.Dial("")
	if err != nil {
		return 0, err
	}
	defer x.Close()
	err = until(ctx, 5*time.Millisecond, "an empty screen", func() (bool, error) {
		seen, err := look(x)
		return seen.light+seen.red+seen.blue == 0, err
	})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	stop, err := b.window(ctx, home, program, args)
	if err != nil {
		return 0, err
	}
	defer stop()
	var seen colors
	err = until(ctx, 3*time.Millisecond, "the window of "+filepath.Base(program), func() (_ bool, err error) {
		seen, err = look(x)
		return shows(seen), err
	})
	if err != nil {
		err = fmt.Errorf("%w; seen: %+v", err, seen)
	}
	return time.Since(began), err
}

// filter types a letter that only one qube has, and takes it back.
func (b *bench) filter(ctx context.Context, home, program, bus string) (samples, error) {
	stop, err := b.window(ctx, home, program, []string{"--bus", bus})
	if err != nil {
		return nil, err
	}
	defer stop()
	x, err := x11.Dial("")
	if err != nil {
		return nil, err
	}
	defer x.Close()
	shows := func(what string, ok func(colors) bool) error {
		return until(ctx, time.Millisecond, what, func() (bool, error) {
			seen, err := look(x)
			return ok(seen), err
		})
	}
	all := func(c colors) bool { return c.red > 100 && c.blue == 0 }
	if err := shows("the list", all); err != nil {
		return nil, err
	}
	if err := x.InitXTest(); err != nil {
		return nil, err
	}
	keys, err := x.Keyboard()
	if err != nil {
		return nil, err
	}
	eyes, err := screen.Open("")
	if err != nil {
		return nil, err
	}
	defer eyes.Close()
	windows, err := eyes.Windows()
	if err != nil || len(windows) != 1 {
		return nil, fmt.Errorf("%d windows: %v", len(windows), err)
	}
	x.SetInputFocus(windows[0].ID, x11.CurrentTime)
	press := func(sym x11.Keysym) error {
		x.FakeKey(keys.Code(sym), true)
		x.FakeKey(keys.Code(sym), false)
		return x.Sync()
	}
	const escape = 0xff1b
	var out samples
	for i := range 2*b.count.paints + 3 {
		began := time.Now()
		if err := press('z'); err != nil {
			return nil, err
		}
		if err := shows("the filtered list", func(c colors) bool { return c.red == 0 && c.blue > 20 }); err != nil {
			return nil, err
		}
		if i >= 3 {
			out = append(out, time.Since(began))
		}
		if err := press(escape); err != nil {
			return nil, err
		}
		if err := shows("the whole list", all); err != nil {
			return nil, err
		}
	}
	return out, nil
}
