// Package noticetest stands in for a desktop's notification daemon.
package noticetest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// patience bounds every wait, far above what a loaded machine needs.
const patience = 90 * time.Second

// The daemon's name on the bus, and its object.
const (
	Name   = "org.freedesktop.Notifications"
	Object = "/org/freedesktop/Notifications"
)

// Bus runs a session bus until the test ends and returns its address.
func Bus(t testing.TB) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=3", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// Shown is what the daemon was told.
type Shown struct {
	Program, Title, Text string
	Replaces             uint32
	Actions              []string
}

// Daemon is a notification daemon.
type Daemon struct {
	Told chan Shown
	conn *dbus.Conn
	last uint32
}

// Serve is a daemon on a bus until the test ends. It holds 16 notices for who
// asks it what it was told.
func Serve(t testing.TB, address string) *Daemon {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &Daemon{conn: conn, Told: make(chan Shown, 16)}
	if err := conn.ExportMethodTable(map[string]any{"Notify": d.notify}, Object, Name); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(Name, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

// Next is the next notice.
func (d *Daemon) Next(t testing.TB) Shown {
	t.Helper()
	select {
	case s := <-d.Told:
		return s
	case <-time.After(patience):
		t.Fatal("nobody has told anything")
		return Shown{}
	}
}

// Signal emits a signal of the daemon's.
func (d *Daemon) Signal(member string, values ...any) error {
	return d.conn.Emit(Object, Name+"."+member, values...)
}

// notify is called one at a time: the callers wait for its answer.
func (d *Daemon) notify(program string, replaces uint32, _, title, text string, actions []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	d.Told <- Shown{program, title, text, replaces, actions}
	if replaces == 0 {
		d.last++
		replaces = d.last
	}
	return replaces, nil
}
