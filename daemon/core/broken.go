package core

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cubicle/daemon/qube"
)

// brokenInterval is the pause between two looks at damaged files.
const brokenInterval = 2 * time.Second

// damage says what is wrong with a qube's file, and the mend.
func damage(err error) string {
	return err.Error() + " — repair the file, which is then read again by itself, or remove the qube"
}

// missesTemplate tells why a qube's template cannot be used, or nothing.
func (q Qube) missesTemplate() string {
	if !q.Class().HasTemplate() {
		return ""
	}
	row, _ := qube.Lookup(q.Class(), "template")
	if t, ok := q.v.Named(q.TemplateName()); !ok || t.e.damaged || t.e.broken != "" && t.Class() != qube.TemplateVM || row.Target(t) != nil {
		return fmt.Sprintf(noTemplate+"%q does not exist or is broken", q.TemplateName())
	}
	return ""
}

// followBroken looks at damaged files from time to time: a qube whose file
// was repaired can be used at once, and one whose folder was deleted is gone.
func (c *Core) followBroken() {
	for {
		select {
		case <-c.clock.After(brokenInterval):
		case <-c.life.Done():
			return
		}
		for _, q := range c.View().Qubes() {
			if q.e.damaged && q.e.rec.Pending == "" {
				c.reload(q)
			}
		}
	}
}

// reload reads a damaged file again.
func (c *Core) reload(q Qube) {
	unlock, err := c.lock(c.life, q.UUID())
	if err != nil {
		return // the core closes
	}
	defer unlock()
	rec, err := c.cfg.Store.LoadQube(q.Class(), q.Name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.stillDamaged(q, damage(err))
		return
	}
	gone := err != nil
	swap := func(t *tx) {
		old, ok := t.v.qubes[q.UUID()]
		if !ok || !old.damaged {
			return
		}
		if !(Qube{t.v, old}).isDown() {
			// It runs on; only its own file may replace what is known of it.
			if !gone && rec.Pending == "" && rec.UUID == old.rec.UUID {
				e := t.edit(rec.UUID)
				e.rec, e.broken, e.damaged = rec, "", false
				t.events = append(t.events, Event{Qube: rec.UUID})
				c.log.Info("a damaged qube was repaired", "qube", string(rec.Name))
			}
			return
		}
		if other, taken := t.v.qubes[rec.UUID]; !gone && taken && other != old {
			t.markBroken(q.UUID(), fmt.Sprintf("it has the same uuid as %s", other.rec.Name))
			return
		}
		if !gone && t.hasQID(rec.QID) {
			// Its number was not known when another qube was made.
			rec.QID = t.freeQID()
			t.drafts = append(t.drafts, rec)
		}
		t.drop(old)
		t.events = append(t.events, Event{Name: "domain-delete", Args: []Arg{{"vm", string(q.Name())}}, Qube: q.UUID()})
		if gone || rec.Pending != "" {
			return
		}
		e := &entry{rec: rec, xid: -1, disk: old.disk}
		t.put(e)
		e.broken = (Qube{t.v, e}).missesTemplate()
		e.state = e.rest()
		t.events = append(t.events, Event{Name: "domain-add", Args: []Arg{{"vm", string(rec.Name)}}, Qube: rec.UUID})
		t.heal(rec.Name)
		c.log.Info("a damaged qube was repaired", "qube", string(rec.Name))
	}
	if err := c.update(func(t *tx) error { swap(t); return nil }); err != nil {
		c.stillDamaged(q, err.Error())
		return
	}
	if rec.Pending != "" && q.isDown() {
		if err := c.removeRemains(c.life, rec); err != nil {
			c.log.Error("remove what is left of a qube", "qube", string(rec.Name), "error", err)
		}
		return
	}
	if !gone && rec.Pending == "" {
		c.measureFamily(rec.UUID)
	}
}

func (t *tx) hasQID(qid int) bool {
	for _, e := range t.v.qubes {
		if e.rec.QID == qid {
			return true
		}
	}
	for _, rec := range t.c.reserved {
		if rec.QID == qid {
			return true
		}
	}
	return false
}

// stillDamaged notes what is wrong now.
func (c *Core) stillDamaged(q Qube, why string) {
	if q.e.broken == why {
		return
	}
	c.must(func(t *tx) { t.markBroken(q.UUID(), why) })
}

func (t *tx) markBroken(id qube.UUID, why string) {
	if old, ok := t.v.qubes[id]; !ok || old.broken == why {
		return
	}
	t.edit(id).broken = why
	t.events = append(t.events, Event{Qube: id})
}
