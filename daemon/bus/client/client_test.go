package client

import (
	"context"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
)

func TestAddress(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
	for root, want := range map[string]string{
		"/":             "unix:path=/run/dbus/system_bus_socket",
		"/tmp/a b,c;d%": "unix:path=/tmp/a%20b%2cc%3bd%25/run/dbus/system_bus_socket",
	} {
		if got := Address(paths.Root(root)); got != want {
			t.Errorf("%s: %s, want %s", root, got, want)
		}
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/else")
	if got := Address("/"); got != "unix:path=/else" {
		t.Error(got)
	}
}

func TestPathsNameTheirObjects(t *testing.T) {
	id := string(qube.NewUUID())
	if got, ok := uuidOf(QubePath(id)); !ok || got != id {
		t.Errorf("%s: %s", QubePath(id), got)
	}
	if got, ok := jobOf(JobPath(42)); !ok || got != 42 {
		t.Errorf("%s: %d", JobPath(42), got)
	}
	if p := LabelPath("my-label.1"); !p.IsValid() || p == LabelPath("my_label.1") {
		t.Errorf("%s", p)
	}
}

// take reads what waits in a queue.
func take(t *testing.T, q *queue, n int) []Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out := make(chan Event)
	go q.drain(ctx, out)
	var got []Event
	for range n {
		select {
		case e := <-out:
			got = append(got, e)
		case <-ctx.Done():
			t.Fatalf("only %d events", len(got))
		}
	}
	select {
	case e := <-out:
		t.Errorf("one too many: %#v", e)
	case <-time.After(5 * time.Millisecond):
	}
	return got
}

func TestWaitingChangesOfOneQubeAreMerged(t *testing.T) {
	q := newQueue()
	a := func(s qube.State) QubeChanged { return QubeChanged{Qube{UUID: "a", State: s}} }
	q.push(QubeAdded{Qube{UUID: "a"}})
	q.push(a(qube.Transient))
	q.push(QubeChanged{Qube{UUID: "b"}})
	q.push(a(qube.Running))
	q.push(QubeRemoved{Qube{UUID: "b"}})
	q.push(Lost{})
	q.push(a(qube.Halted))
	got := take(t, q, 6)
	if got[1] != a(qube.Running) || got[5] != a(qube.Halted) {
		t.Errorf("%#v", got)
	}
}

// Signals from before the snapshot may be applied after it: they must not
// bring back what is gone, and end in the same state.
func TestLateSignalsDoNoHarm(t *testing.T) {
	s := newSnapshot()
	path := QubePath("a")
	if e := s.put(path, QubeInterface, properties{"State": dbus.MakeVariant("Running")}, false); e != nil || len(s.Qubes) != 0 {
		t.Errorf("a change of an unknown qube: %#v", e)
	}
	s.put(path, QubeInterface, properties{"Name": dbus.MakeVariant("work"), "State": dbus.MakeVariant("Halted")}, true)
	if e, ok := s.put(path, QubeInterface, properties{"Name": dbus.MakeVariant("work")}, true).(QubeChanged); !ok || e.Qube.State != qube.Halted {
		t.Errorf("added again: %#v", e)
	}
	s.put(path, QubeInterface, properties{"State": dbus.MakeVariant(7)}, false)
	if s.Qubes["a"].State != qube.Halted {
		t.Errorf("a value of a wrong type was taken: %v", s.Qubes["a"].State)
	}
	if e := s.drop(path); e != (QubeRemoved{Qube{UUID: "a", Name: "work", State: qube.Halted}}) {
		t.Errorf("%#v", e)
	}
	if e := s.drop(path); e != nil {
		t.Errorf("removed twice: %#v", e)
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if c, err := Connect(ctx, "unix:path="+t.TempDir()+"/none"); err == nil {
		c.Close()
		t.Error("connected to nothing")
	}
}
