package main

import (
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
