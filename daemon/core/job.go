package core

import (
	"context"
	"errors"
	"time"

	"cubicle/daemon/qube"
)

// jobRemains is how long the end of a job can be looked up.
const jobRemains = time.Minute

// JobState is how far a job is.
type JobState string

// The states.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Job is something that takes longer than a blink.
type Job struct {
	ID       uint64
	Kind     string // "start", "shutdown", "create", …
	Qube     qube.Name
	Text     string  // what it is doing, for people
	Progress float64 // 0 to 1
	State    JobState
	ErrKind  Kind   // when failed
	Err      string // when failed or cancelled
}

// task is the running side of a job.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // after done
}

// progress reports how far a job is.
type progress struct {
	c  *Core
	id uint64
}

// report sets the job's text, and its progress from 0 to 1.
func (p *progress) report(fraction float64, text string) {
	p.c.must(func(t *tx) {
		j, ok := t.v.jobs[p.id]
		if !ok || j.Progress == fraction && j.Text == text {
			return
		}
		j.Progress, j.Text = min(max(fraction, 0), 1), text
		t.putJob(j)
	})
}

// begin starts a job. It lives until it ends, is cancelled or the core closes;
// who asked for it may go.
func (c *Core) begin(kind string, name qube.Name, text string, do func(context.Context, *progress) error) uint64 {
	ctx, cancel := context.WithCancel(c.life)
	k := &task{cancel: cancel, done: make(chan struct{})}
	var id uint64
	c.must(func(t *tx) {
		c.lastJob++
		id = c.lastJob
		c.jobs[id] = k
		t.putJob(Job{ID: id, Kind: kind, Qube: name, Text: text, State: JobRunning})
	})
	c.spawn(func() {
		defer cancel()
		k.err = advise(do(ctx, &progress{c, id}))
		c.finish(id, k.err, ctx.Err() != nil)
		close(k.done)
		select {
		case <-c.clock.After(jobRemains):
		case <-c.life.Done():
		}
		c.must(func(t *tx) {
			delete(c.jobs, id)
			t.dropJob(id)
		})
	})
	return id
}

func (c *Core) finish(id uint64, err error, cancelled bool) {
	c.must(func(t *tx) {
		j := t.v.jobs[id]
		switch {
		case err == nil:
			j.State, j.Progress = JobDone, 1
			c.log.Info("job done", "job", j.Kind, "qube", string(j.Qube))
		case cancelled || errors.Is(err, context.Canceled):
			j.State, j.Err = JobCancelled, "cancelled"
		default:
			j.State, j.ErrKind, j.Err = JobFailed, KindOf(err), err.Error()
			c.log.Warn("job failed", "job", j.Kind, "qube", string(j.Qube), "error", err)
		}
		t.putJob(j)
	})
}

// Wait waits for a job's end and returns its error. When the context ends the
// job goes on.
func (c *Core) Wait(ctx context.Context, id uint64) error {
	c.mu.Lock()
	k, ok := c.jobs[id]
	c.mu.Unlock()
	if !ok {
		return Failf(General, "there is no job %d", id)
	}
	select {
	case <-k.done:
		return k.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Cancel asks a job to stop and undo what it did. No-op for one that ended.
func (c *Core) Cancel(id uint64) error {
	c.mu.Lock()
	k, ok := c.jobs[id]
	c.mu.Unlock()
	if !ok {
		return Failf(General, "there is no job %d", id)
	}
	k.cancel()
	return nil
}
