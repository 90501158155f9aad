package screen

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

func TestWindowsOfAQubeAreCountedAsTheyComeAndGo(t *testing.T) {
	name := display(t)
	s, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	told, ended := make(chan map[string]int, 16), make(chan error, 1)
	go func() { ended <- s.Count(ctx, func(n map[string]int) { told <- n }) }()
	defer func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("counting ended with %v", err)
		}
		s.Close()
	}()

	expect := func(what string, want map[string]int) {
		t.Helper()
		late := time.After(30 * time.Second)
		for {
			select {
			case got := <-told:
				if maps.Equal(got, want) {
					return
				}
				t.Logf("%s: %v on the way", what, got)
			case <-late:
				t.Fatalf("%s: never %v", what, want)
			}
		}
	}
	x11test.StartWM(t, name, "openbox")
	expect("an empty desktop", map[string]int{})
	conn := x11test.Dial(t, name)
	vmname, err := conn.Atom("_QUBES_VMNAME")
	if err != nil {
		t.Fatal(err)
	}
	window := func(qube string) x11.Window {
		t.Helper()
		w, err := conn.CreateWindow(conn.Root(), 0, 0, 50, 50, x11.Attributes{})
		if err != nil {
			t.Fatal(err)
		}
		if qube != "" {
			conn.SetText(w, vmname, x11.AtomString, qube)
		}
		conn.Map(w)
		if err := conn.Sync(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	first := window("work")
	window("work")
	window("vault")
	window("") // dom0's own
	expect("four windows", map[string]int{"work": 2, "vault": 1})
	conn.Destroy(first)
	if err := conn.Sync(); err != nil {
		t.Fatal(err)
	}
	expect("after one closed", map[string]int{"work": 1, "vault": 1})
}
