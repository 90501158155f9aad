// Package core is the set of qubes: their state, and everything that can be
// done to them.
//
// There is one writer at a time (update); readers take a View, which never
// changes, and follow events. What takes longer than a blink is a Job. The
// operations on one machine are serialised by the qube's own lock, which is
// taken before mu; no engine, pool or router is called with mu held.
package core

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
	"cubicle/daemon/vchan"
)

// Router tells qrexecd which qubes are up, and hears from it which agents
// have said hello. Package daemon/core/router is the real one.
type Router interface {
	// Up announces a qube and returns when its link can be reached.
	Up(ctx context.Context, q control.Qube) error
	// Down takes it back.
	Down(d vchan.Domain)
	// Agents delivers every change of an agent's state.
	Agents() <-chan AgentEvent
}

// AgentEvent tells that a qube's agent said hello (Ready) or went away.
type AgentEvent struct {
	Domain vchan.Domain
	Ready  bool
}

// Caller calls services in running qubes (spec/qrexec.md §6, §7).
type Caller interface {
	// Call runs a service and returns its exit code. Cancelling ctx ends the
	// call.
	Call(ctx context.Context, s Service) (exit int, err error)
}

// Service is a call of dom0 to a qube.
type Service struct {
	To      vchan.Domain
	User    string // empty: the qube's default user
	Name    string // name, or name+argument
	Input   string // standard input
	NoInput bool   // neither input nor output: return when the service was begun
	// Output gets what the service writes; an error of its ends the call.
	// nil: nothing is kept.
	Output io.Writer
}

// Builder builds the root image of a template from a recipe.
type Builder interface {
	// Build writes an image below dir and returns its path. It reports
	// progress from 0 to 1 with a text for people.
	Build(ctx context.Context, recipe, dir string, report func(progress float64, text string)) (image string, err error)
	// Features are those that a template of the recipe has from the beginning.
	Features(recipe string) (map[string]string, error)
}

// Clock is the time; tests have their own.
type Clock interface {
	Now() time.Time
	After(time.Duration) <-chan time.Time
}

// WallClock is the real time.
type WallClock struct{}

// Now is time.Now.
func (WallClock) Now() time.Time { return time.Now() }

// After is time.After.
func (WallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Config is what a Core works with.
type Config struct {
	Store   *store.Store
	Pools   []storage.Pool   // the first is the default
	Drivers []storage.Driver // of pools that people add
	Engines []engine.Engine  // strongest first
	// DefaultEngine is the engine of qubes that choose none; empty: the first.
	DefaultEngine string
	Router        Router
	Caller        Caller
	Builder       Builder
	Clock         Clock
	Log           *slog.Logger

	Links     string // folder of the link folders (paths.Root.Links)
	Runs      string // folder of the facts about running qubes, gone after a reboot
	AgentDir  string // folder with the qubes-agent binary
	QrexecUID int    // owner of link folders: the user that qrexecd runs as
	Logs      string // folder of the consoles' logs; empty: none are kept
}

// Core is the set of qubes.
type Core struct {
	cfg     Config
	log     *slog.Logger
	journal *journal
	clock   Clock
	engines map[string]engine.Engine
	pools   poolSet
	hub     hub
	view    atomic.Pointer[View]
	host    host

	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex // guards all changes of view, and what follows
	runs    map[qube.UUID]*run
	starts  map[qube.UUID]context.CancelCauseFunc // of starts under way
	locks   map[qube.UUID]chan struct{}
	jobs    map[uint64]*task
	imports map[volumeKey]importing
	// reserved are the names of qubes that are being made.
	reserved map[qube.Name]store.Record
	// dispids are the numbers of disposables that were given, and when.
	dispids   map[int]time.Time
	lastJob   uint64
	lastDom   vchan.Domain
	watched   int           // how many want statistics
	wake      chan struct{} // capacity 1: watched became positive
	firewalls chan struct{} // capacity 1: rules were set
}

// View is the state now.
func (c *Core) View() *View { return c.view.Load() }

// Subscribe follows the events from now on. A View taken after it contains
// every change whose event is not delivered.
func (c *Core) Subscribe() *Subscription { return c.hub.subscribe(c) }

// Close ends jobs and loops; machines run on.
func (c *Core) Close() {
	c.end()
	c.work.Wait()
}

// tx is a change under way.
type tx struct {
	c      *Core
	before *View // never changes
	v      *View
	events []Event
	// What of the View is a copy of our own already.
	ownQubes, ownJobs bool

	touched []touch                                // what others may follow
	known   map[touch]bool                         // what is in touched
	family  map[qube.Relation]map[qube.Name][]Qube // of kin, made when it is needed
	saved   []*entry                               // whose records are to be saved
	drafts  []store.Record                         // to be saved, of no qube in the View
	system  bool                                   // the system's state is to be saved
	after   []func()                               // done, with mu held, once the change stands
}

// update makes a change: all of it, on disk before it returns, or with an
// error nothing.
func (c *Core) update(change func(*tx) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.view.Load()
	v := *before
	t := &tx{c: c, before: before, v: &v}
	err := change(t)
	if err == nil {
		t.follow()
		t.count()
		err = t.commit()
	}
	if err != nil {
		return advise(err)
	}
	c.view.Store(t.v)
	for _, do := range t.after {
		do()
	}
	c.hub.send(t.events)
	return nil
}

// save marks an entry that edit returned as one to be saved.
func (t *tx) save(e *entry) {
	if !slices.Contains(t.saved, e) {
		t.saved = append(t.saved, e)
	}
}

// commit writes what is to be saved.
func (t *tx) commit() error {
	records := t.drafts
	for _, e := range t.saved {
		if e.rec.UUID == qube.Dom0UUID {
			t.v.system.Admin, t.system = e.rec, true
			continue
		}
		records = append(records, e.rec)
	}
	var system *store.System
	if t.system {
		system = &t.v.system
	}
	if len(records) == 0 && system == nil {
		return nil
	}
	return t.c.cfg.Store.Commit(records, system)
}

// must is update for changes that cannot fail.
func (c *Core) must(change func(*tx)) {
	// The error is nil by construction.
	_ = c.update(func(t *tx) error { change(t); return nil })
}

// edit returns a copy of a qube's entry, or dom0's, that the change may write
// to, but for what its record refers to, or nil.
func (t *tx) edit(id qube.UUID) *entry {
	if id == qube.Dom0UUID {
		if t.v.dom0 == t.before.dom0 {
			dom0 := *t.v.dom0
			t.v.dom0 = &dom0
		}
		return t.v.dom0
	}
	old, ok := t.v.qubes[id]
	if !ok {
		return nil
	}
	if old != t.before.qubes[id] {
		return old // made by this change
	}
	e := *old
	t.put(&e)
	return &e
}

// amend is edit with a record of the change's own that will be saved.
func (t *tx) amend(id qube.UUID) *entry {
	e := t.edit(id)
	if e == nil {
		return nil
	}
	if !slices.Contains(t.saved, e) {
		e.rec = e.rec.Clone()
		t.save(e)
	}
	return e
}

func (t *tx) put(e *entry) {
	t.own()
	_, known := t.v.qubes[e.rec.UUID]
	if t.v.qubes[e.rec.UUID], t.v.names[e.rec.Name] = e, e; !known {
		t.v.sort()
	}
}

func (t *tx) drop(e *entry) {
	t.own()
	delete(t.v.qubes, e.rec.UUID)
	delete(t.v.names, e.rec.Name)
	t.v.sort()
}

func (t *tx) own() {
	if !t.ownQubes {
		t.v.qubes, t.v.names = maps.Clone(t.v.qubes), maps.Clone(t.v.names)
		t.ownQubes = true
	}
}

func (t *tx) putJob(j Job) {
	if !t.ownJobs {
		t.v.jobs, t.ownJobs = maps.Clone(t.v.jobs), true
	}
	t.v.jobs[j.ID] = j
	t.events = append(t.events, Event{Job: j.ID, Ended: j.State != JobRunning})
}

func (t *tx) dropJob(id uint64) {
	if !t.ownJobs {
		t.v.jobs, t.ownJobs = maps.Clone(t.v.jobs), true
	}
	delete(t.v.jobs, id)
	t.events = append(t.events, Event{Job: id})
}

// emit adds an event about a qube, or with nil about the system.
func (t *tx) emit(e *entry, name string, args ...Arg) {
	if e == nil {
		t.events = append(t.events, Event{Name: name, Args: args})
		return
	}
	t.events = append(t.events, Event{Name: name, Subject: e.rec.Name, Args: args, Qube: e.rec.UUID})
}

// setState changes what a qube is doing; the named events follow.
func (c *Core) setState(id qube.UUID, s qube.State, events ...string) {
	c.must(func(t *tx) {
		e := t.edit(id)
		if e == nil {
			return
		}
		e.state = s
		t.events = append(t.events, Event{Qube: id})
		for _, name := range events {
			t.emit(e, name)
		}
	})
}

// lock takes the lock that serialises the operations on one machine.
func (c *Core) lock(ctx context.Context, id qube.UUID) (unlock func(), err error) {
	c.mu.Lock()
	l, ok := c.locks[id]
	if !ok {
		l = make(chan struct{}, 1)
		c.locks[id] = l
	}
	c.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// find returns a qube, or the error for one that is gone.
func (c *Core) find(id qube.UUID) (Qube, error) {
	q, ok := c.View().Lookup(id)
	if !ok {
		return Qube{}, Failf(NotFound, "the qube %s does not exist", id)
	}
	return q, nil
}

// findQube is find for what dom0 has not.
func (c *Core) findQube(id qube.UUID) (Qube, error) {
	q, err := c.find(id)
	if err == nil && q.IsAdmin() {
		return Qube{}, Failf(VMError, "dom0 cannot be treated like a qube")
	}
	return q, err
}

// findMachine is find for what only a machine of this computer has.
func (c *Core) findMachine(id qube.UUID) (Qube, error) {
	q, err := c.findQube(id)
	if err == nil && !q.Class().HasMachine() {
		return Qube{}, Failf(VMError, "%s is on another computer", q.Name())
	}
	return q, err
}

// spawn runs a loop or a task that Close waits for.
func (c *Core) spawn(f func()) {
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		f()
	}()
}
