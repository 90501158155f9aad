package qrexec

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A qube decides how often it breaks the protocol, and so how often dom0
// writes about it. Each qube has logBurst records, and gets one back every
// logEvery; what is dropped is counted in the next record.
const (
	logBurst = 100
	logEvery = time.Second
)

// logLimit is the bucket that all loggers of one qube share.
type logLimit struct {
	mu      sync.Mutex // guards what follows
	spent   int        // records that were not given back yet
	since   time.Time  // when the last one was given back
	dropped int
}

// take reports whether a record may be written at now, and how many were
// dropped before it.
func (l *logLimit) take(now time.Time) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if back := int(now.Sub(l.since) / logEvery); back > 0 {
		l.spent = max(l.spent-back, 0)
		l.since = now
	}
	if l.spent == logBurst {
		l.dropped++
		return 0, false
	}
	l.spent++
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

// limitedLog is a handler before another one.
type limitedLog struct {
	slog.Handler
	limit *logLimit
}

func (h limitedLog) Handle(ctx context.Context, r slog.Record) error {
	dropped, ok := h.limit.take(r.Time)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("dropped", dropped))
	}
	return h.Handler.Handle(ctx, r)
}

func (h limitedLog) WithAttrs(a []slog.Attr) slog.Handler {
	return limitedLog{h.Handler.WithAttrs(a), h.limit}
}

func (h limitedLog) WithGroup(name string) slog.Handler {
	return limitedLog{h.Handler.WithGroup(name), h.limit}
}

// limitLog returns a logger for one qube.
func limitLog(log *slog.Logger) *slog.Logger {
	return slog.New(limitedLog{log.Handler(), &logLimit{since: time.Now()}})
}
