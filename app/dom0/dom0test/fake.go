// Package dom0test stands in for the daemon: Fake is a dom0.Client in
// memory, Service is the daemon's face on a D-Bus of its own.
package dom0test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"cubicle/app/dom0"
	"cubicle/daemon/qube"
)

// Fake is a dom0.Client whose state a test edits. Watchers run on the
// goroutine that calls Edit.
type Fake struct {
	mu       sync.Mutex
	snapshot *dom0.Snapshot
	watchers map[int]func(*dom0.Snapshot)
	keys     int
	jobs     int
	calls    []string
	refuse   map[string]error

	within map[dom0.Name]*Interior
}

var _ dom0.Client = (*Fake)(nil)

// NewFake returns a client in the given state.
func NewFake(s dom0.Snapshot) *Fake {
	f := &Fake{watchers: map[int]func(*dom0.Snapshot){}, refuse: map[string]error{}, within: map[dom0.Name]*Interior{}}
	f.snapshot = tidy(s)
	return f
}

// Labels are the eight built-in labels, by index.
func Labels() []dom0.Label { return slices.Clone(qube.Labels[:]) }

func tidy(s dom0.Snapshot) *dom0.Snapshot {
	s.Qubes, s.Jobs, s.Labels = slices.Clone(s.Qubes), slices.Clone(s.Jobs), slices.Clone(s.Labels)
	slices.SortFunc(s.Qubes, func(a, b dom0.Qube) int { return cmp.Compare(a.Name, b.Name) })
	return &s
}

// Edit changes a copy of the state and hands it to the watchers.
func (f *Fake) Edit(edit func(*dom0.Snapshot)) {
	f.mu.Lock()
	next := *f.snapshot
	next.Qubes, next.Jobs = slices.Clone(next.Qubes), slices.Clone(next.Jobs)
	edit(&next)
	f.snapshot = tidy(next)
	snapshot, watchers := f.snapshot, slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	for _, notify := range watchers {
		notify(snapshot)
	}
}

// EditQube changes one qube.
func (f *Fake) EditQube(name dom0.Name, edit func(*dom0.Qube)) {
	f.Edit(func(s *dom0.Snapshot) {
		for i := range s.Qubes {
			if s.Qubes[i].Name == name {
				edit(&s.Qubes[i])
			}
		}
	})
}

// PutJob adds a job or replaces the one with its ID.
func (f *Fake) PutJob(j dom0.Job) {
	f.Edit(func(s *dom0.Snapshot) {
		for i := range s.Jobs {
			if s.Jobs[i].ID == j.ID {
				s.Jobs[i] = j
				return
			}
		}
		s.Jobs = append(s.Jobs, j)
	})
}

// Refuse makes the action op fail with err from now on; nil lets it pass.
func (f *Fake) Refuse(op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse[op] = err
}

// Calls returns the actions so far, each as "op qube arguments…", and
// forgets them.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *Fake) call(op string, id dom0.QubeID, arguments ...any) (dom0.JobID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	subject := string(id)
	if q, ok := f.snapshot.ByID(id); ok {
		subject = string(q.Name)
	}
	line := strings.TrimSpace(op + " " + subject + " " + strings.TrimSpace(fmt.Sprintln(arguments...)))
	f.calls = append(f.calls, line)
	if err := f.refuse[op]; err != nil {
		return "", err
	}
	f.jobs++
	return dom0.JobID(fmt.Sprintf("job%d", f.jobs)), nil
}

// Snapshot implements dom0.Client.
func (f *Fake) Snapshot() *dom0.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot
}

// Watch implements dom0.Client.
func (f *Fake) Watch(notify func(*dom0.Snapshot)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := f.keys
	f.keys++
	f.watchers[key] = notify
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, key)
	}
}

// Create implements dom0.Client.
func (f *Fake) Create(_ context.Context, w dom0.NewQube) (dom0.JobID, error) {
	more := []any{w.Class, w.Label.Name, w.Template}
	for _, name := range slices.Sorted(maps.Keys(w.Properties)) {
		more = append(more, name+"="+w.Properties[name])
	}
	if w.Private > 0 {
		more = append(more, fmt.Sprintf("private:%d", w.Private))
	}
	return f.call("create", dom0.QubeID(w.Name), more...)
}

// Clone implements dom0.Client.
func (f *Fake) Clone(_ context.Context, id dom0.QubeID, name dom0.Name) (dom0.JobID, error) {
	return f.call("clone", id, name)
}

// Remove implements dom0.Client.
func (f *Fake) Remove(_ context.Context, id dom0.QubeID) (dom0.JobID, error) {
	return f.call("remove", id)
}

// Start implements dom0.Client.
func (f *Fake) Start(_ context.Context, id dom0.QubeID) (dom0.JobID, error) {
	return f.call("start", id)
}

// Shutdown implements dom0.Client.
func (f *Fake) Shutdown(_ context.Context, id dom0.QubeID, force bool) (dom0.JobID, error) {
	if force {
		return f.call("shutdown", id, "force")
	}
	return f.call("shutdown", id)
}

// Kill implements dom0.Client.
func (f *Fake) Kill(_ context.Context, id dom0.QubeID) (dom0.JobID, error) { return f.call("kill", id) }

// Pause implements dom0.Client.
func (f *Fake) Pause(_ context.Context, id dom0.QubeID) (dom0.JobID, error) {
	return f.call("pause", id)
}

// Unpause implements dom0.Client.
func (f *Fake) Unpause(_ context.Context, id dom0.QubeID) (dom0.JobID, error) {
	return f.call("unpause", id)
}

// StartApp implements dom0.Client.
func (f *Fake) StartApp(_ context.Context, id dom0.QubeID, app dom0.AppID) (dom0.JobID, error) {
	return f.call("app", id, app)
}

// Run implements dom0.Client.
func (f *Fake) Run(_ context.Context, id dom0.QubeID, command, user string) (dom0.JobID, error) {
	return f.call("run", id, command, user)
}

// Cancel implements dom0.Client.
func (f *Fake) Cancel(_ context.Context, id dom0.JobID) error {
	_, err := f.call("cancel", dom0.QubeID(id))
	return err
}
