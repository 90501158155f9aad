// Package coretest is a world for tests of the core and of what is built on
// it: an engine, a pool, a router and a caller that do nothing but keep
// account, strictly by their contracts. Breaches of a contract are gathered
// in World.Breaches.
package coretest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/engine"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/storage"
	"cubicle/daemon/vchan"
)

// World is what exists outside of a core; it survives the core's restart.
type World struct {
	mu       sync.Mutex
	machines map[string]*machine
	volumes  map[storage.VID]*volume
	up       map[vchan.Domain]control.Qube
	breaches []string
	calls    []core.Service

	// What shall fail or behave differently.
	FailPrepare, FailStart, FailUp error
	FailPool                       map[string]error // by "start VID", "create VID", …
	// Mute agents never say hello; deaf machines ignore Shutdown.
	Mute, Deaf bool
	// ExitCode is what a called service ends with.
	ExitCode int
	// Said is what services write, by name.
	Said map[string]string
	// BuildWait blocks Build until it is closed, if set.
	BuildWait chan struct{}
	// Trouble is what engines say of each machine that they find running.
	Trouble string
	// Made are the features of templates that are built.
	Made map[string]string
}

type machine struct {
	domain vchan.Domain
	state  engine.MachineState
	end    engine.Reason // of its last run
}

type volume struct {
	spec    storage.Spec
	running bool
	commits int
	// revisions are the older states; their times mean nothing. Those that the
	// last commit was told to keep are kept.
	revisions, kept []string
}

// keep makes the current state an older one.
func (v *volume) keep() {
	v.revisions = append(v.revisions, fmt.Sprintf("%d@2020-01-01T00:00:00Z", len(v.revisions)+1))
}

// New returns an empty world.
func New() *World {
	return &World{
		machines: map[string]*machine{}, volumes: map[storage.VID]*volume{}, up: map[vchan.Domain]control.Qube{},
		FailPool: map[string]error{},
	}
}

func (w *World) breach(format string, args ...any) {
	w.breaches = append(w.breaches, fmt.Sprintf(format, args...))
}

// Set changes the world's behaviour while it is in use.
func (w *World) Set(change func(*World)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// Breaches are the contracts that the core did not keep.
func (w *World) Breaches() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.breaches)
}

// Calls are the services that were called.
func (w *World) Calls() []core.Service {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// Leftovers names everything that a halted system must not have: prepared
// machines, started volumes, announced links.
func (w *World) Leftovers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var left []string
	for id := range w.machines {
		left = append(left, "machine "+id)
	}
	for vid, v := range w.volumes {
		if v.running {
			left = append(left, "started volume "+string(vid))
		}
	}
	for d := range w.up {
		left = append(left, fmt.Sprintf("link %d", d))
	}
	slices.Sort(left)
	return left
}

// Volumes are the ids of all volumes, sorted.
func (w *World) Volumes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for vid := range w.volumes {
		ids = append(ids, string(vid))
	}
	slices.Sort(ids)
	return ids
}

// Lose makes the volumes disappear whose ids begin so, as by hand.
func (w *World) Lose(prefix string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.volumes, func(vid storage.VID, _ *volume) bool { return strings.HasPrefix(string(vid), prefix) })
}

// Kept are the older states of a volume that its last commit was told to keep.
func (w *World) Kept(vid string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.volumes[storage.VID(vid)]; v != nil {
		return v.kept
	}
	return nil
}

// Commits is how often a volume was committed.
func (w *World) Commits(vid string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.volumes[storage.VID(vid)]; v != nil {
		return v.commits
	}
	return 0
}

// Up are the machines that run, with their domains.
func (w *World) Up() map[string]vchan.Domain {
	w.mu.Lock()
	defer w.mu.Unlock()
	up := map[string]vchan.Domain{}
	for id, m := range w.machines {
		if m.state != engine.Absent {
			up[id] = m.domain
		}
	}
	return up
}

// Clock is a time that stands still until it is told to go on; waiting costs
// no time when it is told to skip.
type Clock struct {
	mu   sync.Mutex
	now  time.Time
	wait []waiter
}

type waiter struct {
	at time.Time
	c  chan time.Time
}

// NewClock returns a clock at some moment.
func NewClock() *Clock { return &Clock{now: time.Unix(1_700_000_000, 0)} }

// Now implements core.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// After implements core.Clock.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := waiter{c.now.Add(d), make(chan time.Time, 1)}
	c.wait = append(c.wait, w)
	return w.c
}

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.wait = slices.DeleteFunc(c.wait, func(w waiter) bool {
		if w.at.After(c.now) {
			return false
		}
		w.c <- c.now
		return true
	})
}

// Engine is an engine in a world. Its event queue is its own: a core's
// restart gets a new Engine.
type Engine struct {
	w      *World
	name   string
	router *Router
	events chan engine.Event
}

// NewEngine returns one; agents say hello through the router.
func (w *World) NewEngine(name string, r *Router) *Engine {
	return &Engine{w, name, r, make(chan engine.Event, 1024)}
}

var _ engine.Engine = (*Engine)(nil)

func (e *Engine) Name() string { return e.name }

func (e *Engine) Capabilities() engine.Capabilities {
	return engine.Capabilities{Isolation: engine.None, Weakness: "it is for tests"}
}

func (e *Engine) Probe(context.Context) error { return nil }

func (e *Engine) Prepare(_ context.Context, m engine.Machine) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.w.machines[m.UUID] != nil {
		e.w.breach("prepared twice: %s", m.Name)
		return engine.ErrRunning
	}
	if m.Domain < vchan.FirstDomain || m.Memory <= 0 || m.VCPUs <= 0 || m.Root.Base.Path == "" || m.Private.Base.Path == "" {
		e.w.breach("an incomplete machine: %+v", m)
	}
	if st, err := os.Stat(m.LinkDir); err != nil || !st.IsDir() {
		e.w.breach("no link folder: %v", err)
	}
	if e.w.FailPrepare != nil {
		return e.w.FailPrepare
	}
	e.w.machines[m.UUID] = &machine{domain: m.Domain}
	return nil
}

func (e *Engine) Start(ctx context.Context, uuid string) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	m := e.w.machines[uuid]
	if m == nil || m.state != engine.Absent {
		e.w.breach("started unprepared or twice: %s", uuid)
		return engine.ErrRunning
	}
	if _, ok := e.w.up[m.domain]; !ok {
		e.w.breach("%s is started before its link is open", uuid)
	}
	for _, o := range e.w.machines {
		if o != m && o.domain == m.domain {
			e.w.breach("domain %d is used twice", m.domain)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.w.FailStart != nil {
		return e.w.FailStart
	}
	m.state = engine.Up
	e.events <- engine.Event{UUID: uuid, State: engine.Up}
	if !e.w.Mute {
		e.router.agents <- core.AgentEvent{Domain: m.domain, Ready: true}
	}
	return nil
}

func (e *Engine) swing(uuid string, from, to engine.MachineState) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	m := e.w.machines[uuid]
	if m == nil || m.state != from {
		return engine.ErrNotRunning
	}
	m.state = to
	e.events <- engine.Event{UUID: uuid, State: to}
	return nil
}

func (e *Engine) Pause(_ context.Context, uuid string) error {
	return e.swing(uuid, engine.Up, engine.Suspended)
}

func (e *Engine) Resume(_ context.Context, uuid string) error {
	return e.swing(uuid, engine.Suspended, engine.Up)
}

func (e *Engine) stop(uuid string, r engine.Reason) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	m := e.w.machines[uuid]
	if m == nil || m.state == engine.Absent {
		return engine.ErrNotRunning
	}
	if r == engine.Stopped && e.w.Deaf {
		return nil
	}
	m.state, m.end = engine.Absent, r
	e.events <- engine.Event{UUID: uuid, State: engine.Absent, Reason: r}
	return nil
}

func (e *Engine) Shutdown(_ context.Context, uuid string) error { return e.stop(uuid, engine.Stopped) }
func (e *Engine) Kill(_ context.Context, uuid string) error     { return e.stop(uuid, engine.Killed) }

// Starve tells that a machine lives on without a program that was ended for
// want of memory.
func (e *Engine) Starve(uuid string) {
	e.events <- engine.Event{UUID: uuid, State: engine.Up, Reason: engine.OutOfMemory, Detail: "a program was ended"}
}

// Crash ends a machine by itself.
func (e *Engine) Crash(uuid string, r engine.Reason) { _ = e.stop(uuid, r) }

func (e *Engine) Release(_ context.Context, uuid string) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	m := e.w.machines[uuid]
	if m == nil {
		return nil
	}
	if m.state != engine.Absent {
		e.w.breach("released while it runs: %s", uuid)
		return engine.ErrRunning
	}
	delete(e.w.machines, uuid)
	return nil
}

func (e *Engine) Stats(_ context.Context, uuid string) (engine.Stats, error) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if m := e.w.machines[uuid]; m == nil || m.state == engine.Absent {
		return engine.Stats{}, engine.ErrNotRunning
	}
	return engine.Stats{Memory: 100 << 20, MemoryMax: 400 << 20, CPU: time.Second, Processes: 7}, nil
}

func (e *Engine) Running(context.Context) ([]engine.Found, error) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	var found []engine.Found
	for id, m := range e.w.machines {
		if m.state != engine.Absent {
			found = append(found, engine.Found{UUID: id, Domain: m.domain, State: m.state, Trouble: e.w.Trouble})
		} else if m.end != "" {
			found = append(found, engine.Found{UUID: id, State: engine.Absent, Reason: m.end})
		}
	}
	return found, nil
}

func (e *Engine) Forget(_ context.Context, uuid string) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.w.machines[uuid] != nil {
		e.w.breach("forgotten before it is released: %s", uuid)
	}
	return nil
}

func (e *Engine) Events() <-chan engine.Event { return e.events }
func (e *Engine) Close() error                { return nil }

// Router is a router in a world.
type Router struct {
	w      *World
	agents chan core.AgentEvent
}

// NewRouter returns one.
func (w *World) NewRouter() *Router { return &Router{w, make(chan core.AgentEvent, 1024)} }

var _ core.Router = (*Router)(nil)

// Up implements core.Router; an agent that said hello before says so again.
func (r *Router) Up(_ context.Context, q control.Qube) error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.w.FailUp != nil {
		return r.w.FailUp
	}
	r.w.up[q.Domain] = q
	for _, m := range r.w.machines {
		if m.domain == q.Domain && m.state != engine.Absent && !r.w.Mute {
			r.agents <- core.AgentEvent{Domain: q.Domain, Ready: true}
		}
	}
	return nil
}

func (r *Router) Down(d vchan.Domain) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	delete(r.w.up, d)
}

func (r *Router) Agents() <-chan core.AgentEvent { return r.agents }

// Hello makes an agent say hello, or with ready false go away.
func (r *Router) Hello(d vchan.Domain, ready bool) {
	r.agents <- core.AgentEvent{Domain: d, Ready: ready}
}

// Call implements core.Caller.
func (w *World) Call(_ context.Context, s core.Service) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.machines {
		if m.domain == s.To && m.state == engine.Up {
			w.calls = append(w.calls, s)
			if s.Output != nil {
				if _, err := s.Output.Write([]byte(w.Said[s.Name])); err != nil {
					return 0, err
				}
			}
			return w.ExitCode, nil
		}
	}
	w.breach("a call to domain %d, which does not run", s.To)
	return 0, engine.ErrNotRunning
}

// Build implements core.Builder with an image of 1 MiB.
func (w *World) Build(ctx context.Context, recipe, dir string, report func(float64, string)) (string, error) {
	report(0.5, "building "+recipe)
	if w.BuildWait != nil {
		select {
		case <-w.BuildWait:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	path := filepath.Join(dir, recipe+".img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	return path, os.Truncate(path, 1<<20)
}

// Features implements core.Builder.
func (w *World) Features(string) (map[string]string, error) { return maps.Clone(w.Made), nil }

// Pool is a pool in a world.
type Pool struct {
	w    *World
	name string
	dir  string
}

// NewPool returns one, which writes nothing but imports to dir.
func (w *World) NewPool(dir string) *Pool { return &Pool{w, "varlibqubes", dir} }

// PoolDriver opens further pools. They import into dir.
func (w *World) PoolDriver(dir string) storage.Driver {
	return storage.Driver{
		Name:    "test",
		Options: []storage.Option{{Name: "dir_path", Required: true}, {Name: "colour"}},
		Open: func(name string, options map[string]string, _ bool) (storage.Pool, error) {
			if options["dir_path"] == "/full" {
				return nil, storage.ErrNoSpace
			}
			return &Pool{w, name, dir}, nil
		},
		Forget: func(string) {},
	}
}

var _ storage.Pool = (*Pool)(nil)

func (p *Pool) Name() string      { return p.name }
func (p *Pool) Driver() string    { return "test" }
func (p *Pool) ImportDir() string { return p.dir }

func (p *Pool) Options() map[string]string { return map[string]string{"dir_path": "/pool"} }

// do runs an operation unless it shall fail.
func (p *Pool) do(op string, vid storage.VID, f func() error) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if err := p.w.FailPool[op+" "+string(vid)]; err != nil {
		return err
	}
	return f()
}

func (p *Pool) Create(_ context.Context, s storage.Spec) error {
	return p.do("create", s.VID, func() error {
		if p.w.volumes[s.VID] != nil {
			p.w.breach("created twice: %s", s.VID)
			return storage.ErrExists
		}
		if s.SnapOnStart != (s.Source != "") || s.SnapOnStart && s.SaveOnStop || s.Size <= 0 {
			p.w.breach("a contradictory volume: %+v", s)
			return storage.ErrBadVolume
		}
		p.w.volumes[s.VID] = &volume{spec: s}
		return nil
	})
}

func (p *Pool) Import(_ context.Context, s storage.Spec, image string) error {
	return p.do("import", s.VID, func() error {
		if v := p.w.volumes[s.VID]; v == nil || v.running {
			p.w.breach("import into a missing or started volume: %s", s.VID)
			return storage.ErrInUse
		}
		p.w.volumes[s.VID].keep()
		return os.Remove(image)
	})
}

func (p *Pool) Clone(_ context.Context, dst storage.Spec, src storage.VID) error {
	return p.do("clone", dst.VID, func() error {
		if p.w.volumes[src] == nil || p.w.volumes[dst.VID] != nil {
			p.w.breach("bad clone of %s to %s", src, dst.VID)
			return storage.ErrNotFound
		}
		p.w.volumes[dst.VID] = &volume{spec: dst}
		return nil
	})
}

// Export writes an empty file of the volume's size.
func (p *Pool) Export(_ context.Context, s storage.Spec, path string) error {
	return p.do("export", s.VID, func() error {
		if v := p.w.volumes[s.VID]; v == nil || !v.spec.SaveOnStop {
			p.w.breach("export of a missing volume or one that keeps nothing: %s", s.VID)
			return storage.ErrNotFound
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		return os.Truncate(path, s.Size)
	})
}

func (p *Pool) Clear(_ context.Context, s storage.Spec) error {
	return p.do("clear", s.VID, func() error {
		if v := p.w.volumes[s.VID]; v == nil || v.running || !v.spec.SaveOnStop {
			p.w.breach("clear of a missing or started volume: %s", s.VID)
			return storage.ErrInUse
		}
		p.w.volumes[s.VID].keep()
		return nil
	})
}

func (p *Pool) Start(_ context.Context, s storage.Spec) (storage.Attachment, error) {
	err := p.do("start", s.VID, func() error {
		v := p.w.volumes[s.VID]
		if v == nil {
			return storage.ErrNotFound
		}
		if v.running {
			p.w.breach("started twice: %s", s.VID)
			return storage.ErrInUse
		}
		v.running = true
		return nil
	})
	return storage.Attachment{Base: storage.Layer{Path: "/" + string(s.VID), Format: storage.Raw}}, err
}

func (p *Pool) Stop(_ context.Context, s storage.Spec, commit bool) error {
	return p.do("stop", s.VID, func() error {
		v := p.w.volumes[s.VID]
		if v == nil || !v.running {
			return nil
		}
		for _, m := range p.w.machines {
			if m.state != engine.Absent && p.w.up[m.domain].Name != "" && storage.VID("appvms/"+p.w.up[m.domain].Name+"/private") == s.VID {
				p.w.breach("stopped under a running machine: %s", s.VID)
			}
		}
		v.running = false
		if commit {
			v.kept = slices.Clone(s.Kept)
			v.commits++
		}
		return nil
	})
}

func (p *Pool) Resize(_ context.Context, s storage.Spec, size int64) error {
	return p.do("resize", s.VID, func() error {
		v := p.w.volumes[s.VID]
		if v == nil || v.running || size < v.spec.Size {
			return storage.ErrBadVolume
		}
		v.spec.Size = size
		return nil
	})
}

func (p *Pool) Revert(_ context.Context, s storage.Spec, revision string) error {
	return p.do("revert", s.VID, func() error {
		v := p.w.volumes[s.VID]
		if v == nil || v.running || !slices.Contains(v.revisions, revision) {
			return storage.ErrNotFound
		}
		v.keep()
		return nil
	})
}

func (p *Pool) Remove(_ context.Context, s storage.Spec) error {
	return p.do("remove", s.VID, func() error {
		if v := p.w.volumes[s.VID]; v != nil && v.running {
			p.w.breach("removed while started: %s", s.VID)
			return storage.ErrInUse
		}
		delete(p.w.volumes, s.VID)
		return nil
	})
}

func (p *Pool) Info(_ context.Context, s storage.Spec) (storage.Info, error) {
	var i storage.Info
	err := p.do("info", s.VID, func() error {
		v := p.w.volumes[s.VID]
		if v == nil {
			return storage.ErrNotFound
		}
		i = storage.Info{Size: s.Size, Usage: 1 << 20, Running: v.running, Revisions: slices.Clone(v.revisions)}
		return nil
	})
	return i, err
}

func (p *Pool) Usage(context.Context) (size, used int64, err error) { return 100 << 30, 1 << 30, nil }

func (p *Pool) Recover(_ context.Context, running []storage.VID) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, v := range p.w.volumes {
		v.running = slices.Contains(running, v.spec.VID)
	}
	return nil
}

// Announced is what the router was told of a domain.
func (w *World) Announced(d vchan.Domain) control.Qube {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up[d]
}

// Domains are the domains that the router was told of.
func (w *World) Domains() []vchan.Domain {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.up))
}
