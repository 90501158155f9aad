package calls

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/policy"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
)

// open makes the target of an allowed call ready. over is to be called when
// the call has ended; it may be nil and does not block.
func (c *Calls) open(ctx context.Context, number uint64, r request, d policy.Decision) (to core.Qube, over func(), err error) {
	to, disposable, err := lookup(c.o.Core.View(), d)
	if err != nil || to.IsAdmin() {
		return to, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.StartTime, fmt.Errorf("it was not ready within %s", c.o.StartTime))
	defer cancel()
	if disposable {
		return c.openDisposable(ctx, number, r, to)
	}
	// A paused qube takes the call, and does it when it goes on.
	if s := to.State(); s == qube.Running || s == qube.Paused {
		return to, nil, nil
	}
	if !d.Autostart {
		return to, nil, fmt.Errorf("%s does not run, and the policy does not let it be started", to.Name())
	}
	if err := c.start(ctx, to.UUID()); err != nil {
		return to, nil, fmt.Errorf("start %s for a call: %w", to.Name(), err)
	}
	to, err = c.ready(ctx, to.UUID())
	return to, nil, err
}

// starts are the jobs that start targets.
type starts struct {
	mu   sync.Mutex // guards what follows
	jobs map[qube.UUID]uint64
}

// start starts a qube, once for all calls that wait for it. A start whose
// callers gave up goes on: the next one finds it done.
func (c *Calls) start(ctx context.Context, id qube.UUID) error {
	s := &c.starts
	s.mu.Lock()
	job, under := s.jobs[id]
	if !under {
		var err error
		if job, err = c.o.Core.Start(id); err != nil {
			s.mu.Unlock()
			return err
		}
		if s.jobs == nil {
			s.jobs = map[qube.UUID]uint64{}
		}
		s.jobs[id] = job
		c.spawn(func() {
			_ = c.o.Core.Wait(c.life, job) // who waits for it hears of its error
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.jobs, id)
		})
	}
	s.mu.Unlock()
	return c.wait(ctx, job)
}

// wait waits for a job of the core.
func (c *Calls) wait(ctx context.Context, job uint64) error {
	err := c.o.Core.Wait(ctx, job)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}
	return err
}

// ready waits until the agent of a qube that has been started answers: that
// of a foreign machine comes when it comes.
func (c *Calls) ready(ctx context.Context, id qube.UUID) (core.Qube, error) {
	events := c.o.Core.Subscribe()
	defer events.Close()
	for v := c.o.Core.View(); ; {
		q, ok := v.Lookup(id)
		switch {
		case !ok:
			return q, errors.New("the target was removed meanwhile")
		case q.State() == qube.Running:
			return q, nil
		case q.State() != qube.Transient:
			return q, fmt.Errorf("%s does not run: %s", q.Name(), q.State())
		}
		var err error
		if _, v, err = events.Next(ctx); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return q, fmt.Errorf("wait for the agent of %s: %w", q.Name(), err)
		}
	}
}

// disposables are those that were made for calls. Each has a file of its name
// (its UUID) in Options.Disposables from its making until it is gone, which
// holds the number of its call.
type disposables struct {
	mu    sync.Mutex           // guards what follows
	left  map[qube.UUID]uint64 // made by an earlier qubesd, until Resume
	alive map[qube.UUID]int    // how many were made for a caller and are not gone
}

// maxDisposables is how many disposables may be there for one qube's calls:
// each takes the memory of a qube.
const maxDisposables = 32

// admit counts one more disposable of a caller's.
func (d *disposables) admit(caller qube.UUID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive[caller] >= maxDisposables {
		return fmt.Errorf("the qube has %d disposables already", maxDisposables)
	}
	if d.alive == nil {
		d.alive = map[qube.UUID]int{}
	}
	d.alive[caller]++
	return nil
}

func (d *disposables) dismiss(caller qube.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive[caller]--; d.alive[caller] == 0 {
		delete(d.alive, caller)
	}
}

func (c *Calls) mark(id qube.UUID) string { return filepath.Join(c.o.Disposables, string(id)) }

// readMarks are the disposables of an earlier qubesd, with their calls. A file
// that is damaged names a call that cannot be.
func readMarks(dir string) (map[qube.UUID]uint64, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	left := map[qube.UUID]uint64{}
	for _, e := range entries {
		id, err := qube.ParseUUID(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		number, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			number = 0
		}
		left[id] = number
	}
	return left, nil
}

// openDisposable makes a disposable for one call and starts it
// (spec/qrexec.md §7.5).
func (c *Calls) openDisposable(ctx context.Context, number uint64, r request, base core.Qube) (core.Qube, func(), error) {
	caller := r.source.UUID()
	if err := c.rooms.admit(caller); err != nil {
		return base, nil, fmt.Errorf("make a disposable of %s: %w", base.Name(), err)
	}
	d, err := c.o.Core.CreateDisposable(base.UUID(), r.source.Name())
	if err != nil {
		c.rooms.dismiss(caller)
		return base, nil, fmt.Errorf("make a disposable of %s: %w", base.Name(), err)
	}
	over := func() {
		c.spawn(func() {
			defer c.rooms.dismiss(caller)
			c.remove(d.UUID)
		})
	}
	err = os.WriteFile(c.mark(d.UUID), []byte(strconv.FormatUint(number, 10)), 0o600)
	if err == nil {
		err = c.finish(ctx, d.Job)
	}
	var job uint64
	if err == nil {
		job, err = c.o.Core.Start(d.UUID)
	}
	if err == nil {
		err = c.finish(ctx, job)
	}
	var q core.Qube
	if err == nil {
		q, err = c.ready(ctx, d.UUID)
	}
	if err != nil {
		over()
		return q, nil, fmt.Errorf("make a disposable of %s: %w", base.Name(), err)
	}
	return q, over, nil
}

// finish waits for a job that serves this call alone, and ends it with the
// context.
func (c *Calls) finish(ctx context.Context, job uint64) error {
	err := c.wait(ctx, job)
	if ctx.Err() == nil {
		return err
	}
	if err := c.o.Core.Cancel(job); err == nil {
		_ = c.o.Core.Wait(c.life, job) // it failed, for its end was asked for
	}
	return context.Cause(ctx)
}

// Pauses between attempts to remove a disposable.
const (
	removePause    = 200 * time.Millisecond
	removeAttempts = 20
)

// remove ends and removes a disposable. One that cannot be removed now is
// left to the next qubesd.
func (c *Calls) remove(id qube.UUID) {
	for range removeAttempts {
		gone, err := c.tryRemove(id)
		if gone {
			if err := os.Remove(c.mark(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				c.log.Error("forget a disposable", "error", err)
			}
			return
		}
		if c.life.Err() != nil {
			return
		}
		if err != nil {
			c.log.Warn("remove the disposable of a call", "qube", string(id), "error", err)
		}
		select {
		case <-time.After(removePause):
		case <-c.life.Done():
			return
		}
	}
	c.log.Error("the disposable of a call could not be removed", "qube", string(id))
}

// tryRemove tells whether the disposable is gone.
func (c *Calls) tryRemove(id qube.UUID) (gone bool, err error) {
	q, ok := c.o.Core.View().Lookup(id)
	if !ok {
		return true, nil
	}
	act := c.o.Core.Kill // which removes it
	if s := q.State(); s == qube.Halted {
		act = c.o.Core.Remove
	}
	job, err := act(id)
	if err == nil {
		err = c.o.Core.Wait(c.life, job)
	}
	if _, ok := c.o.Core.View().Lookup(id); !ok {
		return true, nil
	}
	return false, err
}

// Resume implements router.Decider. Disposables of calls that have ended
// while no qubesd looked are removed; calls that go on are logged when they
// end, as any other.
func (c *Calls) Resume(running []control.Running) []func(control.End) {
	c.rooms.mu.Lock()
	left := c.rooms.left
	c.rooms.left = nil
	c.rooms.mu.Unlock()
	if len(running) > 0 {
		c.log.Info("calls go on that were allowed before", "calls", len(running))
	}
	v := c.o.Core.View()
	over := make([]func(control.End), len(running))
	for i, one := range running {
		e := c.resumed(v, one)
		over[i] = func(end control.End) { c.ended(e, end) }
	}
	for id, number := range left {
		q, ok := v.Lookup(id)
		i := slices.IndexFunc(running, func(one control.Running) bool {
			return ok && number != 0 && one.Number == number && q.XID() == int(one.Target)
		})
		if i < 0 {
			c.spawn(func() { c.remove(id) })
			continue
		}
		logged := over[i]
		over[i] = func(end control.End) {
			logged(end)
			c.spawn(func() { c.remove(id) })
		}
	}
	return over
}

// resumed puts a call into the book that an earlier qubesd allowed: what that
// one knew of it alone, as the rule, is lost.
func (c *Calls) resumed(v *core.View, one control.Running) *Entry {
	e := c.book.begin(control.Call{Service: one.Service})
	e.Allowed, e.Running = true, true
	for _, q := range v.Qubes() {
		switch q.XID() {
		case int(one.Source):
			e.Source, e.from = string(q.Name()), q.UUID()
		case int(one.Target):
			e.Target = string(q.Name())
		}
	}
	if one.Target == 0 {
		e.Target = string(qube.Dom0)
	}
	e.Asked = e.Target // as far as it is known
	c.book.put(e)
	return e
}
