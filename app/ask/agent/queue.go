package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Answer is what a person said.
type Answer struct {
	Target string // chosen; empty: no
	All    bool   // no, and no to all that wait of the same source
}

// Queue puts one question at a time. The sources take turns, so that one that
// asks and asks keeps no other from being heard.
type Queue struct {
	// Show puts a question until it is answered or ctx ends, by which it is
	// denied. Waiting tells the sources of the questions behind it, in their
	// order, whenever they change.
	Show func(ctx context.Context, r Request, until time.Time, waiting <-chan []string) Answer
	// Patience is how long a question may stand, waiting included.
	Patience time.Duration
	Log      *slog.Logger

	mu      sync.Mutex // guards what follows
	shown   *question
	waiting []*question
	turn    uint64
	turns   map[string]uint64 // when each source was heard last
}

// question is one that waits or is shown.
type question struct {
	source  string
	turn    chan struct{} // closed when it is its turn
	denied  chan struct{} // closed when it is answered without being shown
	waiting chan []string
}

// Bounds of what waits: a source's own, and all.
const (
	maxOfSource = 16
	maxWaiting  = 128
)

// Ask puts a question when its turn has come, and returns the chosen target or
// "" for no.
func (q *Queue) Ask(ctx context.Context, r Request) string {
	until := time.Now().Add(q.Patience)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	own := &question{source: r.Source, turn: make(chan struct{}), denied: make(chan struct{}), waiting: make(chan []string, 1)}
	if !q.enter(own) {
		q.Log.Warn("denied: too many questions wait", "source", r.Source, "service", r.Service)
		return ""
	}
	defer q.leave(own)
	select {
	case <-own.turn:
	case <-own.denied:
		return ""
	case <-ctx.Done():
		return ""
	}
	a := q.Show(ctx, r, until, own.waiting)
	if a.All {
		q.denyAll(r.Source)
	}
	if a.Target == "" || ctx.Err() != nil {
		return ""
	}
	return a.Target
}

func (q *Queue) enter(own *question) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	same := 0
	for _, w := range q.waiting {
		if w.source == own.source {
			same++
		}
	}
	if same >= maxOfSource || len(q.waiting) >= maxWaiting {
		return false
	}
	q.waiting = append(q.waiting, own)
	q.next()
	return true
}

func (q *Queue) leave(own *question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shown == own {
		q.shown = nil
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(w *question) bool { return w == own })
	q.next()
}

// denyAll answers all that wait of a source.
func (q *Queue) denyAll(source string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *question) bool {
		if w.source == source {
			close(w.denied)
		}
		return w.source == source
	})
	q.next()
}

// next gives the turn to the source that was heard longest ago, and tells the
// shown question who waits. The caller holds mu.
func (q *Queue) next() {
	if q.shown == nil && len(q.waiting) > 0 {
		first := q.order()[0]
		q.shown = first
		q.waiting = slices.DeleteFunc(q.waiting, func(w *question) bool { return w == first })
		if q.turns == nil || len(q.turns) > 8*maxWaiting {
			q.turns = make(map[string]uint64)
		}
		q.turn++
		q.turns[first.source] = q.turn
		close(first.turn)
	}
	if q.shown == nil {
		return
	}
	var sources []string
	for _, w := range q.order() {
		sources = append(sources, w.source)
	}
	select {
	case <-q.shown.waiting: // nobody has read the last word
	default:
	}
	q.shown.waiting <- sources
}

// order is that in which the waiting questions are shown if no other comes.
// The caller holds mu.
func (q *Queue) order() []*question {
	turns := make(map[string]uint64, len(q.waiting))
	for _, w := range q.waiting {
		turns[w.source] = q.turns[w.source]
	}
	left := slices.Clone(q.waiting)
	out := make([]*question, 0, len(left))
	for turn := q.turn; len(left) > 0; {
		first := 0
		for i, w := range left {
			if turns[w.source] < turns[left[first].source] {
				first = i
			}
		}
		turn++
		turns[left[first].source] = turn
		out = append(out, left[first])
		left = slices.Delete(left, first, first+1)
	}
	return out
}
