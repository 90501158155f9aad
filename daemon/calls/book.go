package calls

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
)

const (
	// kept is how many calls the book has, and keptOfOne how many of one caller:
	// a qube that floods does not push out what the others did.
	kept      = 1000
	keptOfOne = kept / 4
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
	calls []Entry           // by number: oldest first
	of    map[qube.UUID]int // how many calls each caller has in it
}

// begin is the entry of a call that has just come.
func (b *book) begin(asked control.Call) *Entry {
	return &Entry{Time: time.Now(), Service: asked.Service, Asked: asked.Target}
}

// put keeps an entry as it is now, in the place that it has.
func (b *book) put(e *Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.number != 0 {
		at, there := slices.BinarySearchFunc(b.calls, e.number, func(e Entry, number uint64) int { return cmp.Compare(e.number, number) })
		if there { // else others have taken its place
			b.calls[at] = *e
		}
		return
	}
	switch {
	case b.of[e.from] >= keptOfOne:
		b.drop(slices.IndexFunc(b.calls, func(old Entry) bool { return old.from == e.from }))
	case len(b.calls) >= kept:
		b.drop(0)
	}
	if b.of == nil {
		b.of = map[qube.UUID]int{}
	}
	b.last++
	e.number = b.last
	b.calls = append(b.calls, *e)
	b.of[e.from]++
}

// drop forgets a call; mu is held.
func (b *book) drop(at int) {
	from := b.calls[at].from
	b.calls = slices.Delete(b.calls, at, at+1)
	if b.of[from]--; b.of[from] == 0 {
		delete(b.of, from)
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

// ended records an allowed call, of which qrexecd has told the end.
func (c *Calls) ended(e *Entry, end control.End) {
	e.Connect, e.Run = time.Duration(end.Connect), time.Duration(end.Service)
	e.Error = end.Error
	c.record(e)
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
