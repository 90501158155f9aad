package qrexec

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
)

// clockSlack is how far the clock may be off without being set.
const clockSlack = 2 * time.Second

// maxDate bounds the line that qubes.SetDateTime reads, in bytes.
const maxDate = 64

// planSetTime sets the clock (spec/services.md §10, qubes.SetDateTime). In a
// sandbox the clock is dom0's and always right; there nothing has to be done.
func planSetTime(_ *agent, p *plan, _ *wire.RPC) error {
	p.Run = func(_ context.Context, s service.Streams) int {
		if err := setTime(s.Stdin, time.Now, func(t time.Time) error {
			tv := unix.NsecToTimeval(t.UnixNano())
			return unix.Settimeofday(&tv)
		}); err != nil {
			fmt.Fprintln(s.Stderr, err)
			return 1
		}
		return 0
	}
	return nil
}

// setTime reads a line such as 2026-01-31T22:59:21+00:00 and sets the clock to
// it when the clock is off by more than clockSlack.
func setTime(in io.Reader, now func() time.Time, set func(time.Time) error) error {
	b, err := io.ReadAll(io.LimitReader(in, maxDate))
	if err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return fmt.Errorf("the date: %w", err)
	}
	if off := t.Sub(now()); off.Abs() <= clockSlack {
		return nil
	}
	if err := set(t); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}
