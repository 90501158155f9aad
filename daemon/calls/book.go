package calls

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
)

const (
	// kept is how many calls the book has.
	kept = 1000
	// A flood of calls must not fill the disk with the log.
	lineTime  = 100 * time.Millisecond
	lineBurst = 200
)

// Entry is what became of a call.
type Entry struct {
	Time    time.Time // when it came
	Source  string    // the caller's name; empty: none is known
	Service string    // NAME or NAME+ARGUMENT
	Asked   string    // target as asked for; may be empty
	Target  string    // target as decided; empty: none
	Allowed bool
	Running bool   // it was allowed and goes on
	Rule    string // FILE:LINE that decided; empty: none
	Reason  string // why it was denied, for people
	User    string // user= of the rule; empty: the target's default
	Error   string // what went wrong

	// How long its stages took: the policy's decision, the person's, the start
	// of the target, the making of the channel, and the service itself.
	Policy, Ask, Start, Connect, Run time.Duration

	number uint64    // of the book's
	from   qube.UUID // the caller's; empty: none is known
}

// book keeps the last calls.
type book struct {
	mu    sync.Mutex // guards what follows
	last  uint64
	calls []Entry // by number: oldest first
}

// begin is the entry of a call that has just come.
func (b *book) begin(asked control.Call) *Entry {
	return &Entry{Time: time.Now(), Service: asked.Service, Asked: asked.Target}
}

// put keeps an entry as it is now, in the place that it has.
func (b *book) put(e *Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.number == 0 {
		b.last++
		e.number = b.last
		if len(b.calls) == kept {
			b.calls = slices.Delete(b.calls, 0, 1)
		}
		b.calls = append(b.calls, *e)
		return
	}
	first := b.calls[0].number
	if e.number >= first {
		b.calls[e.number-first] = *e
	}
}

// Recent are the last calls of a qube or to it, or of all with an empty name,
// the newest first.
func (c *Calls) Recent(name string, limit int) []Entry {
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	var list []Entry
	for _, e := range slices.Backward(c.book.calls) {
		if len(list) >= limit {
			break
		}
		if name == "" || e.Source == name || e.Target == name {
			list = append(list, e)
		}
	}
	return list
}

// record keeps and logs a call that is over.
func (c *Calls) record(e *Entry) {
	e.Running = false
	c.book.put(e)
	silent, ok := c.lines.take(e.from, time.Now())
	if !ok {
		return
	}
	level, word := slog.LevelInfo, "denied"
	if e.Allowed {
		word = "allowed"
	}
	attrs := []slog.Attr{
		slog.String("source", e.Source), slog.String("service", e.Service), slog.String("asked", e.Asked), slog.String("target", e.Target),
		slog.String("rule", e.Rule), slog.Duration("policy", e.Policy),
	}
	for _, stage := range e.Stages()[1:] {
		if stage.Time > 0 {
			attrs = append(attrs, slog.Duration(stage.Name, stage.Time))
		}
	}
	for _, more := range []slog.Attr{slog.String("user", e.User), slog.String("reason", e.Reason), slog.String("error", e.Error)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	if silent > 0 {
		attrs = append(attrs, slog.Int("not_logged_before", silent))
	}
	c.log.LogAttrs(context.Background(), level, "call "+word, attrs...)
}

// Stage is a part of a call's time.
type Stage struct {
	Name string
	Time time.Duration
}

// Stages are the parts of a call's time, in order.
func (e *Entry) Stages() []Stage {
	return []Stage{{"policy", e.Policy}, {"ask", e.Ask}, {"start", e.Start}, {"connect", e.Connect}, {"service_time", e.Run}}
}
