package notice

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const wait = 90 * time.Second

// sessionBus runs a bus of the test's own and returns its address.
func sessionBus(t *testing.T) string {
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
	r.SetReadDeadline(time.Now().Add(wait))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// shown is what a notification daemon was told.
type shown struct {
	program, title, text string
	replaces             uint32
	actions              []string
}

// daemon is a notification daemon.
type daemon struct {
	conn *dbus.Conn
	told chan shown
	last uint32
}

func (d *daemon) Notify(program string, replaces uint32, _, title, text string, actions []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	if replaces == 0 {
		d.last++
		replaces = d.last
		defer func() { d.told <- shown{program, title, text, 0, actions} }()
		return replaces, nil
	}
	defer func() { d.told <- shown{program, title, text, replaces, actions} }()
	return replaces, nil
}

func startDaemon(t *testing.T, address string) *daemon {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &daemon{conn: conn, told: make(chan shown, 4)}
	if err := conn.Export(d, object, name); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(name, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOnceShowsPlainText(t *testing.T) {
	address := sessionBus(t)
	n := Notice{Program: "Cubicle", Title: "a\x1b\u202eb", Text: "<b>&\n\u200f" + strings.Repeat("x", 2*maxText)}
	if err := Once(t.Context(), address, n); err == nil {
		t.Error("nobody shows notifications, and yet there is no error")
	}
	d := startDaemon(t, address)
	if err := Once(t.Context(), address, n); err != nil {
		t.Fatal(err)
	}
	got := <-d.told
	if got.program != "Cubicle" || got.title != "a b" || len(got.actions) != 0 {
		t.Errorf("%+v", got)
	}
	if want := "&lt;b&gt;&amp; " + strings.Repeat("x", maxText-5); got.text != want {
		t.Errorf("the text is %.60q…, %d bytes", got.text, len(got.text))
	}
}

func TestADeskChangesItsNoticesAndHearsTheirButton(t *testing.T) {
	address := sessionBus(t)
	d := startDaemon(t, address)
	pressed := make(chan struct{}, 4)
	desk := NewDesk(address, func() { pressed <- struct{}{} })
	defer desk.Close()
	id, err := desk.Show(t.Context(), Notice{Title: "one", Button: "Look"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := desk.Show(t.Context(), Notice{Title: "two", Button: "Look"}, id); err != nil || again != id {
		t.Errorf("%d became %d, %v", id, again, err)
	}
	first, second := <-d.told, <-d.told
	if first.replaces != 0 || second.replaces != id || !slices.Contains(second.actions, "Look") {
		t.Errorf("%+v, then %+v", first, second)
	}
	for _, signal := range []struct {
		member string
		body   []any
	}{
		{"ActionInvoked", []any{id + 1, button}}, // somebody else's
		{"ActionInvoked", []any{id, "other"}},
		{"ActionInvoked", []any{"text", button}},
		{"ActionInvoked", []any{id, button}},
		{"NotificationClosed", []any{id, uint32(2)}},
		{"ActionInvoked", []any{id, button}}, // gone
	} {
		if err := d.conn.Emit(object, name+"."+signal.member, signal.body...); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-pressed:
	case <-time.After(wait):
		t.Fatal("the button was not heard")
	}
	// Whatever else would be heard has been by the answer to another call.
	if _, err := desk.Show(t.Context(), Notice{Title: "three"}, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if len(pressed) != 0 {
		t.Error("a button was heard that is not ours")
	}
}
