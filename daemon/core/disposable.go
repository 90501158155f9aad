package core

import (
	"fmt"
	"math/rand/v2"
	"time"

	"cubicle/daemon/qube"
)

// dispIDRests is how long the number of a disposable is not given again: logs
// and firewalls may still speak of the last one (spec/admin-api.md §3.2).
const dispIDRests = 7 * 24 * time.Hour

// Disposable is an unnamed disposable that is being made.
type Disposable struct {
	Job  uint64 // its making
	Name qube.Name
	UUID qube.UUID
}

// CreateDisposable makes a disposable of a qube with template_for_dispvms; of
// dom0 or with an empty UUID, of the creator's default_dispvm. It is halted,
// and is removed when it is shut down (spec/admin-api.md §10).
func (c *Core) CreateDisposable(template qube.UUID, creator qube.Name) (Disposable, error) {
	v := c.View()
	t, ok := v.Lookup(template)
	if template == "" || template == qube.Dom0UUID {
		from, known := v.Named(creator)
		if !known {
			return Disposable{}, Failf(NotFound, "there is no qube named %q", creator)
		}
		if t, ok = from.Referent("default_dispvm"); !ok {
			return Disposable{}, Failf(BadValue, "%s has no default_dispvm", creator)
		}
	}
	if !ok {
		return Disposable{}, Failf(NotFound, "the qube %s does not exist", template)
	}
	id, err := c.newDispID("disp")
	if err != nil {
		return Disposable{}, err
	}
	p, err := c.draft(NewQube{
		Name: fmt.Sprintf("disp%d", id), Class: string(qube.DispVM), Label: t.Label().Name, Template: string(t.Name()), Creator: creator,
		Properties: map[string]string{"dispid": fmt.Sprint(id), "auto_cleanup": "True"},
	}, nil)
	if err != nil {
		return Disposable{}, err
	}
	if creator != "" {
		tag(&p.rec, "disp-created-by-"+string(creator))
	}
	job, err := c.build("create", "Creating "+string(p.rec.Name), p)
	return Disposable{job, p.rec.Name, p.rec.UUID}, err
}

// newDispID gives a number that no disposable has and none had lately. With a
// prefix nothing has that name with the number either.
func (c *Core) newDispID(prefix string) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, now := c.view.Load(), c.clock.Now()
	used := map[int]bool{}
	for id, at := range c.dispids {
		if used[id] = now.Sub(at) < dispIDRests; !used[id] {
			delete(c.dispids, id)
		}
	}
	for _, q := range v.Qubes() {
		if q.Class() == qube.DispVM {
			used[q.Number("dispid")] = true
		}
	}
	free := func(id int) bool {
		name := qube.Name(fmt.Sprint(prefix, id))
		_, exists := v.names[name]
		_, reserved := c.reserved[name]
		return !used[id] && (prefix == "" || !exists && !reserved)
	}
	first := rand.IntN(qube.MaxDispID + 1)
	for i := range qube.MaxDispID + 1 {
		if id := (first + i) % (qube.MaxDispID + 1); free(id) {
			c.dispids[id] = now
			return id, nil
		}
	}
	return 0, Failf(VMError, "there were too many disposables within a week")
}

// isThrowaway reports whether the qube is removed when it ends.
func (q Qube) isThrowaway() bool {
	return q.Class() == qube.DispVM && q.Property("auto_cleanup") == "True"
}
