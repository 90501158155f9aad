package notice

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/guid/notice/noticetest"
)

const wait = 90 * time.Second

func TestOnceShowsPlainText(t *testing.T) {
	address := noticetest.Bus(t)
	n := Notice{Program: "Cubicle", Title: "a\x1b\u202eb", Text: "<b>&\n\u200f" + strings.Repeat("x", 2*maxText)}
	if err := Once(t.Context(), address, n); err == nil {
		t.Error("nobody shows notifications, and yet there is no error")
	}
	d := noticetest.Serve(t, address)
	if err := Once(t.Context(), address, n); err != nil {
		t.Fatal(err)
	}
	got := d.Next(t)
	if got.Program != "Cubicle" || got.Title != "a b" || len(got.Actions) != 0 {
		t.Errorf("%+v", got)
	}
	if want := "&lt;b&gt;&amp; " + strings.Repeat("x", maxText-5); got.Text != want {
		t.Errorf("the text is %.60q…, %d bytes", got.Text, len(got.Text))
	}
}

// The bus of the environment is used, and none is started.
func TestTheSessionsOwnBus(t *testing.T) {
	address := noticetest.Bus(t)
	d := noticetest.Serve(t, address)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	if err := Once(t.Context(), "", Notice{Title: "one"}); err != nil {
		t.Fatal(err)
	}
	if got := d.Next(t); got.Title != "one" {
		t.Errorf("%+v", got)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("PATH", "")
	if err := Once(t.Context(), "", Notice{Title: "two"}); err == nil {
		t.Error("there is no bus, and yet there is no error")
	}
}

func TestADeskChangesItsNoticesAndHearsTheirButton(t *testing.T) {
	address := noticetest.Bus(t)
	d := noticetest.Serve(t, address)
	pressed := make(chan string, 4)
	desk := NewDesk(address, func(about string) { pressed <- about })
	defer desk.Close()
	id, err := desk.Show(t.Context(), Notice{Title: "one", Button: "Look"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := desk.Show(t.Context(), Notice{Title: "two", Button: "Look", About: "work"}, id); err != nil || again != id {
		t.Errorf("%d became %d, %v", id, again, err)
	}
	first, second := d.Next(t), d.Next(t)
	if first.Replaces != 0 || second.Replaces != id || !slices.Contains(second.Actions, "Look") {
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
		if err := d.Signal(signal.member, signal.body...); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case about := <-pressed:
		if about != "work" {
			t.Errorf("the button was about %q", about)
		}
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
