package main_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// testManyQubes runs several qubes at once, each with a window that is drawn.
// CUBICLE_TEST_QUBES says how many beside the two of the desktop; 28 is what
// the project aims at here.
func (d *desktop) testManyQubes(t *testing.T) {
	n := 4
	if text := os.Getenv("CUBICLE_TEST_QUBES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("many%d", i))
	}
	t.Cleanup(func() {
		for _, name := range names {
			_, _, _ = d.tool("qvm-kill", name) // where a start failed it does not run
			if _, _, err := d.tool("qvm-remove", "--force", name); err != nil {
				t.Error(err)
			}
		}
	})
	for _, name := range names {
		if _, _, err := d.tool("qvm-create", "--label", "blue", name); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.tool("qvm-run", "--service", name, "qubes.StartApp+xterm"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append(names, "work") {
		w := d.find(t, name, "XTerm")
		eventually(t, func() string {
			d.raise(t, w)
			if drawn, err := d.screen.IsDrawn(w); err != nil || !drawn {
				return fmt.Sprintf("the window of %s is not drawn (%v)", name, err)
			}
			return ""
		})
		if got := d.inQube(t, name, "hostname"); got != name {
			t.Errorf("%s is called %q", name, got)
		}
	}
}
