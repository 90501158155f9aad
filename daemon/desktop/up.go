package desktop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/launch"
	"cubicle/daemon/paths"
)

// UpOptions are the parameters of Up.
type UpOptions struct {
	Root     paths.Root
	Bin      string // folder of our programs
	Engine   string // default engine; empty: qubesd chooses
	Display  string // ":N"; empty: what DISPLAY says
	Headless bool   // an X server of our own even where there is a DISPLAY
	Size     string // of that X server: WIDTHxHEIGHT
	PNG      string // where the picture of the first desktop goes
	Log      *launch.Log
	Out      io.Writer // what is said to the person at the terminal
	Terminal bool      // Out is a terminal: progress may rewrite its line
	// Open connects to the X server at display with the cookies in the
	// Xauthority file.
	Open func(display, xauthority string) (Screen, error)
}

// desktop is one run of Up.
type desktop struct {
	UpOptions
	files files
	group *launch.Group
	env   []string // of the user's programs
	begun time.Time
	// ownScreen is true when we started the X server.
	ownScreen bool
}

// Up starts everything, waits until ctx ends, and stops everything.
func Up(ctx context.Context, o UpOptions) error {
	if err := checkRoot(o.Root); err != nil {
		return err
	}
	d := &desktop{UpOptions: o, files: files{o.Root}, group: launch.NewGroup(o.Log), env: os.Environ(), begun: time.Now()}
	defer d.group.Stop()
	defer os.Remove(filepath.Join(d.files.user(os.Getuid()), displayNote))
	d.setenv(paths.Env, string(o.Root))
	d.setenv("DBUS_SYSTEM_BUS_ADDRESS", client.Address(o.Root))
	d.setenv("PATH", o.Bin+":"+os.Getenv("PATH"))
	system, says, err := d.startSystem()
	if err != nil {
		return err
	}
	if err := says(ctx, saysFolders); err != nil {
		return err
	}
	screen, err := d.startScreen(ctx)
	if err != nil {
		return err
	}
	defer screen.Close()
	if err := d.startSession(ctx); err != nil {
		return err
	}
	if err := d.noteDisplay(); err != nil {
		return err
	}
	if err := says(ctx, saysReady); err != nil {
		return err
	}
	if err := d.startInterface(); err != nil {
		return err
	}
	if err := d.fill(ctx, screen); err != nil {
		return err
	}
	d.say("desktop ready after %.1f s", time.Since(d.begun).Seconds())
	select {
	case <-ctx.Done():
		d.say("stopping")
		return nil
	case <-system.Done():
		return errors.New("the system's part ended; its message stands above")
	}
}

func (d *desktop) say(format string, args ...any) {
	// The person who cannot be reached is the one to be told.
	_, _ = fmt.Fprintf(d.Out, format+"\n", args...)
}

func (d *desktop) setenv(name, value string) {
	prefix := name + "="
	for i, kv := range d.env {
		if strings.HasPrefix(kv, prefix) {
			d.env[i] = prefix + value
			return
		}
	}
	d.env = append(d.env, prefix+value)
}

func (d *desktop) getenv(name string) string {
	for _, kv := range d.env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// startSystem runs `cubicle system`, through sudo where we are not root. It
// stops when our end of its standard input closes, also by our death.
func (d *desktop) startSystem() (*launch.Child, func(context.Context, string) error, error) {
	stdin, hold, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	lines, output := io.Pipe()
	args := SystemArgs(d.Root, d.Bin, d.Engine)
	child, err := d.group.Start(launch.Program{
		// Its lines have got their prefixes by the same code.
		Name: "system", Args: args, Env: d.env, Stdin: stdin, Output: output, Errors: os.Stderr, Grace: time.Minute,
	})
	if err != nil {
		hold.Close()
		return nil, nil, err
	}
	go func() {
		<-child.Done()
		hold.Close()
		output.Close()
	}()
	return child, waitLines(lines), nil
}

// SystemArgs is the command line that runs System for the calling user.
func SystemArgs(root paths.Root, bin, engine string) []string {
	args := []string{filepath.Join(bin, "cubicle"), "system", "--root", string(root),
		"--user-uid", strconv.Itoa(os.Getuid()), "--user-gid", strconv.Itoa(os.Getgid()),
		"--up-pid", strconv.Itoa(os.Getpid())}
	if engine != "" {
		args = append(args, "--engine", engine)
	}
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "--"}, args...)
	}
	return args
}

// noteDisplay writes down where the screen is, for Display.
func (d *desktop) noteDisplay() error {
	text := d.getenv("DISPLAY") + "\n" + d.getenv("XAUTHORITY") + "\n"
	return os.WriteFile(filepath.Join(d.files.user(os.Getuid()), displayNote), []byte(text), 0o600)
}

const displayNote = "display"

// Display tells on which X display the calling user's desktop in root is, and
// where its cookies are. Without one it is what DISPLAY and XAUTHORITY say.
func Display(root paths.Root) (display, xauthority string, err error) {
	text, err := os.ReadFile(filepath.Join(files{root}.user(os.Getuid()), displayNote))
	if errors.Is(err, os.ErrNotExist) {
		if display = os.Getenv("DISPLAY"); display == "" {
			return "", "", fmt.Errorf("no desktop runs in %s, and DISPLAY is not set", root)
		}
		return display, os.Getenv("XAUTHORITY"), nil
	}
	if err != nil {
		return "", "", err
	}
	display, rest, _ := strings.Cut(string(text), "\n")
	xauthority, _, _ = strings.Cut(rest, "\n")
	return display, xauthority, nil
}

// startScreen makes sure that there is an X server and opens it.
func (d *desktop) startScreen(ctx context.Context) (Screen, error) {
	display := d.Display
	if display == "" && !d.Headless {
		display = os.Getenv("DISPLAY")
	}
	if display != "" && !d.Headless {
		if screen, err := d.Open(display, os.Getenv("XAUTHORITY")); err == nil {
			d.setenv("DISPLAY", display)
			return screen, nil
		} else if d.Display == "" {
			return nil, fmt.Errorf("display %s: %w; --headless starts a screen of its own", display, err)
		}
	}
	return d.startXvfb(ctx, d.Display)
}

// startXvfb starts an X server in memory with a window manager. An empty
// display lets the server choose a free number.
func (d *desktop) startXvfb(ctx context.Context, display string) (Screen, error) {
	authority := filepath.Join(d.files.user(os.Getuid()), "Xauthority")
	cookie, err := newCookie()
	if err != nil {
		return nil, err
	}
	if err := writeXauthority(authority, cookie, ""); err != nil {
		return nil, err
	}
	number, report, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer number.Close()
	args := []string{"Xvfb", "-displayfd", "3", "-screen", "0", d.Size + "x24", "-nolisten", "tcp", "-noreset", "-auth", authority}
	if display != "" {
		args = append(args, display)
	}
	server, err := d.group.Start(launch.Program{Name: "screen", Args: args, Env: d.env, Files: []*os.File{report}})
	if err != nil {
		return nil, fmt.Errorf("%w (package xvfb)", err)
	}
	read := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(number).ReadString('\n')
		if err != nil {
			line = "" // the server ended, which is told below
		}
		read <- strings.TrimSpace(line)
	}()
	var n string
	select {
	case n = <-read:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if n == "" {
		<-server.Done()
		return nil, fmt.Errorf("no X server: %v", server.Err())
	}
	if err := writeXauthority(authority, cookie, n); err != nil {
		return nil, err
	}
	display = ":" + n
	d.setenv("DISPLAY", display)
	d.setenv("XAUTHORITY", authority)
	screen, err := d.Open(display, authority)
	if err != nil {
		return nil, err
	}
	d.ownScreen = true
	if err := screen.SetBackground(); err != nil {
		screen.Close()
		return nil, err
	}
	if _, err := d.group.Start(launch.Program{Name: "openbox", Args: []string{"openbox", "--sm-disable"}, Env: d.env, Restart: true}); err != nil {
		screen.Close()
		return nil, fmt.Errorf("%w (package openbox)", err)
	}
	d.say("the desktop is on display %s, %s. To look at it:", display, d.Size)
	d.say("  a picture:  cubicle shot --root %s desktop.png", d.Root)
	d.say("  by VNC:     x11vnc -localhost -display %s -auth %s   (package x11vnc)", display, authority)
	return screen, nil
}

// startSession makes sure of a session bus with a notification daemon.
func (d *desktop) startSession(ctx context.Context) error {
	if d.getenv("DBUS_SESSION_BUS_ADDRESS") == "" || d.Headless {
		path := filepath.Join(d.files.user(os.Getuid()), "session-bus")
		// A socket that a killed run left would make the new bus refuse.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		address := "unix:path=" + path
		bus, err := d.group.Start(launch.Program{
			Name: "session", Env: d.env,
			Args: []string{"dbus-daemon", "--session", "--nofork", "--nopidfile", "--nosyslog", "--address=" + address},
		})
		if err != nil {
			return fmt.Errorf("%w (package dbus)", err)
		}
		if err := bus.WaitFor(ctx, answers(path)); err != nil {
			return err
		}
		d.setenv("DBUS_SESSION_BUS_ADDRESS", address)
	}
	conn, err := dbus.Connect(d.getenv("DBUS_SESSION_BUS_ADDRESS"))
	if err != nil {
		return fmt.Errorf("session bus: %w", err)
	}
	defer conn.Close()
	var owned bool
	err = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, "org.freedesktop.Notifications").Store(&owned)
	if err != nil {
		return fmt.Errorf("session bus: %w", err)
	}
	if owned {
		return nil
	}
	if _, err := exec.LookPath("dunst"); err != nil {
		slog.Warn("no notification daemon: denials and warnings are shown in the log alone", "mend", "apt-get install dunst")
		return nil
	}
	_, err = d.group.Start(launch.Program{Name: "notify", Args: []string{"dunst"}, Env: d.env, Restart: true})
	return err
}

// startInterface starts what people see of us.
func (d *desktop) startInterface() error {
	for _, p := range []struct{ name, program string }{{"guid", "qubes-guid"}, {"tray", "qubes-tray"}, {"ask", "qubes-policy-agent"}} {
		args := []string{filepath.Join(d.Bin, p.program), "--root", string(d.Root)}
		_, err := d.group.Start(launch.Program{Name: p.name, Args: args, Env: d.env, Restart: true})
		if err != nil && p.name == "ask" {
			slog.Warn("calls that the policy asks about are denied", "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	manager := filepath.Join(d.Bin, "qube-manager")
	_, err := d.group.Start(launch.Program{Name: "manager", Args: []string{manager, "--root", string(d.Root)}, Env: d.env})
	return err
}
