package supervise

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/vchan"
)

var _ Source = Bus{}

// Bus follows qubesd. While qubesd is away, what it told last holds: running
// qubes run on.
type Bus struct {
	Client *client.Client

	// Tell tells people what a running qube lacks, once; nil: nobody. It
	// returns at once.
	Tell func(context.Context, Notice)
}

// troubleOf is what is new of a qube that runs on.
func troubleOf(before, now client.Qube) (Notice, bool) {
	if now.XID <= 0 || now.XID != before.XID || now.Error == "" || now.Error == before.Error {
		return Notice{}, false
	}
	return Notice{Title: fmt.Sprintf("Trouble in %s", now.Name), Text: now.Error}, true
}

// Watch delivers the qubes that have a domain.
func (b Bus) Watch(ctx context.Context) <-chan []Qube {
	out := make(chan []Qube)
	go func() {
		defer close(out)
		known := make(map[string]client.Qube) // by UUID
		var last []Qube
		for ev := range b.Client.Watch(ctx) {
			switch ev := ev.(type) {
			case client.Connected:
				known = maps.Clone(ev.Snapshot.Qubes)
			case client.QubeAdded:
				known[ev.Qube.UUID] = ev.Qube
			case client.QubeChanged:
				if n, ok := troubleOf(known[ev.Qube.UUID], ev.Qube); ok && b.Tell != nil {
					b.Tell(ctx, n)
				}
				known[ev.Qube.UUID] = ev.Qube
			case client.QubeRemoved:
				delete(known, ev.Qube.UUID)
			default:
				continue
			}
			now := running(known)
			if last != nil && slices.Equal(now, last) {
				continue
			}
			last = now
			select {
			case out <- now:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// running are the qubes that have a domain, by its number. dom0, which is
// domain 0, has its windows anyway.
func running(known map[string]client.Qube) []Qube {
	qubes := []Qube{}
	for _, q := range known {
		if q.XID > 0 {
			qubes = append(qubes, Qube{vchan.Domain(q.XID), q.Name, uint8(q.LabelIndex), q.LabelColor & 0xffffff})
		}
	}
	slices.SortFunc(qubes, func(a, b Qube) int { return int(a.Domain) - int(b.Domain) })
	return qubes
}
