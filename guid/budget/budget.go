// Package budget bounds what one qube may cause in dom0 over time.
package budget

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Budget fills up with time. It may be overdrawn; nothing is to be spent until
// it is positive again. It is not safe for concurrent use.
type Budget struct {
	burst, perSecond float64
	level            float64
	last             time.Time
}

// New returns a full budget of burst units that gets perSecond units back.
func New(burst, perSecond float64, now time.Time) Budget {
	return Budget{burst, perSecond, burst, now}
}

func (b *Budget) fill(now time.Time) {
	b.level = min(b.burst, b.level+now.Sub(b.last).Seconds()*b.perSecond)
	b.last = now
}

// Spend takes n units away and returns how long to wait before the next are
// spent, 0 for not at all.
func (b *Budget) Spend(n float64, now time.Time) time.Duration {
	b.fill(now)
	if b.level -= n; b.level > 0 {
		return 0
	}
	return time.Duration((1 - b.level) / b.perSecond * float64(time.Second))
}

// Lines of the log that one qube may cause: some at once, then a trickle.
const (
	linesBurst     = 30
	linesPerSecond = 0.2
)

// QuietLog is a log that a misbehaving qube cannot fill: what goes beyond some
// lines is counted, and the count stands in the next line that comes through.
func QuietLog(log *slog.Logger) *slog.Logger {
	return slog.New(&quiet{next: log.Handler(), shared: &quietState{budget: New(linesBurst, linesPerSecond, time.Now())}})
}

type quiet struct {
	next   slog.Handler
	shared *quietState
}

type quietState struct {
	mu      sync.Mutex // guards what follows
	budget  Budget
	omitted int
}

func (q *quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.next.Enabled(ctx, level)
}

func (q *quiet) Handle(ctx context.Context, r slog.Record) error {
	omitted, ok := q.shared.admit(time.Now())
	if !ok {
		return nil
	}
	if omitted > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("lines_omitted_before", omitted))
	}
	return q.next.Handle(ctx, r)
}

func (s *quietState) admit(now time.Time) (omitted int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget.fill(now); s.budget.level < 1 {
		s.omitted++
		return 0, false
	}
	s.budget.level--
	omitted, s.omitted = s.omitted, 0
	return omitted, true
}

func (q *quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quiet{q.next.WithAttrs(attrs), q.shared}
}

func (q *quiet) WithGroup(name string) slog.Handler { return &quiet{q.next.WithGroup(name), q.shared} }
