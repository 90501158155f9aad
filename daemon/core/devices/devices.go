// Package devices keeps the core told of which devices running qubes and dom0
// offer: what a qube writes into its database is read when the qube says that
// it changed, when the qube has started, and when somebody asks.
package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/device"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// Sources are where devices are looked for.
type Sources struct {
	// Database returns the entries below a path of a running qube's database.
	Database func(ctx context.Context, q core.Qube, prefix string) (map[string]string, error)
	// Host are dom0's own devices of a class, sorted by port; nil: none.
	Host func(device.Class) ([]device.Info, error)
	// Changes delivers the classes of dom0 that changed; nil: none do.
	Changes <-chan device.Class
	// Name finds what people call the maker and the product of a device; nil:
	// nobody knows.
	Name func(*device.Info)
}

// pause is how long a qube that keeps telling of changes is not listened to.
const pause = 100 * time.Millisecond

// readTime is how long a database may take to answer.
const readTime = 10 * time.Second

// Watch follows the devices. Run it once; Wrote and Refresh may be called from
// anywhere.
type Watch struct {
	core *core.Core
	from Sources
	log  *slog.Logger

	reading chan struct{} // capacity 1: who reads and takes note holds it
	wake    chan struct{} // capacity 1

	mu  sync.Mutex // guards due
	due map[place]bool
}

// place is where the devices of a class have to be looked for again.
type place struct {
	domain vchan.Domain
	class  device.Class
}

// New returns a watch that has looked nowhere yet.
func New(c *core.Core, from Sources, log *slog.Logger) *Watch {
	return &Watch{core: c, from: from, log: log, reading: make(chan struct{}, 1), wake: make(chan struct{}, 1), due: map[place]bool{}}
}

// Wrote takes a qube's word that the entry at path changed (control.Watched).
// It does not block.
func (w *Watch) Wrote(d vchan.Domain, path string) {
	for _, c := range device.Classes() {
		if below := device.SaidBelow(c); below != "" && strings.TrimSuffix(path, "/")+"/" == below {
			w.look(place{d, c})
		}
	}
}

func (w *Watch) look(at ...place) {
	w.mu.Lock()
	for _, p := range at {
		w.due[p] = true
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// lookEverywhere is for a qube, or dom0, of which nothing is known yet.
func (w *Watch) lookEverywhere(q core.Qube) {
	if q.XID() < 0 {
		return
	}
	for _, c := range device.Classes() {
		if q.IsAdmin() || device.SaidBelow(c) != "" {
			w.look(place{vchan.Domain(q.XID()), c})
		}
	}
}

// Run looks wherever something may have changed, until the context ends.
func (w *Watch) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { w.followQubes(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case class := <-w.from.Changes:
			w.look(place{0, class})
			continue
		case <-w.wake:
		}
		w.mu.Lock()
		due := w.due
		w.due = map[place]bool{}
		w.mu.Unlock()
		for p := range due {
			q, ok := w.domain(p.domain)
			if !ok {
				continue
			}
			if err := w.Refresh(ctx, q, p.class); err != nil && ctx.Err() == nil && !errors.Is(err, errEnded) {
				w.log.Warn("look for devices", "qube", string(q.Name()), "class", string(p.class), "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// followQubes looks at qubes that have started, and at all of them after it
// lost the thread.
func (w *Watch) followQubes(ctx context.Context) {
	for ctx.Err() == nil {
		sub := w.core.Subscribe()
		v := w.core.View()
		if dom0, ok := v.Lookup(qube.Dom0UUID); ok {
			w.lookEverywhere(dom0)
		}
		for _, q := range v.Qubes() {
			w.lookEverywhere(q)
		}
		for {
			batch, v, err := sub.Next(ctx)
			if err != nil {
				break
			}
			for _, e := range batch {
				if q, ok := v.Lookup(e.Qube); ok && e.Name == "domain-start" {
					w.lookEverywhere(q)
				}
			}
		}
		sub.Close()
	}
}

func (w *Watch) domain(d vchan.Domain) (core.Qube, bool) {
	v := w.core.View()
	if d == 0 {
		return v.Lookup(qube.Dom0UUID)
	}
	for _, q := range v.Qubes() {
		if q.XID() == int(d) {
			return q, true
		}
	}
	return core.Qube{}, false
}

// errEnded tells that a qube ended before it could be asked.
var errEnded = errors.New("it has ended")

// Refresh looks for the devices of a class that a qube offers now. The core
// knows of them when it returns. A qube that is off offers none.
func (w *Watch) Refresh(ctx context.Context, q core.Qube, class device.Class) error {
	if q.XID() < 0 {
		return nil
	}
	select {
	case w.reading <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-w.reading }()
	list, err := w.read(ctx, q, class)
	if err != nil {
		return err
	}
	w.core.NoteDevices(q.UUID(), q.XID(), class, list)
	return nil
}

func (w *Watch) read(ctx context.Context, q core.Qube, class device.Class) ([]device.Info, error) {
	var list []device.Info
	var err error
	switch {
	case q.IsAdmin() && w.from.Host == nil:
	case q.IsAdmin():
		list, err = w.from.Host(class)
	case w.from.Database != nil:
		list, err = w.said(ctx, q, class)
	}
	if err != nil {
		return nil, fmt.Errorf("find the %s devices of %s: %w", class, q.Name(), err)
	}
	if w.from.Name != nil {
		for i := range list {
			list[i].Extras = maps.Clone(list[i].Extras)
			w.from.Name(&list[i])
		}
	}
	return list, nil
}

func (w *Watch) said(ctx context.Context, q core.Qube, class device.Class) ([]device.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	list, strange, err := device.Offered(class, q.Name(), func(prefix string) (map[string]string, error) {
		return w.from.Database(ctx, q, prefix)
	})
	if now, ok := w.core.View().Lookup(q.UUID()); err != nil && (!ok || now.XID() != q.XID()) {
		return nil, errors.Join(errEnded, err)
	}
	if strange > 0 {
		w.log.Warn("a qube tells of devices that cannot be", "qube", string(q.Name()), "class", string(class), "count", strange)
	}
	return list, err
}
