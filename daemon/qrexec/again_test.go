package qrexec

import (
	"errors"
	"testing"
	"time"
)

func TestTheSameNewsIsToldOnceAMinute(t *testing.T) {
	var a again
	now := time.Unix(1000, 0)
	for i, c := range []struct {
		text   string
		after  time.Duration
		tell   bool
		untold int
	}{
		{"lost", 0, true, 0},
		{"lost", time.Second, false, 0},
		{"refused", 4 * time.Second, false, 0},
		{"refused", 6 * time.Second, true, 2},
		{"lost", 12 * time.Second, true, 0},
		{"lost", 71 * time.Second, false, 0},
		{"lost", 72 * time.Second, true, 1},
	} {
		if tell, untold := a.news(errors.New(c.text), now.Add(c.after)); tell != c.tell || untold != c.untold {
			t.Errorf("%d: %v, %d", i, tell, untold)
		}
	}
}
