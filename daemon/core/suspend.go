package core

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/qube"
)

// suspendTime is how long a qube may prepare for its sleep, or come round
// after it (spec/admin-api.md §8.3, §8.4).
const suspendTime = time.Minute

// Suspend puts a running qube to sleep: it is told, and then paused, because
// no engine of this system has a sleep that a qube takes part in
// (spec/admin-api.md §8.3).
func (c *Core) Suspend(ctx context.Context, id qube.UUID) error {
	q, err := c.findQube(id)
	if err != nil {
		return err
	}
	if q.State() != qube.Running {
		return Failf(NotRunning, "%s is not running", q.Name())
	}
	c.hook(ctx, q, "qubes.SuspendPre")
	job, err := c.Pause(id)
	if err != nil {
		return err
	}
	return c.Wait(ctx, job)
}

// Resume wakes a qube and tells it.
func (c *Core) Resume(ctx context.Context, id qube.UUID) error {
	job, err := c.Unpause(id)
	if err == nil {
		err = c.Wait(ctx, job)
	}
	if err != nil {
		return err
	}
	if q, err := c.find(id); err == nil {
		c.hook(ctx, q, "qubes.SuspendPost")
		c.tell(id, "domain-resumed")
	}
	return nil
}

// hook calls a service of a running qube as root. That the qube does not have
// it, or fails, is its own affair.
func (c *Core) hook(ctx context.Context, q Qube, service string) {
	r, err := c.current(q)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, suspendTime)
		defer cancel()
		_, err = c.cfg.Caller.Call(ctx, Service{To: r.facts.Domain, User: "root", Name: service})
	}
	if err != nil {
		c.log.Info("a qube did not take part in a suspend", "qube", string(q.Name()), "service", service, "error", err)
	}
}

// pausedList names the qubes that were paused before the host went to sleep,
// one a line.
func (c *Core) pausedList() string {
	return filepath.Join(filepath.Dir(c.cfg.Runs), "previously-paused.list")
}

// SuspendAll prepares all qubes for the sleep of the host
// (spec/admin-api.md §8.4). It goes on after a qube that fails.
func (c *Core) SuspendAll(ctx context.Context) error {
	var paused []string
	var running []Qube
	for _, q := range c.View().Qubes() {
		switch q.State() {
		case qube.Paused, qube.Suspended:
			paused = append(paused, string(q.Name()))
		case qube.Running:
			running = append(running, q)
		}
	}
	if err := os.WriteFile(c.pausedList(), []byte(strings.Join(append(paused, ""), "\n")), 0o600); err != nil {
		return advise(wrap(err, "remember which qubes are paused"))
	}
	each(running, func(q Qube) error { c.hook(ctx, q, "qubes.SuspendPreAll"); return nil })
	return each(running, func(q Qube) error { return c.Suspend(ctx, q.UUID()) })
}

// ResumeAll wakes the qubes that SuspendAll has put to sleep.
func (c *Core) ResumeAll(ctx context.Context) error {
	raw, err := os.ReadFile(c.pausedList())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap(err, "recall which qubes were paused")
	}
	before := strings.Split(string(raw), "\n")
	var asleep []Qube
	for _, q := range c.View().Qubes() {
		if s := q.State(); (s == qube.Paused || s == qube.Suspended) && !slices.Contains(before, string(q.Name())) {
			asleep = append(asleep, q)
		}
	}
	err = each(asleep, func(q Qube) error { return c.Resume(ctx, q.UUID()) })
	each(asleep, func(q Qube) error { c.hook(ctx, q, "qubes.SuspendPostAll"); return nil })
	if rerr := os.Remove(c.pausedList()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// each does something with all qubes at the same time.
func each(list []Qube, do func(Qube) error) error {
	errs := make([]error, len(list))
	var work sync.WaitGroup
	for i, q := range list {
		work.Go(func() { errs[i] = do(q) })
	}
	work.Wait()
	return errors.Join(errs...)
}
