package main

import (
	"os"
	"path/filepath"
	"testing"

	"cubicle/daemon/engine/boundary"
)

func TestEveryAttemptIsMade(t *testing.T) {
	made := attempts()
	for _, a := range boundary.Attempts {
		if made[a.Name] == nil {
			t.Errorf("nobody tries %q", a.Name)
		}
		delete(made, a.Name)
	}
	for name := range made {
		t.Errorf("%q is tried, and not in the table", name)
	}
}

// On a developer's machine nothing but looking is done.
func TestNotInDom0(t *testing.T) {
	file := filepath.Join(t.TempDir(), "target.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"all", file}, {"one", file, "cut off the pixel region"}, {"bomb", "memory"}} {
		if err := run(args); err == nil {
			t.Errorf("%v is done", args)
		}
	}
}
