package dom0

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// delays are how long a change may wait for others. A window that is drawn
// anew takes processors away from the very work that it tells of: a qube has
// often started before its first step would be on the screen.
var delays = [important]time.Duration{
	chatter: 250 * time.Millisecond, // four a second
	step:    60 * time.Millisecond,  // still at once for people
}

// feed keeps the newest state, makes snapshots of it and hands them on.
//
// Lock order: mu is never held while a watcher runs; delivery is ordered by
// notifying, which is taken before mu.
type feed struct {
	notifying sync.Mutex // held while watchers run, so that they see snapshots in order

	mu       sync.Mutex
	state    Snapshot // lists unused, see the maps
	qubes    map[QubeID]Qube
	jobs     map[JobID]Job
	jobOrder []JobID
	labels   map[string]Label
	latest   *Snapshot
	watchers map[int]func(*Snapshot)
	nextKey  int
	pending  weight                      // of what latest does not show yet
	armed    [important]bool             // whose delay runs
	after    func(time.Duration, func()) // time.AfterFunc, or a test's clock
}

func newFeed(after func(time.Duration, func())) *feed {
	return &feed{
		qubes:    map[QubeID]Qube{},
		jobs:     map[JobID]Job{},
		labels:   map[string]Label{},
		latest:   &Snapshot{Link: Connecting},
		watchers: map[int]func(*Snapshot){},
		after:    after,
	}
}

func wallClock(d time.Duration, f func()) { time.AfterFunc(d, f) }

// weight is how urgently a change is wanted.
type weight int

const (
	nothing   weight = iota
	chatter          // figures that nobody waits for
	step             // work has begun or goes on
	important        // what somebody may wait for
)

// change edits the state under the lock and publishes it as urgently as the
// edit says.
func (f *feed) change(edit func() weight) {
	f.mu.Lock()
	w := edit()
	f.pending = max(f.pending, w)
	arm := w != nothing && w != important && !f.armed[w]
	if arm {
		f.armed[w] = true
	}
	f.mu.Unlock()
	switch {
	case w == important:
		f.publish()
	case arm:
		f.after(delays[w], func() { f.delayed(w) })
	}
}

// delayed publishes what has waited, unless it was published meanwhile.
func (f *feed) delayed(w weight) {
	f.mu.Lock()
	f.armed[w] = false
	due := f.pending != nothing
	f.mu.Unlock()
	if due {
		f.publish()
	}
}

func (f *feed) publish() {
	f.notifying.Lock()
	defer f.notifying.Unlock()
	f.mu.Lock()
	f.pending = nothing
	snapshot := f.snapshot()
	f.latest = snapshot
	watchers := slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	for _, notify := range watchers {
		notify(snapshot)
	}
}

// snapshot copies the state; the caller holds mu.
func (f *feed) snapshot() *Snapshot {
	s := f.state
	s.Engines = slices.Clone(f.state.Engines)
	s.Qubes = slices.SortedFunc(maps.Values(f.qubes), func(a, b Qube) int { return cmp.Compare(a.Name, b.Name) })
	s.Labels = slices.SortedFunc(maps.Values(f.labels), func(a, b Label) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), strings.Compare(a.Name, b.Name))
	})
	s.Jobs = make([]Job, 0, len(f.jobs))
	for _, id := range f.jobOrder {
		if j, ok := f.jobs[id]; ok {
			s.Jobs = append(s.Jobs, j)
		}
	}
	return &s
}

// Snapshot implements Client.
func (f *feed) Snapshot() *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// Watch implements Client.
func (f *feed) Watch(notify func(*Snapshot)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := f.nextKey
	f.nextKey++
	f.watchers[key] = notify
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, key)
	}
}

// putQube sets a qube; the caller is inside change.
func (f *feed) putQube(q Qube) weight {
	old, known := f.qubes[q.ID]
	if known && old == q {
		return nothing
	}
	f.qubes[q.ID] = q
	// What is left of the difference without the figures decides.
	old.MemoryUsed, old.CPU, old.Disk = q.MemoryUsed, q.CPU, q.Disk
	if known && old == q {
		return chatter
	}
	if known && (q.State == Transient || q.State == Halting || q.State == Dying) {
		return step
	}
	return important
}

// putJob sets a job; the caller is inside change.
func (f *feed) putJob(j Job) weight {
	old, known := f.jobs[j.ID]
	if known && old == j {
		return nothing
	}
	if !known {
		f.jobOrder = append(f.jobOrder, j.ID)
	}
	f.jobs[j.ID] = j
	switch {
	case known && old.State == j.State:
		return chatter
	case j.State == JobRunning:
		return step
	}
	return important
}

// dropJob forgets a job; the caller is inside change.
func (f *feed) dropJob(id JobID) {
	delete(f.jobs, id)
	f.jobOrder = slices.DeleteFunc(f.jobOrder, func(o JobID) bool { return o == id })
}

// clear forgets everything but the watchers; the caller is inside change.
func (f *feed) clear() {
	clear(f.qubes)
	clear(f.jobs)
	clear(f.labels)
	f.jobOrder = nil
	f.state = Snapshot{}
}
