package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
)

// errKilled is why a start ends when somebody kills the qube.
var errKilled error = &Error{Kind: Cancelled, Text: "the qube was killed while it was starting"}

// followEngine deals with what an engine tells.
func (c *Core) followEngine(e engine.Engine) {
	for {
		select {
		case ev, ok := <-e.Events():
			if !ok {
				return
			}
			c.machineEvent(e, ev)
		case <-c.life.Done():
			return
		}
	}
}

func (c *Core) machineEvent(e engine.Engine, ev engine.Event) {
	id := qube.UUID(ev.UUID)
	c.mu.Lock()
	r := c.runs[id]
	c.mu.Unlock()
	if r == nil || r.engine != e {
		return // of a machine that is none of ours
	}
	switch ev.State {
	case engine.Absent:
		if r.isGone() {
			return
		}
		r.end = ev
		close(r.gone)
		c.spawn(func() { c.ended(id, r) })
	case engine.Suspended:
		c.swing(id, qube.Running, qube.Paused, "domain-paused")
		c.swing(id, qube.Transient, qube.Paused, "domain-paused")
	case engine.Up:
		if ev.Reason == engine.OutOfMemory {
			c.starved(id, ev)
			return
		}
		to := qube.Transient // its agent has not been heard since we run
		select {
		case <-r.ready:
			to = qube.Running
		default:
		}
		c.swing(id, qube.Paused, to, "domain-unpaused")
	}
}

// starved notes that a qube runs on without a program that the kernel ended
// for want of memory.
func (c *Core) starved(id qube.UUID, ev engine.Event) {
	c.must(func(t *tx) {
		if e := t.edit(id); e != nil {
			e.ended = describe(ev)
			c.log.Warn("a qube lacks memory", "qube", string(e.rec.Name), "what", e.ended)
			t.events = append(t.events, Event{Qube: id})
		}
	})
}

// swing changes the state if it is the one expected.
func (c *Core) swing(id qube.UUID, from, to qube.State, event string, args ...Arg) {
	c.must(func(t *tx) {
		if old, ok := t.v.qubes[id]; !ok || old.state != from {
			return
		}
		e := t.edit(id)
		e.state = to
		t.emit(e, event, args...)
	})
}

// ended frees what a machine needed. A start under way holds the lock and
// undoes everything itself; then there is nothing left to do here.
func (c *Core) ended(id qube.UUID, r *run) {
	unlock, err := c.lock(context.Background(), id)
	if err != nil {
		c.log.Error("lock", "qube", string(id), "error", err)
		return
	}
	defer unlock()
	c.mu.Lock()
	mine, killed := c.runs[id] == r, r.killed
	c.mu.Unlock()
	if !mine {
		return
	}
	c.setState(id, qube.Dying)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	trouble := c.free(ctx, r, r.end.Reason == engine.Stopped && !killed)
	if r.end.Reason != engine.Stopped && !killed {
		trouble = errors.Join(fmt.Errorf("it ended unexpectedly: %s", describe(r.end)), trouble)
	}
	if trouble != nil {
		c.log.Error("a qube ended badly", "qube", string(id), "error", trouble)
	}
	c.must(func(t *tx) {
		delete(c.runs, id)
		e := t.edit(id)
		if e == nil {
			return
		}
		e.state, e.xid, e.engine, e.started = e.rest(), -1, "", time.Time{}
		e.memory, e.cpu, e.outdated = 0, 0, false
		if trouble != nil {
			e.ended = trouble.Error()
		}
		t.emit(e, "domain-stopped")
		t.emit(e, "domain-shutdown")
		t.offerNothing(e)
		t.newRun(e)
	})
	if q, err := c.find(id); err == nil && q.isThrowaway() {
		c.throwAway(id)
	}
	close(r.done)
	c.measureFamily(id)
}

// rest is the state of a qube that is down.
func (e *entry) rest() qube.State {
	switch {
	case e.broken != "":
		return qube.NA
	case e.rec.Class == qube.RemoteVM:
		return qube.Running // as far as this computer knows
	}
	return qube.Halted
}

// kept tells whether what a run wrote to the image stays.
func (i startedImage) kept(orderly bool) bool {
	return i.Spec.SaveOnStop && (orderly || i.Always)
}

// kept is what a run began with, with the older states that people have
// decided to keep since.
func (c *Core) kept(s storage.Spec) storage.Spec {
	folder, name := path.Split(string(s.VID))
	if q, ok := c.View().Named(qube.Name(path.Base(folder))); ok {
		if v, ok := q.Volume(name); ok {
			s.Kept = v.Spec.Kept
		}
	}
	return s
}

// free gives back all that a run of a machine took: first the machine's hold
// on its images, then the images.
func (c *Core) free(ctx context.Context, r *run, orderly bool) error {
	if r.told != nil {
		<-r.told // it ends with the machine
	}
	c.cfg.Router.Down(r.facts.Domain)
	var errs []error
	if err := r.engine.Release(ctx, string(r.facts.UUID)); err != nil {
		errs = append(errs, fmt.Errorf("release the machine: %w", err))
	}
	for _, v := range r.facts.Volumes {
		p, err := c.pool(v.Pool)
		if err == nil {
			err = p.Stop(ctx, c.kept(v.Spec), v.kept(orderly))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("stop volume %s: %w", v.Spec.VID, err))
		}
	}
	errs = append(errs, os.RemoveAll(c.linkDir(r.facts.Domain)), c.dropFacts(r.facts.UUID))
	return errors.Join(errs...)
}

// current returns the qube's run, or the error for one that is off.
func (c *Core) current(q Qube) (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.runs[q.UUID()]
	if r == nil || r.isGone() {
		return nil, Failf(NotStarted, "%s is not running", q.Name())
	}
	return r, nil
}

// Shutdown asks a qube to end by itself; the job waits for that, at most its
// shutdown_timeout. Without force it is refused while others use the qube's
// network, and for a paused qube; with force a paused qube is killed.
func (c *Core) Shutdown(ctx context.Context, id qube.UUID, force bool) (uint64, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return 0, err
	}
	if q.isDown() {
		return 0, Failf(NotStarted, "%s is not running", q.Name())
	}
	if q.State() == qube.Paused {
		if force {
			return c.Kill(id)
		}
		return 0, Failf(NotRunning, "%s is paused: unpause it first", q.Name())
	}
	c.mu.Lock()
	_, starting := c.starts[id]
	c.mu.Unlock()
	if starting {
		return c.Kill(id) // there is no agent yet that could end it
	}
	if !force {
		if err := q.isNeeded(); err != nil {
			return 0, err
		}
	}
	r, err := c.requestShutdown(ctx, q, force)
	if err != nil {
		c.must(func(t *tx) {
			if e := t.edit(id); e != nil {
				t.emit(e, "domain-shutdown-failed", Arg{"reason", err.Error()})
			}
		})
		return 0, err
	}
	seconds := q.Number("shutdown_timeout")
	return c.begin("shutdown", q.Name(), "Shutting "+string(q.Name())+" down", func(ctx context.Context, p *progress) error {
		select {
		case <-r.done:
			return nil
		case <-c.clock.After(time.Duration(seconds) * time.Second):
			err = Failf(ShutdownTimeout, "%s did not shut down within %d s", q.Name(), seconds)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		c.swing(id, qube.Halting, qube.Running, "domain-shutdown-failed")
		return err
	}), nil
}

// isNeeded tells which running qube needs this one (spec/admin-api.md §8.2).
// Those that wait for their use do not count.
func (q Qube) isNeeded() error {
	for _, o := range q.v.Qubes() {
		if o.isDown() || o.UUID() == q.UUID() || o.Property("is_preload") == "True" {
			continue
		}
		for _, need := range []struct {
			property, text string
			kind           Kind
		}{
			{"netvm", "%s gives network to %s, which runs", InUse},
			{"audiovm", "%s plays the sound of %s, which runs", VMError},
			{"guivm", "%s shows the windows of %s, which runs", VMError},
		} {
			if o.Property(need.property) == string(q.Name()) {
				return Failf(need.kind, need.text, q.Name(), o.Name())
			}
		}
	}
	return nil
}

func (c *Core) requestShutdown(ctx context.Context, q Qube, force bool) (*run, error) {
	unlock, err := c.lock(ctx, q.UUID())
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := c.current(q)
	if err != nil {
		return nil, err
	}
	c.must(func(t *tx) {
		e := t.edit(q.UUID())
		t.emit(e, "domain-pre-shutdown", Arg{"force", truth(force)})
		e.state = qube.Halting
	})
	if err := r.engine.Shutdown(ctx, string(q.UUID())); err != nil && !errors.Is(err, engine.ErrNotRunning) {
		c.swing(q.UUID(), qube.Halting, qube.Running, "domain-shutdown-failed")
		return nil, wrap(err, "shut %s down", q.Name())
	}
	return r, nil
}

// Kill ends a qube now, also one that is just starting.
func (c *Core) Kill(id qube.UUID) (uint64, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return 0, err
	}
	if q.isDown() {
		return 0, Failf(NotStarted, "%s is not running", q.Name())
	}
	return c.begin("kill", q.Name(), "Killing "+string(q.Name()), func(ctx context.Context, p *progress) error {
		c.mu.Lock()
		if cancel, ok := c.starts[id]; ok {
			cancel(errKilled)
		}
		c.mu.Unlock()
		unlock, err := c.lock(ctx, id)
		if err != nil {
			return err
		}
		c.mu.Lock()
		r := c.runs[id]
		if r != nil {
			r.killed = true
		}
		c.mu.Unlock()
		if r == nil {
			unlock()
			return nil // its start was cancelled, or it ended meanwhile
		}
		err = r.engine.Kill(ctx, string(id))
		unlock()
		if err != nil && !errors.Is(err, engine.ErrNotRunning) {
			return wrap(err, "kill %s", q.Name())
		}
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}), nil
}

// Pause freezes a running qube.
func (c *Core) Pause(id qube.UUID) (uint64, error) {
	return c.freeze("pause", "Pausing ", id, func(q Qube) error {
		if s := q.State(); s != qube.Running && s != qube.Transient {
			return Failf(NotRunning, "%s is not running", q.Name())
		}
		return nil
	}, engine.Engine.Pause, true, "domain-pre-paused")
}

// Unpause thaws a paused qube.
func (c *Core) Unpause(id qube.UUID) (uint64, error) {
	return c.freeze("unpause", "Resuming ", id, func(q Qube) error {
		if q.State() != qube.Paused {
			return Failf(NotPaused, "%s is not paused", q.Name())
		}
		return nil
	}, engine.Engine.Resume, false, "domain-pre-unpaused")
}

func (c *Core) freeze(kind, text string, id qube.UUID, check func(Qube) error,
	do func(engine.Engine, context.Context, string) error, frozen bool, before string,
) (uint64, error) {
	q, err := c.findMachine(id)
	if err == nil {
		err = check(q)
	}
	if err != nil {
		return 0, err
	}
	return c.begin(kind, q.Name(), text+string(q.Name()), func(ctx context.Context, p *progress) error {
		unlock, err := c.lock(ctx, id)
		if err != nil {
			return err
		}
		defer unlock()
		if q, err = c.find(id); err == nil {
			err = check(q)
		}
		if err != nil {
			return err
		}
		r, err := c.current(q)
		if err != nil {
			return err
		}
		c.setState(id, q.State(), before)
		sub := c.Subscribe()
		defer sub.Close()
		if err := do(r.engine, ctx, string(id)); err != nil {
			return wrap(err, "%s %s", kind, q.Name())
		}
		// The state follows the engine's events alone, which come in order.
		for {
			if q, ok := c.View().Lookup(id); !ok || (q.State() == qube.Paused) == frozen || r.isGone() {
				return nil
			}
			if _, _, err := sub.Next(ctx); err != nil {
				return err
			}
		}
	}), nil
}

// truth is a truth value as events tell it.
func truth(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// StopAll shuts all running qubes down, those that give network to others
// after these, and kills those that are still there when patience is over.
func (c *Core) StopAll(ctx context.Context, patience time.Duration) error {
	ask, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stop := func(ctx context.Context, which func(Qube) bool, act func(qube.UUID) (uint64, error)) (some bool) {
		var jobs []uint64
		for _, q := range c.View().Qubes() {
			if !q.isDown() && which(q) {
				if id, err := act(q.UUID()); err == nil {
					jobs = append(jobs, id)
				}
			}
		}
		for _, id := range jobs {
			if err := c.Wait(ctx, id); err != nil {
				c.log.Warn("stop all qubes", "error", err)
			}
		}
		return len(jobs) > 0
	}
	asked := map[qube.UUID]bool{}
	last := func(q Qube) bool { return !asked[q.UUID()] && !q.givesNetwork(asked) }
	for stop(ask, last, func(id qube.UUID) (uint64, error) { asked[id] = true; return c.Shutdown(ask, id, true) }) {
	}
	stop(ctx, func(Qube) bool { return true }, c.Kill)
	for _, q := range c.View().Qubes() {
		if !q.isDown() {
			return Failf(VMError, "%s could not be stopped", q.Name())
		}
	}
	return nil
}

// givesNetwork reports whether a running qube that is not among the given ones
// uses this one's network.
func (q Qube) givesNetwork(but map[qube.UUID]bool) bool {
	for _, o := range q.v.Qubes() {
		if !o.isDown() && !but[o.UUID()] && o.Property("netvm") == string(q.Name()) {
			return true
		}
	}
	return false
}
