package core

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
)

// statsInterval is the pause between two measurements of running qubes.
const statsInterval = 2 * time.Second

// diskEvery is how many measurements there are for one of the disk.
const diskEvery = 15

// WatchStats asks for measurements until the returned function is called.
func (c *Core) WatchStats() (stop func()) {
	c.mu.Lock()
	c.watched++
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		c.watched--
		c.mu.Unlock()
	})
}

// sample is one measurement of a machine.
type sample struct {
	at  time.Time
	cpu time.Duration
}

// pollStats measures running qubes while somebody wants to know.
func (c *Core) pollStats() {
	last := map[*run]sample{}
	for n := 0; ; n++ {
		c.mu.Lock()
		watched := c.watched > 0
		c.mu.Unlock()
		if !watched {
			clear(last)
			select {
			case <-c.wake:
				continue
			case <-c.life.Done():
				return
			}
		}
		c.measureMachines(last)
		if n%diskEvery == diskEvery-1 {
			for _, q := range c.View().Qubes() {
				if q.State() == qube.Running {
					c.measure(c.life, q.UUID())
				}
			}
		}
		select {
		case <-c.clock.After(statsInterval):
		case <-c.life.Done():
			return
		}
	}
}

func (c *Core) measureMachines(last map[*run]sample) {
	c.mu.Lock()
	runs := make(map[qube.UUID]*run, len(c.runs))
	for id, r := range c.runs {
		runs[id] = r
	}
	c.mu.Unlock()
	seen := map[*run]bool{}
	for id, r := range runs {
		q, ok := c.View().Lookup(id)
		if !ok || q.State() != qube.Running && q.State() != qube.Paused {
			continue
		}
		ctx, cancel := context.WithTimeout(c.life, statsInterval)
		s, err := r.engine.Stats(ctx, string(id))
		cancel()
		if err != nil {
			c.log.Debug("measure", "qube", string(q.Name()), "error", err)
			continue
		}
		now := sample{c.clock.Now(), s.CPU}
		c.putStats(id, s, usage(last[r], now))
		last[r], seen[r] = now, true
	}
	for r := range last {
		if !seen[r] {
			delete(last, r)
		}
	}
}

// usage is the percentage of one core between two samples, to one decimal;
// the first sample has none.
func usage(a, b sample) float64 {
	wall := b.at.Sub(a.at)
	if a.at.IsZero() || wall <= 0 {
		return 0
	}
	return max(0, math.Round(1000*float64(b.cpu-a.cpu)/float64(wall))/10)
}

func (c *Core) putStats(id qube.UUID, s engine.Stats, cpu float64) {
	c.must(func(t *tx) {
		old, ok := t.v.qubes[id]
		if !ok || old.memory == s.Memory && old.cpu == cpu {
			return
		}
		e := t.edit(id)
		e.memory, e.cpu = s.Memory, cpu
		t.events = append(t.events, Event{Qube: id})
	})
}

// Measure asks the engine of a qube now: memory in use and its limit in
// bytes, CPU time. A halted qube has zeros. dom0 has what of the computer is
// no qube's, and all its memory as its limit.
func (c *Core) Measure(ctx context.Context, id qube.UUID) (memory, limit int64, cpu time.Duration, err error) {
	if id == qube.Dom0UUID {
		u, err := c.measureDom0(ctx)
		return u.memory, u.limit, u.cpu, err
	}
	c.mu.Lock()
	r := c.runs[id]
	c.mu.Unlock()
	if r == nil {
		return 0, 0, 0, nil
	}
	s, err := r.engine.Stats(ctx, string(id))
	if errors.Is(err, engine.ErrNotRunning) {
		return 0, 0, 0, nil
	}
	return s.Memory, s.MemoryMax, s.CPU, err
}
