package core

import (
	"context"
	"errors"

	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

// Remove deletes a halted qube that nothing refers to, with its volumes.
func (c *Core) Remove(id qube.UUID) (uint64, error) {
	q, err := c.find(id)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	err = c.removable(q)
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.begin("remove", q.Name(), "Removing "+string(q.Name()), func(ctx context.Context, p *progress) error {
		unlock, err := c.lock(ctx, id)
		if err != nil {
			return err
		}
		defer unlock()
		return c.demolish(ctx, id)
	}), nil
}

// demolish removes a qube. The caller holds its lock.
func (c *Core) demolish(ctx context.Context, id qube.UUID) error {
	rec, volumes := store.Record{}, Qube{}
	err := c.update(func(t *tx) error {
		q, ok := t.v.Lookup(id)
		if !ok {
			return Failf(NotFound, "the qube was removed already")
		}
		if err := c.removable(q); err != nil {
			return err
		}
		volumes = q
		t.events = append(t.events, Event{Name: "domain-pre-delete", Args: []Arg{{"vm", string(q.Name())}}, Qube: id})
		e := t.edit(id)
		if e.rec.Pending = store.Removing; !e.damaged {
			t.save(e) // from here on a crash ends in its removal
		}
		e.state, e.broken = qube.NA, "it is being removed"
		rec = e.rec
		return nil
	})
	if err != nil {
		return err
	}
	verr := errors.Join(c.removeVolumes(context.WithoutCancel(ctx), volumes), c.forget(ctx, rec.UUID))
	if verr != nil {
		c.log.Error("remove volumes", "qube", string(rec.Name), "error", verr)
	}
	if err := c.cfg.Store.Remove(rec.Class, rec.Name); err != nil {
		return err
	}
	c.must(func(t *tx) {
		e := &entry{rec: rec}
		t.drop(e)
		t.emit(e, "domain-remove-from-disk")
		t.events = append(t.events, Event{Name: "domain-delete", Args: []Arg{{"vm", string(rec.Name)}}, Qube: id})
	})
	return verr
}

// removable tells why a qube must not be removed. The caller holds mu.
func (c *Core) removable(q Qube) error {
	name := string(q.Name())
	switch {
	case q.IsAdmin():
		return Failf(InUse, "dom0 cannot be removed")
	case q.Property("installed_by_rpm") == "True":
		return Failf(InUse, "%s belongs to a package: remove that", name)
	case !q.isDown():
		return Failf(NotHalted, "%s is not halted: shut it down first", name)
	case q.e.rec.Pending != "":
		return Failf(InUse, "%s cannot be removed: %s", name, q.Trouble())
	}
	if err := q.v.references(q.Name(), func(row qube.Property, owner string) error {
		if owner == name {
			return nil // what it says of itself goes with it
		}
		return Failf(InUse, "%s is the %s of %s", name, row.Name, owner)
	}); err != nil {
		return err
	}
	for other, rec := range c.reserved {
		for prop, value := range rec.Properties {
			if row, ok := qube.Lookup(rec.Class, prop); ok && row.Type == qube.VM && value == name {
				return Failf(InUse, "%s is the %s of %s, which is being made", name, prop, other)
			}
		}
	}
	for _, o := range append(q.v.Qubes(), Qube{q.v, q.v.dom0}) {
		for _, d := range o.e.rec.Devices {
			if d.Backend == name && o.UUID() != q.UUID() {
				return Failf(InUse, "%s provides the device %s of %s", name, d.Port, o.Name())
			}
		}
	}
	return nil
}
