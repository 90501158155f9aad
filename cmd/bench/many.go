package main

import (
	"context"
	"fmt"
	"time"

	"cubicle/daemon/bus/client"
)

// crowd is what so many qubes take, each with a terminal on the screen.
type crowd struct {
	qubes int
	// Bytes per qube. Of its processes: what is theirs alone or shared among
	// them, and their share of the files that they have mapped, which other
	// qubes and dom0 may have mapped too. Then its GUI process in dom0, and
	// what its control group is charged with, which is what qubesd tells.
	own, files, guid, charged int64
}

// idle is what qubes take that nobody uses, as shares of one core.
type idle struct {
	qubes                       int
	inside, guid, daemons, xorg float64
}

func (i idle) sum() float64 { return i.inside + i.guid + i.daemons + i.xorg }

// idleQubes is the number of qubes of which the aim speaks.
const idleQubes = 10

// settle is how long a qube's programs may take to come to rest.
const settle = 5 * time.Second

// many measures the memory of many qubes and what they take while idle.
func (b *bench) many(ctx context.Context, s *system, r *engineResult) error {
	var up []client.Qube
	for _, n := range b.count.crowd[s.engine] {
		for len(up) < n {
			q, err := s.named(ctx, fmt.Sprintf("crowd-%d", len(up)+1))
			if err != nil {
				return err
			}
			job, err := s.bus.StartApp(ctx, q.UUID, "xterm")
			if err := s.do(ctx, job, err); err != nil {
				return fmt.Errorf("terminal in %s: %w", q.Name, err)
			}
			w, err := s.find(ctx, q.Name, "XTerm")
			if err != nil {
				return err
			}
			// Covered by the next ones, it may not be seen whole.
			if _, err := s.screen.IsDrawn(w); err != nil {
				return err
			}
			up = append(up, q)
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c, err := s.crowd(ctx, up)
		if err != nil {
			return err
		}
		r.crowds = append(r.crowds, *c)
		if n == idleQubes {
			if r.idle, err = s.idle(ctx, up); err != nil {
				return err
			}
		}
	}
	for _, q := range up {
		if err := s.halt(ctx, q.UUID); err != nil {
			return err
		}
	}
	return nil
}

func (s *system) crowd(ctx context.Context, up []client.Qube) (*crowd, error) {
	c := &crowd{qubes: len(up)}
	snapshot, err := s.bus.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range up {
		c.charged += int64(snapshot.Qubes[q.UUID].MemoryUsed)
		list, err := inQube(q.UUID)
		if err != nil {
			return nil, err
		}
		used := memoryOf(list)
		c.own += used.own
		c.files += used.files
	}
	guid, err := s.guidOf("")
	if err != nil {
		return nil, err
	}
	c.guid = memoryOf(guid).total()
	for _, sum := range []*int64{&c.own, &c.files, &c.guid, &c.charged} {
		*sum /= int64(len(up))
	}
	return c, nil
}

// idle looks at the processors while nothing happens.
func (s *system) idle(ctx context.Context, up []client.Qube) (*idle, error) {
	guid, err := s.guidOf("")
	if err != nil {
		return nil, err
	}
	var daemons []process
	for _, program := range []string{"qubesd", "qrexecd", "qubes-guid"} {
		list, err := s.dom0Of(program)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if len(p.args) < 2 || p.args[1] != "--qube-process" {
				daemons = append(daemons, p)
			}
		}
	}
	server, err := s.dom0Of("Xvfb")
	if err != nil {
		return nil, err
	}
	took := func() (t [4]time.Duration, err error) {
		for i, list := range [][]process{guid, daemons, server} {
			if t[i], err = cpu(list); err != nil {
				return t, err
			}
		}
		for _, q := range up {
			one, err := machineCPU(q.UUID)
			if err != nil {
				return t, err
			}
			t[3] += one
		}
		return t, nil
	}
	before, err := took()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	select {
	case <-time.After(s.bench.count.idle):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	after, err := took()
	share := func(i int) float64 { return float64(after[i]-before[i]) / float64(time.Since(began)) }
	return &idle{qubes: len(up), guid: share(0), daemons: share(1), xorg: share(2), inside: share(3)}, err
}
