package qrexec

import (
	"strings"
	"testing"
	"time"
)

func TestSetTime(t *testing.T) {
	now := time.Date(2026, 1, 31, 22, 59, 21, 0, time.UTC)
	for _, c := range []struct {
		line string
		set  string // "": not set
		bad  bool
	}{
		{"2026-01-31T22:59:21+00:00\n", "", false},
		{"2026-01-31T22:59:23+00:00\n", "", false},
		{"2026-01-31T22:59:24+00:00\n", "22:59:24", false},
		{"2026-01-31T22:59:18+00:00", "22:59:18", false},
		{"2026-02-01T00:59:24+02:00\n", "22:59:24", false},
		{"yesterday\n", "", true},
		{"", "", true},
		{"2026-01-31T22:59:24+00:00\n2026-01-31T22:59:24+00:00\n", "", true},
		{strings.Repeat("2", 1000), "", true},
	} {
		set := ""
		err := setTime(strings.NewReader(c.line), func() time.Time { return now }, func(t time.Time) error {
			set = t.UTC().Format(time.TimeOnly)
			return nil
		})
		if set != c.set || (err != nil) != c.bad {
			t.Errorf("%.40q: %q, %v", c.line, set, err)
		}
	}
}
