// Package x11test starts X servers, window managers and clients for tests.
package x11test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cubicle/guid/x11"
)

// patience is how long a test waits for another process.
const patience = 90 * time.Second

// Start runs an Xvfb with a screen of that size until the test ends, and
// returns its display name.
func Start(t testing.TB, width, height int) string {
	t.Helper()
	display, _ := StartServer(t, width, height)
	return display
}

// StartServer is Start that also returns the server, for tests that end it.
func StartServer(t testing.TB, width, height int) (string, *os.Process) {
	t.Helper()
	return start(t, "-screen", "0", fmt.Sprintf("%dx%dx24", width, height))
}

// StartWith is Start with options of Xvfb.
func StartWith(t testing.TB, options ...string) string {
	t.Helper()
	display, _ := start(t, options...)
	return display
}

func start(t testing.TB, options ...string) (string, *os.Process) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("Xvfb", append([]string{"-displayfd", "3", "-nolisten", "tcp", "-noreset"}, options...)...)
	cmd.ExtraFiles = []*os.File{w}
	run(t, cmd)
	w.Close()
	r.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("Xvfb did not start: %v", err)
	}
	return ":" + strings.TrimSpace(line), cmd.Process
}

// Run starts a client of display until the test ends. It gets a home of its
// own, so that no configuration of this machine matters.
func Run(t testing.TB, display, name string, args ...string) *os.Process {
	t.Helper()
	return runIn(t, environment(t, display), name, args...).Process
}

func runIn(t testing.TB, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	run(t, cmd)
	return cmd
}

func environment(t testing.TB, display string) []string {
	home := t.TempDir()
	return append(os.Environ(), "DISPLAY="+display, "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"),
		"XDG_CACHE_HOME="+filepath.Join(home, ".cache"), "XAUTHORITY=/dev/null", "DBUS_SESSION_BUS_ADDRESS=disabled:")
}

// StartWM runs a window manager, openbox or xfwm4, and waits until it manages.
func StartWM(t testing.TB, display, name string) {
	t.Helper()
	env := environment(t, display)
	switch name {
	case "openbox":
		runIn(t, env, name, "--sm-disable")
	case "xfwm4": // reads its settings over D-Bus
		runIn(t, append(env, "DBUS_SESSION_BUS_ADDRESS="+startBus(t, env)), name, "--compositor=off", "--sm-client-disable")
	default:
		t.Fatalf("no window manager %q", name)
	}
	c := Dial(t, display)
	state, err := c.Atom("WM_STATE")
	if err != nil {
		t.Fatal(err)
	}
	// One that is still starting may leave a window waiting until the next
	// comes, so ask with windows until one is managed.
	Eventually(t, name+" manages", func() bool {
		w, err := c.CreateWindow(c.Root(), 0, 0, 10, 10, x11.Attributes{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Sync()
		defer c.Destroy(w)
		c.Map(w)
		for range 20 {
			if p, err := c.GetProperty(w, state, x11.AtomAny, 8); err == nil && p.Type == state {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	})
}

// startBus runs a session bus until the test ends and returns its address.
func startBus(t testing.TB, env []string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=3", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	cmd.Env = env
	cmd.ExtraFiles = []*os.File{w}
	run(t, cmd)
	w.Close()
	r.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon did not start: %v", err)
	}
	return strings.TrimSpace(line)
}

// Dial connects to display until the test ends. Its events are discarded.
func Dial(t testing.TB, display string) *x11.Conn {
	t.Helper()
	c, err := x11.Dial(display)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Eventually waits until ok holds, or fails the test.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.WaitDelay = time.Second // a grandchild may hold stderr open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// SIGTERM first: a server that is killed leaves its lock behind.
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		cmd.Wait()
		if t.Failed() && log.Len() > 0 {
			t.Logf("%s said:\n%s", cmd.Path, log.String())
		}
	})
}
