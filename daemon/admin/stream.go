package admin

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// errHungUp ends a stream whose client went, or takes nothing.
var errHungUp = errors.New("the client hung up")

// tell sends events, to a client that takes them within ReplyTime.
func (c *call) tell(events ...core.Event) error {
	var b bytes.Buffer
	for _, e := range events {
		appendEvent(&b, e)
	}
	err := c.conn.SetWriteDeadline(time.Now().Add(c.ReplyTime))
	if err == nil {
		_, err = c.conn.Write(b.Bytes())
	}
	if err != nil {
		return errHungUp
	}
	return nil
}

// reply lets send answer with events until the client goes.
func (c *call) reply(ctx context.Context, send func(context.Context) error) error {
	c.streamed = true
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The client has half-closed already: only its going ends this stream,
	// and that is seen when writing, or by looking.
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	gone := watchHangup(ctx, c.conn)
	go func() {
		<-gone
		cancel()
	}()
	err := c.tell(core.Event{Name: "connection-established"})
	if err == nil {
		err = send(ctx)
	}
	if errors.Is(err, errHungUp) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stream is reply for what follows the core. The subscription begins before
// the client learns that it is connected.
func (c *call) stream(ctx context.Context, send func(context.Context, *core.Subscription) error) error {
	sub := c.core.Subscribe()
	defer sub.Close()
	return c.reply(ctx, func(ctx context.Context) error { return send(ctx, sub) })
}

// maxBatch is how many events are sent at once.
const maxBatch = 256

// events streams what happens to the destination, or with dom0 as such to all
// (spec/admin-api.md §7), until the client goes. A client that does not keep
// up is hung up on.
func events(ctx context.Context, c *call) (string, error) {
	return "", c.stream(ctx, func(ctx context.Context, sub *core.Subscription) error {
		for {
			batch, v, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			var due []core.Event
			for _, e := range batch {
				if c.concerns(v, e) {
					due = append(due, e)
				}
				if len(due) == maxBatch {
					if err := c.tell(due...); err != nil {
						return err
					}
					due = due[:0]
				}
			}
			if len(due) > 0 {
				if err := c.tell(due...); err != nil {
					return err
				}
			}
		}
	})
}

// concerns reports whether an event is for the client: upstream's, of the
// chosen subject, and nothing that the policy keeps from the source.
func (c *call) concerns(v *core.View, e core.Event) bool {
	if e.Name == "" {
		return false // of our own
	}
	about := c.dest
	if e.Qube != "" {
		if q, ok := v.Lookup(e.Qube); ok {
			about = q
		}
	}
	if !c.dest.IsAdmin() && (e.Subject == "" || e.Qube != c.dest.UUID()) {
		return false
	}
	return c.allows("admin.Events", strings.ReplaceAll(e.Name, ":", "_"), about)
}

// sample is one measurement of a qube.
type sample struct {
	at  time.Time
	cpu time.Duration
}

// stats streams what running qubes use (spec/admin-api.md §7.4), until the
// client goes.
func stats(ctx context.Context, c *call) (string, error) {
	return "", c.reply(ctx, func(ctx context.Context) error {
		last := map[qube.UUID]sample{}
		for {
			v := c.core.View()
			due, now := c.measure(ctx, v, last)
			if len(due) > 0 {
				if err := c.tell(due...); err != nil {
					return err
				}
			}
			last = now
			seconds, err := strconv.Atoi(v.System().Property("stats_interval"))
			if err != nil || seconds <= 0 {
				seconds = 3
			}
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// measure measures the destination, or all qubes, and returns what there is
// to tell, and the samples that the next measurement starts from.
func (c *call) measure(ctx context.Context, v *core.View, last map[qube.UUID]sample) ([]core.Event, map[qube.UUID]sample) {
	var list []core.Qube
	if q, ok := v.Lookup(c.dest.UUID()); ok {
		list = append(list, q)
	}
	if c.dest.IsAdmin() {
		list = append(list, v.Qubes()...)
	}
	var due []core.Event
	samples := map[qube.UUID]sample{}
	for _, q := range list {
		if q.XID() < 0 || !c.allows("admin.vm.Stats", "", q) {
			continue
		}
		used, limit, cpu, err := c.core.Measure(ctx, q.UUID())
		if err != nil || limit == 0 && used == 0 {
			continue // it has just ended
		}
		now := sample{time.Now(), cpu}
		samples[q.UUID()] = now
		due = append(due, core.Event{Name: "vm-stats", Subject: q.Name(), Args: statsOf(q, used, limit, now, last[q.UUID()])})
	}
	return due, samples
}

// statsOf are the arguments of vm-stats; used and limit are bytes.
func statsOf(q core.Qube, used, limit int64, now, before sample) []core.Arg {
	vcpus := max(q.Number("vcpus"), 1)
	if q.IsAdmin() {
		vcpus = runtime.NumCPU()
	}
	usage := int64(0)
	if wall := now.at.Sub(before.at); !before.at.IsZero() && wall > 0 {
		usage = max(0, 100*int64(now.cpu-before.cpu)/int64(wall)/int64(vcpus))
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []core.Arg{
		{Key: "memory_kb", Value: number(limit >> 10)},
		{Key: "cpu_time", Value: number(now.cpu.Milliseconds())},
		{Key: "cpu_usage", Value: number(usage)},
		{Key: "memory_assigned_total", Value: number(limit >> 10)},
		{Key: "memory_assigned_usable", Value: number(limit >> 10)},
		{Key: "memory_with_swap_used", Value: number(used >> 10)},
		{Key: "online_vcpus", Value: number(int64(vcpus))},
	}
}
