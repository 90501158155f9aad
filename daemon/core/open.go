package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// Open loads the state, finds the machines that run already, cleans up after
// those that do not, and follows everything from then on.
func Open(ctx context.Context, cfg Config) (*Core, error) {
	if len(cfg.Engines) == 0 || len(cfg.Pools) == 0 {
		return nil, errors.New("an engine and a pool are needed")
	}
	c := &Core{
		host: host{proc: "/proc"},
		cfg:  cfg, clock: cfg.Clock,
		engines: map[string]engine.Engine{},
		pools:   poolSet{list: slices.Clone(cfg.Pools)},
		hub:     hub{subs: map[*Subscription]struct{}{}},
		runs:    map[qube.UUID]*run{},
		starts:  map[qube.UUID]context.CancelCauseFunc{},
		locks:   map[qube.UUID]chan struct{}{},
		jobs:    map[uint64]*task{},
		imports: map[volumeKey]importing{},

		reserved: map[qube.Name]store.Record{},
		dispids:  map[int]time.Time{},
		wake:     make(chan struct{}, 1),

		firewalls: make(chan struct{}, 1),
	}
	c.journal = newJournal()
	c.log = c.journal.follow(cfg.Log)
	c.life, c.end = context.WithCancel(context.Background())
	v := &View{
		qubes: map[qube.UUID]*entry{}, names: map[qube.Name]*entry{}, jobs: map[uint64]Job{},
		facts: map[string]string{"default_pool": cfg.Pools[0].Name(), "default_engine": cfg.Engines[0].Name()},
	}
	if err := measureHost(v.facts); err != nil {
		return nil, fmt.Errorf("measure the computer: %w", err)
	}
	for _, e := range cfg.Engines {
		c.engines[e.Name()] = e
		v.engines = append(v.engines, EngineInfo{e.Name(), e.Capabilities()})
	}
	if cfg.DefaultEngine != "" {
		if _, ok := c.engines[cfg.DefaultEngine]; !ok {
			return nil, fmt.Errorf("there is no engine %q", cfg.DefaultEngine)
		}
		v.facts["default_engine"] = cfg.DefaultEngine
	}
	known, err := c.loadFacts()
	if err != nil {
		return nil, fmt.Errorf("load the facts about running qubes: %w", err)
	}
	halfDone, err := c.load(v, known)
	if err != nil {
		return nil, err
	}
	c.view.Store(v)
	c.openPools(v.system)

	// Agents and engines may speak before all runs are known; they are
	// followed after that, so that nothing is missed.
	if err := c.adopt(ctx, known); err != nil {
		return nil, err
	}
	for _, rec := range halfDone {
		if err := c.removeRemains(ctx, rec); err != nil {
			c.log.Error("remove what is left of a qube", "qube", string(rec.Name), "error", err)
		}
	}
	for _, e := range cfg.Engines {
		c.spawn(func() { c.followEngine(e) })
	}
	c.spawn(c.followAgents)
	c.spawn(c.pollStats)
	c.spawn(c.followBroken)
	c.spawn(c.followFirewalls)
	for _, q := range v.Qubes() {
		c.spawn(func() { c.measure(c.life, q.UUID()) })
	}
	return c, nil
}

// measureHost finds the computer's memory in MiB and its processors.
func measureHost(facts map[string]string) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	facts["maxmem"] = strconv.FormatUint(info.Totalram*uint64(info.Unit)>>20, 10)
	facts["no_cpus"] = strconv.Itoa(runtime.NumCPU())
	return nil
}

// load fills a View from the store and returns the qubes whose creation or
// removal was interrupted.
func (c *Core) load(v *View, known map[qube.UUID]facts) (halfDone []store.Record, err error) {
	system, records, broken, err := c.cfg.Store.Load()
	if err != nil {
		return nil, err
	}
	v.system = system
	if system.Damage != nil {
		c.log.Error("the system's settings have their defaults", "error", system.Damage)
	}
	v.dom0 = &entry{rec: system.Admin, state: qube.Running, xid: 0}
	for _, rec := range records {
		if rec.Pending != "" {
			halfDone = append(halfDone, rec)
			continue
		}
		e := &entry{rec: rec, xid: -1}
		e.state = e.rest()
		if other, ok := v.qubes[rec.UUID]; ok {
			broken = append(broken, store.Broken{Name: rec.Name, Class: rec.Class,
				Err: fmt.Errorf("it has the same uuid as %s", other.rec.Name)})
			continue
		}
		if _, ok := v.names[rec.Name]; ok {
			c.log.Error("two qubes have one name; the second is ignored", "qube", string(rec.Name))
			continue
		}
		v.qubes[rec.UUID], v.names[rec.Name] = e, e
	}
	for _, b := range broken {
		c.log.Error("a qube is broken", "qube", string(b.Name), "error", b.Err)
		if _, ok := v.names[b.Name]; ok {
			continue
		}
		rec := store.Record{Name: b.Name, UUID: qube.NewUUID(), Class: b.Class}.Clone()
		for id, f := range known {
			if _, taken := v.qubes[id]; f.Name == b.Name && !taken {
				rec.UUID = id // it may run on all the same
			}
		}
		e := &entry{rec: rec, state: qube.NA, xid: -1, broken: damage(b.Err), damaged: true}
		v.qubes[rec.UUID], v.names[rec.Name] = e, e
	}
	v.sort()
	v.markOrphans()
	v.cutRings(c.log)
	return halfDone, nil
}

// markOrphans marks the qubes whose templates cannot be used, and those that
// are based on these.
func (v *View) markOrphans() {
	for again := true; again; {
		again = false
		for _, e := range v.qubes {
			if why := (Qube{v, e}).missesTemplate(); e.broken == "" && why != "" {
				e.state, e.broken, again = qube.NA, why, true
			}
		}
	}
}

// cutRings takes the network from qubes whose files make each other their
// network provider (spec/platform.md §2).
func (v *View) cutRings(log *slog.Logger) {
	for _, q := range v.Qubes() {
		if v.loops(q) {
			log.Error("the network providers of a qube are a ring: it gets none", "qube", string(q.Name()))
			q.e.rec = q.e.rec.Clone()
			q.e.rec.Properties["netvm"] = ""
		}
	}
}

// adopt finds the machines that run already and frees what is left of those
// that do not.
func (c *Core) adopt(ctx context.Context, known map[qube.UUID]facts) error {
	states := map[qube.UUID]engine.MachineState{}
	troubles := map[qube.UUID]string{}
	orderly := map[qube.UUID]bool{} // ended by themselves while nobody looked
	for _, e := range c.cfg.Engines {
		found, err := e.Running(ctx)
		if err != nil {
			return fmt.Errorf("find the machines that %s runs: %w", e.Name(), err)
		}
		for _, m := range found {
			id := qube.UUID(m.UUID)
			f, ok := known[id]
			if m.Trouble != "" && ok && f.Engine != e.Name() {
				continue // the other engine tells of it as well
			}
			if _, exists := c.View().Lookup(id); !ok || !exists || f.Engine != e.Name() {
				c.log.Warn("a machine of no qube is ended", "engine", e.Name(), "uuid", m.UUID)
				if err := endStray(ctx, e, m); err != nil {
					c.log.Error("end a stray machine", "uuid", m.UUID, "error", err)
				}
				continue
			}
			if m.State == engine.Absent {
				orderly[id] = m.Reason == engine.Stopped
				continue
			}
			states[id] = m.State
			if m.Trouble != "" {
				c.log.Warn("a machine runs that cannot be followed", "qube", string(f.Name), "error", m.Trouble)
				troubles[id] = m.Trouble
			}
			c.runs[id] = newRun(f, e)
			c.runs[id].told = make(chan struct{})
		}
	}
	// What shall be kept of those that ended is committed below: until then
	// it counts as in use.
	running := map[string][]storage.VID{}
	var commits []startedImage
	for id, f := range known {
		_, runs := states[id]
		for _, v := range f.Volumes {
			keep := !runs && v.kept(orderly[id])
			if runs || keep {
				running[v.Pool] = append(running[v.Pool], v.Spec.VID)
			}
			if keep {
				commits = append(commits, v)
			}
		}
	}
	var ended []facts
	for id, f := range known {
		if _, ok := states[id]; ok {
			c.lastDom = max(c.lastDom, f.Domain)
			continue
		}
		// Its machine ended while nobody looked: its engine may hold mounts.
		if e, ok := c.engines[f.Engine]; ok {
			if err := e.Release(ctx, string(id)); err != nil {
				c.log.Error("release a machine that ended", "uuid", string(id), "error", err)
			}
		}
		ended = append(ended, f)
	}
	for _, p := range c.Pools() {
		if err := c.recoverPool(ctx, p, running[p.Name()]); err != nil {
			return fmt.Errorf("recover pool %s: %w", p.Name(), err)
		}
	}
	for _, v := range commits {
		p, err := c.pool(v.Pool)
		if err == nil {
			err = p.Stop(ctx, c.kept(v.Spec), true)
		}
		if err != nil {
			c.log.Error("commit a volume of a machine that ended", "volume", string(v.Spec.VID), "error", err)
		}
	}
	for _, f := range ended {
		if err := c.dropFacts(f.UUID); err != nil {
			c.log.Error("forget a machine that ended", "uuid", string(f.UUID), "error", err)
		}
	}
	for _, f := range ended {
		if q, ok := c.View().Lookup(f.UUID); ok && q.isThrowaway() {
			c.throwAway(f.UUID)
		}
	}
	if err := c.clearLinks(); err != nil {
		c.log.Error("clear away links of qubes that ended", "error", err)
	}
	for id, state := range states {
		r := c.runs[id]
		c.must(func(t *tx) {
			e := t.edit(id)
			e.state, e.xid, e.engine, e.started = qube.Transient, int(r.facts.Domain), r.facts.Engine, r.facts.Started
			if state == engine.Suspended {
				e.state = qube.Paused
			}
			e.ended = troubles[id]
		})
		c.spawn(func() { c.reannounce(id, r) })
	}
	return nil
}

// endStray ends a machine that belongs to no qube.
func endStray(ctx context.Context, e engine.Engine, m engine.Found) error {
	var err error
	if m.State != engine.Absent {
		if err = e.Kill(ctx, m.UUID); errors.Is(err, engine.ErrNotRunning) {
			err = nil // it just ended
		}
	}
	return errors.Join(err, e.Release(ctx, m.UUID), e.Forget(ctx, m.UUID))
}

// clearLinks removes the link folders of all but the running qubes.
func (c *Core) clearLinks() error {
	entries, err := os.ReadDir(c.cfg.Links)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, r := range c.runs {
		used[filepath.Base(c.linkDir(r.facts.Domain))] = true
	}
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 16); err != nil || used[e.Name()] {
			continue // not ours, or in use
		}
		if err := os.RemoveAll(filepath.Join(c.cfg.Links, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// reannounce tells qrexecd of a machine that ran before us.
func (c *Core) reannounce(id qube.UUID, r *run) {
	defer close(r.told)
	q, err := c.find(id)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.life)
	defer cancel()
	go func() {
		select {
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	link := c.linkDir(r.facts.Domain)
	if r.isForeign() {
		link = ""
	}
	err = c.cfg.Router.Up(ctx, control.Qube{
		Domain: r.facts.Domain, Name: string(q.Name()), UUID: string(id),
		DefaultUser: q.Property("default_user"), LinkDir: link,
	})
	if err != nil && ctx.Err() == nil {
		c.log.Error("open the link of a running qube again", "qube", string(q.Name()), "error", err)
	}
}

// followAgents deals with what qrexecd tells.
func (c *Core) followAgents() {
	for {
		select {
		case ev, ok := <-c.cfg.Router.Agents():
			if !ok {
				return
			}
			c.agentEvent(ev)
		case <-c.life.Done():
			return
		}
	}
}

func (c *Core) agentEvent(ev AgentEvent) {
	c.mu.Lock()
	var id qube.UUID
	var r *run
	for i, o := range c.runs {
		if o.facts.Domain == ev.Domain {
			id, r = i, o
		}
	}
	_, starting := c.starts[id]
	if r != nil && ev.Ready {
		select {
		case <-r.ready:
		default:
			close(r.ready)
		}
	}
	c.mu.Unlock()
	switch {
	case r == nil || starting: // the start itself waits for the hello
	case ev.Ready:
		c.started(id)
	default:
		c.swing(id, qube.Running, qube.Transient, "")
	}
}

// removeRemains deletes what an interrupted creation or removal left.
func (c *Core) removeRemains(ctx context.Context, rec store.Record) error {
	q := Qube{c.View(), &entry{rec: rec}}
	if err := c.removeVolumes(ctx, q); err != nil {
		return err
	}
	if err := c.forget(ctx, rec.UUID); err != nil {
		return err
	}
	return c.cfg.Store.Remove(rec.Class, rec.Name)
}

// forget gives back what the engines keep for a qube that is being removed.
func (c *Core) forget(ctx context.Context, id qube.UUID) error {
	var errs []error
	for _, e := range c.cfg.Engines {
		errs = append(errs, e.Forget(ctx, string(id)))
	}
	return errors.Join(errs...)
}

// Autostart starts the qubes that shall start with the system, and removes
// disposables that the last one left. The session
// names one run of the system: a restart of the daemon within it does not
// start them again.
func (c *Core) Autostart(session string) error {
	marker := filepath.Join(c.cfg.Runs, "autostarted")
	old, err := os.ReadFile(marker)
	if err == nil && string(old) == session {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("autostart: %w", err)
	}
	for _, q := range c.View().Qubes() {
		if q.isThrowaway() && q.isDown() {
			// What the last session left; it is never started again.
			if _, err := c.Remove(q.UUID()); err != nil {
				c.log.Error("remove a disposable", "qube", string(q.Name()), "error", err)
			}
			continue
		}
		if q.Property("autostart") != "True" || !q.isDown() {
			continue
		}
		if _, err := c.Start(q.UUID()); err != nil {
			c.log.Error("autostart", "qube", string(q.Name()), "error", err)
		}
	}
	if err := os.WriteFile(marker, []byte(session), 0o600); err != nil {
		return fmt.Errorf("autostart: %w", err)
	}
	return nil
}
