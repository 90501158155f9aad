package agent

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"cubicle/app/words"
)

// Notice is what people are told of calls.
type Notice struct {
	Title, Text string
	About       string // the qube that called; empty: none
}

// Notices tells people of calls, and merges what repeats: a qube can have
// itself denied as often as it likes.
type Notices struct {
	// Show puts a notice in the place of the one with the number replaces, 0
	// for none, and returns its number.
	Show func(ctx context.Context, n Notice, replaces uint32) (uint32, error)
	Log  *slog.Logger
	// Pace is the least time between two changes of one notice, Memory how
	// long it is changed instead of a new one being shown.
	Pace, Memory time.Duration

	news    chan News
	entries map[subject]*entry
}

// subject is what one notice is about. Of a source that has too many, all the
// others are one: then only resolution and source are set.
type subject News

// entry is a subject's notice.
type entry struct {
	id    uint32
	count int
	last  time.Time // when its last call was
	shown time.Time
	stale bool // the notice does not show count
}

// maxShown bounds a name that a qube has chosen, in letters.
const maxShown = 60

// maxSubjects bounds the notices of one source that stand side by side.
const maxSubjects = 4

// NewNotices returns notices that wait to be run.
func NewNotices(show func(context.Context, Notice, uint32) (uint32, error), log *slog.Logger) *Notices {
	return &Notices{Show: show, Log: log, Pace: time.Second, Memory: time.Minute,
		news: make(chan News, 256), entries: map[subject]*entry{}}
}

// Tell has people told of a call. It returns at once; where more comes than
// can be told, the rest is in the log alone.
func (n *Notices) Tell(one News) {
	n.Log.Info("call", "resolution", one.Resolution, "source", one.Source, "service", one.Service, "argument", Shorten(one.Argument, maxShown), "target", one.Target)
	select {
	case n.news <- one:
	default:
	}
}

// Run shows what is told until ctx ends.
func (n *Notices) Run(ctx context.Context) {
	tick := time.NewTicker(n.Pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-n.news:
			n.take(ctx, one, time.Now())
		case <-tick.C:
			n.refresh(ctx, time.Now())
		}
	}
}

// take counts a call and shows it, unless its notice has just changed.
func (n *Notices) take(ctx context.Context, one News, now time.Time) {
	s := subject(one)
	if _, known := n.entries[s]; !known && one.Resolution != Broken && n.crowded(one.Source) {
		s = subject{Resolution: one.Resolution, Source: one.Source}
	}
	e := n.entries[s]
	if e == nil {
		e = &entry{}
		n.entries[s] = e
	}
	e.count++
	e.last, e.stale = now, true
	if now.Sub(e.shown) >= n.Pace {
		n.show(ctx, s, e, now)
	}
}

// crowded tells whether a source has as many notices as it may.
func (n *Notices) crowded(source string) bool {
	own := 0
	for s := range n.entries {
		if s.Source == source && s.Service != "" {
			own++
		}
	}
	return own >= maxSubjects
}

// refresh shows what has changed since, and forgets what is long past.
func (n *Notices) refresh(ctx context.Context, now time.Time) {
	for s, e := range n.entries {
		switch {
		case e.stale:
			n.show(ctx, s, e, now)
		case now.Sub(e.last) > n.Memory:
			delete(n.entries, s)
		}
	}
}

func (n *Notices) show(ctx context.Context, s subject, e *entry, now time.Time) {
	notice := s.notice(e.count)
	id, err := n.Show(ctx, notice, e.id)
	if err != nil && ctx.Err() == nil {
		n.Log.Warn(notice.Title, "text", notice.Text, "error", err)
	}
	e.id, e.shown, e.stale = id, now, false
}

// notice is a subject in words.
func (s subject) notice(count int) Notice {
	if s.Resolution == Broken {
		return Notice{Title: words.T("The policy is wrong"), Text: words.T("Every call between qubes is denied until it is mended.") + " " + s.Fault}
	}
	n := Notice{Title: words.T("Call denied"), About: s.Source}
	if s.Service == "" {
		switch s.Resolution {
		case Allowed:
			n.Title = words.T("Calls allowed")
			n.Text = words.N(count, "%d other call was allowed", "%d other calls were allowed")
		case Failed:
			n.Title = words.T("Calls failed")
			n.Text = words.N(count, "%d other call failed", "%d other calls failed")
		default:
			n.Title = words.T("Calls denied")
			n.Text = words.N(count, "%d other call was denied", "%d other calls were denied")
		}
		n.Text = s.Source + ": " + n.Text + ". " + hint()
		return n
	}
	service := s.Service
	if s.Argument != "" {
		service += "+" + s.Argument
	}
	service, target := Shorten(service, maxShown), target(s.Target)
	switch {
	case s.Resolution == Allowed && target != "":
		n.Text = words.T("%s was allowed %s to %s", s.Source, service, target)
	case s.Resolution == Allowed:
		n.Text = words.T("%s was allowed %s", s.Source, service)
	case s.Resolution == Failed && target != "":
		n.Text = words.T("%s could not be served %s by %s", s.Source, service, target)
	case s.Resolution == Failed:
		n.Text = words.T("%s could not be served %s", s.Source, service)
	case target != "":
		n.Text = words.T("%s was denied %s to %s", s.Source, service, target)
	default:
		n.Text = words.T("%s was denied %s", s.Source, service)
	}
	switch s.Resolution {
	case Allowed:
		n.Title = words.T("Call allowed")
	case Failed:
		n.Title = words.T("Call failed")
	}
	if count > 1 {
		n.Text += words.T(" — %d times", count)
	}
	n.Text += ". " + hint()
	return n
}

func hint() string { return words.T("The Qube Manager shows recent calls.") }

// target is a call's target in words, or empty where it named none.
func target(name string) string {
	base, disposable := strings.CutPrefix(name, DispVM)
	switch {
	case name == "" || name == "@default":
		return ""
	case name == "@adminvm":
		return "dom0"
	case name == "@dispvm":
		return words.T("a disposable")
	case disposable:
		return words.T("Disposable VM (%s)", base)
	}
	return name
}
