package core

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// journal keeps the last messages about each qube, for people who ask why it
// does what it does. It sees what is logged with the attribute "qube", a name
// or a UUID.
type journal struct {
	mu   sync.Mutex
	said map[string][]entryLine // by the attribute's value
}

type entryLine struct {
	at   time.Time
	text string
}

// Bounds of the journal: messages per qube, qubes, and bytes of a message.
const (
	journalLines = 200
	journalQubes = 4096
	journalText  = 1024
)

func newJournal() *journal { return &journal{said: map[string][]entryLine{}} }

func (j *journal) add(of string, at time.Time, text string) {
	if len(text) > journalText {
		text = strings.ToValidUTF8(text[:journalText], "") + "…"
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, known := j.said[of]; !known && len(j.said) >= journalQubes {
		clear(j.said) // names of qubes long gone
	}
	lines := append(j.said[of], entryLine{at, text})
	j.said[of] = lines[max(0, len(lines)-journalLines):]
}

// last returns the newest lines about any of the names, oldest first.
func (j *journal) last(n int, names ...string) []string {
	j.mu.Lock()
	var all []entryLine
	for _, name := range names {
		all = append(all, j.said[name]...)
	}
	j.mu.Unlock()
	slices.SortStableFunc(all, func(a, b entryLine) int { return a.at.Compare(b.at) })
	all = all[max(0, len(all)-n):]
	lines := make([]string, len(all))
	for i, l := range all {
		lines[i] = l.at.Format(time.DateTime) + " " + l.text
	}
	return lines
}

// follow returns a logger that writes where log does, and into the journal.
func (j *journal) follow(log *slog.Logger) *slog.Logger {
	return slog.New(&journalHandler{Handler: log.Handler(), journal: j})
}

// journalHandler passes records on; those of a qube are kept as well.
type journalHandler struct {
	slog.Handler
	journal *journal
	qube    string      // said by With
	attrs   []slog.Attr // the others that were
	grouped bool        // attributes belong to a group, and are not ours
}

// Enabled keeps what people should see even where nobody reads the log.
func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.Handler, next.attrs = h.Handler.WithAttrs(attrs), slices.Clone(h.attrs)
	for _, a := range attrs {
		if a.Key == "qube" && !h.grouped {
			next.qube = a.Value.String()
			continue
		}
		next.attrs = append(next.attrs, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.Handler, next.grouped = h.Handler.WithGroup(name), true
	return &next
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	of := h.qube
	var text strings.Builder
	text.WriteString(r.Message)
	if r.Level >= slog.LevelWarn {
		text.Reset()
		fmt.Fprintf(&text, "%s: %s", strings.ToLower(r.Level.String()), r.Message)
	}
	write := func(a slog.Attr) { fmt.Fprintf(&text, " · %s: %s", a.Key, a.Value) }
	for _, a := range h.attrs {
		write(a)
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "qube" && !h.grouped {
			of = a.Value.String()
		} else {
			write(a)
		}
		return true
	})
	if of != "" && r.Level >= slog.LevelInfo {
		h.journal.add(of, r.Time, text.String())
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}
