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
	"testing"
	"time"

	"cubicle/guid/x11"
)

// patience is how long a test waits for another process.
const patience = 10 * time.Second

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
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", fmt.Sprintf("%dx%dx24", width, height), "-nolisten", "tcp", "-noreset")
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
	cmd := exec.Command(name, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "DISPLAY="+display, "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"),
		"XDG_CACHE_HOME="+filepath.Join(home, ".cache"), "XAUTHORITY=/dev/null", "DBUS_SESSION_BUS_ADDRESS=disabled:")
	run(t, cmd)
	return cmd.Process
}

// StartWM runs a window manager and waits until it manages.
func StartWM(t testing.TB, display, name string) {
	t.Helper()
	args := map[string][]string{
		"openbox": {"--sm-disable"},
		"xfwm4":   {"--compositor=off", "--sm-client-disable"},
	}[name]
	Run(t, display, name, args...)
	c := Dial(t, display)
	Eventually(t, name+" manages", func() bool {
		w, err := c.SupportingWM()
		return err == nil && w != 0
	})
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
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() && log.Len() > 0 {
			t.Logf("%s said:\n%s", cmd.Path, log.String())
		}
	})
}
