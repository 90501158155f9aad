package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"

	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// NewQube says what a qube shall be.
type NewQube struct {
	Name  string
	Class string
	Label string
	// Template is a name; empty: the default template, for classes that have one.
	Template string
	// Properties are set at creation, in the property table's form.
	Properties map[string]string
	// Pools says which volumes are not to be in their default pool.
	Pools map[string]string
	// Sizes are bytes of volumes that are not to have their default size.
	Sizes map[string]int64
	// Creator is the qube that asked, for the tag created-by-….
	Creator qube.Name
}

// Create checks a new qube and makes it.
func (c *Core) Create(n NewQube) (uint64, error) {
	rec, err := c.draft(n)
	if err != nil {
		return 0, err
	}
	return c.build("create", "Creating "+string(rec.Name), rec, nil)
}

// draft turns a wish into a record, with everything checked that can be
// checked before.
func (c *Core) draft(n NewQube) (store.Record, error) {
	v := c.View()
	name, err := qube.ParseName(n.Name)
	if err != nil {
		return store.Record{}, &Error{Kind: BadValue, Text: err.Error()}
	}
	class, err := qube.ParseClass(n.Class)
	if err != nil || class == qube.AdminVM {
		return store.Record{}, Failf(BadValue, "a qube of class %q cannot be created", n.Class)
	}
	if _, ok := v.Named(name); ok {
		return store.Record{}, Failf(AlreadyExists, "a qube named %s exists already", name)
	}
	label, ok := v.Label(n.Label)
	if !ok {
		return store.Record{}, Failf(LabelNotFound, "there is no label %q", n.Label)
	}
	rec := store.Record{Name: name, UUID: qube.NewUUID(), Class: class}.Clone()
	rec.Properties["label"] = label.Name
	if err := c.draftTemplate(v, &rec, n.Template); err != nil {
		return store.Record{}, err
	}
	q := Qube{v, &entry{rec: rec, state: qube.Halted, xid: -1}}
	for prop, text := range n.Properties {
		if prop == "template" || prop == "label" {
			continue // said above
		}
		value, err := c.check(q, prop, text)
		if err != nil {
			return store.Record{}, err
		}
		rec.Properties[prop] = value
	}
	for volume, pool := range n.Pools {
		if vol, ok := q.Volume(volume); !ok || vol.Spec.SnapOnStart {
			return store.Record{}, Failf(BadValue, "the pool of volume %q cannot be chosen", volume)
		}
		if _, err := c.pool(pool); err != nil {
			return store.Record{}, err
		}
		rec.Volumes[volume] = store.Volume{Pool: pool}
	}
	for volume, size := range n.Sizes {
		vol, ok := q.Volume(volume)
		switch {
		case !ok || vol.Spec.SnapOnStart:
			return store.Record{}, Failf(BadValue, "the size of volume %q cannot be chosen", volume)
		case size < minVolume || size > maxVolume:
			return store.Record{}, Failf(BadValue, "a volume has from %d MiB to %d TiB", minVolume>>20, maxVolume>>40)
		}
		set := rec.Volumes[volume]
		set.Size = size
		rec.Volumes[volume] = set
	}
	if n.Creator != "" {
		rec.Tags = []string{"created-by-" + string(n.Creator)}
	}
	return rec, nil
}

func (c *Core) draftTemplate(v *View, rec *store.Record, template string) error {
	if rec.Class != qube.AppVM {
		if template != "" {
			return Failf(BadValue, "a %s has no template", rec.Class)
		}
		return nil
	}
	if template == "" {
		if template = v.System().Property("default_template"); template == "" {
			return Failf(BadValue, "no template was given and there is no default template")
		}
	}
	t, ok := v.Named(qube.Name(template))
	if !ok {
		return Failf(NotFound, "there is no template named %q", template)
	}
	if t.Class() != qube.TemplateVM {
		return Failf(BadValue, "%s is not a template", t.Name())
	}
	if t.e.broken != "" {
		return Failf(VMError, "the template %s cannot be used: %s", t.Name(), t.Trouble())
	}
	rec.Properties["template"] = string(t.Name())
	return nil
}

// build makes the volumes of a drafted qube and then the qube. Until it is
// whole its file says so, and a crash leads to its removal.
func (c *Core) build(kind, text string, rec store.Record, copies map[string]storage.VID) (uint64, error) {
	if err := c.reserve(&rec); err != nil {
		return 0, err
	}
	return c.begin(kind, rec.Name, text, func(ctx context.Context, p *progress) (err error) {
		undo := &undo{log: c.log.With("qube", string(rec.Name))}
		defer undo.run()
		undo.push("remove the qube", func(context.Context) error { return c.unreserve(rec) })
		q := Qube{c.View(), &entry{rec: rec}}
		p.report(0.1, text+" — making its volumes")
		if err := c.createVolumes(ctx, q, copies, undo); err != nil {
			return err
		}
		if err := c.complete(rec); err != nil {
			return err
		}
		undo.disarm()
		c.measureFamily(rec.UUID)
		return nil
	}), nil
}

// reserve takes the name and a number for a new qube and writes its file. The
// qube is not in the View before it is whole.
func (c *Core) reserve(rec *store.Record) error {
	rec.Pending = store.Creating
	return c.update(func(t *tx) error {
		_, exists := t.v.Named(rec.Name)
		if _, reserved := c.reserved[rec.Name]; exists || reserved {
			return Failf(AlreadyExists, "a qube named %s exists already", rec.Name)
		}
		if rec.QID = t.freeQID(); rec.QID > 10000 {
			return Failf(VMError, "there are too many qubes")
		}
		if err := c.cfg.Store.Save(*rec); err != nil {
			return err
		}
		c.reserved[rec.Name] = rec.QID
		return nil
	})
}

// freeQID is the lowest number that no qube has.
func (t *tx) freeQID() int {
	used := map[int]bool{}
	for _, e := range t.v.qubes {
		used[e.rec.QID] = true
	}
	for _, qid := range t.c.reserved {
		used[qid] = true
	}
	qid := 1
	for used[qid] {
		qid++
	}
	return qid
}

func (c *Core) unreserve(rec store.Record) error {
	err := c.cfg.Store.Remove(rec.Class, rec.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reserved, rec.Name)
	return err
}

// complete makes a reserved qube one of the others.
func (c *Core) complete(rec store.Record) error {
	rec.Pending = ""
	return c.update(func(t *tx) error {
		e := &entry{rec: rec, state: qube.Halted, xid: -1}
		t.put(e)
		t.emit(e, "domain-create-on-disk")
		t.events = append(t.events, Event{Name: "domain-add", Args: []Arg{{"vm", string(rec.Name)}}, Qube: rec.UUID})
		if rec.Class == qube.TemplateVM {
			t.heal(rec.Name)
		}
		if err := c.cfg.Store.Save(rec); err != nil {
			return err
		}
		if rec.Class == qube.TemplateVM && t.v.system.Properties["default_template"] == "" {
			if err := t.setSystem("default_template", string(rec.Name)); err != nil {
				return err
			}
		}
		delete(c.reserved, rec.Name)
		return nil
	})
}

// noTemplate begins the trouble of a qube whose template is missing.
const noTemplate = "its template "

// heal makes the qubes usable that waited for a template of that name.
func (t *tx) heal(template qube.Name) {
	for id, o := range t.v.qubes {
		if o.rec.Properties["template"] == string(template) && strings.HasPrefix(o.broken, noTemplate) {
			e := t.edit(id)
			e.state, e.broken = qube.Halted, ""
			t.events = append(t.events, Event{Qube: id})
		}
	}
}

// Clone copies a qube with its settings and what its volumes hold.
func (c *Core) Clone(id qube.UUID, name string, creator qube.Name) (uint64, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return 0, err
	}
	if q.e.broken != "" {
		return 0, Failf(VMError, "%s cannot be cloned: %s", q.Name(), q.Trouble())
	}
	rec, err := c.draft(NewQube{Name: name, Class: string(q.Class()), Label: q.Label().Name,
		Template: string(q.TemplateName()), Creator: creator})
	if err != nil {
		return 0, err
	}
	old := q.e.rec.Clone()
	maps.Copy(rec.Properties, old.Properties)
	delete(rec.Properties, "installed_by_rpm")
	rec.Features, rec.Volumes = old.Features, old.Volumes
	for _, tag := range old.Tags {
		if !strings.HasPrefix(tag, "created-by-") {
			rec.Tags = append(rec.Tags, tag)
		}
	}
	copies := map[string]storage.VID{}
	for _, v := range q.Volumes() {
		if v.Spec.SaveOnStop {
			copies[v.Name] = v.Spec.VID
		}
	}
	return c.build("clone", fmt.Sprintf("Cloning %s to %s", q.Name(), rec.Name), rec, copies)
}

// Remove deletes a halted qube that nothing refers to, with its volumes.
func (c *Core) Remove(id qube.UUID) (uint64, error) {
	q, err := c.find(id)
	if err != nil {
		return 0, err
	}
	if err := removable(q); err != nil {
		return 0, err
	}
	return c.begin("remove", q.Name(), "Removing "+string(q.Name()), func(ctx context.Context, p *progress) error {
		unlock, err := c.lock(ctx, id)
		if err != nil {
			return err
		}
		defer unlock()
		rec, volumes := store.Record{}, Qube{}
		err = c.update(func(t *tx) error {
			q, ok := t.v.Lookup(id)
			if !ok {
				return Failf(NotFound, "the qube was removed already")
			}
			if err := removable(q); err != nil {
				return err
			}
			rec, volumes = q.e.rec, q
			t.events = append(t.events, Event{Name: "domain-pre-delete", Args: []Arg{{"vm", string(q.Name())}}, Qube: id})
			if !q.e.damaged {
				// From here on a crash ends in its removal.
				rec.Pending = store.Removing
				if err := c.cfg.Store.Save(rec); err != nil {
					return err
				}
			}
			e := *q.e
			e.state, e.broken = qube.NA, "it is being removed"
			t.put(&e)
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
	}), nil
}

// removable tells why a qube must not be removed.
func removable(q Qube) error {
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
	for _, row := range qube.SystemRows() {
		if v, _ := row.Value(q.v.System()); row.Type == qube.VM && v == name {
			return Failf(InUse, "%s is the system's %s", name, row.Name)
		}
	}
	for _, o := range q.v.Qubes() {
		for _, row := range qube.Rows(o.Class()) {
			if v, ok := o.Explicit(row.Name); ok && row.Type == qube.VM && v == name {
				return Failf(InUse, "%s is the %s of %s", name, row.Name, o.Name())
			}
		}
	}
	return nil
}

// CreateTemplate builds a template from a recipe.
func (c *Core) CreateTemplate(name, recipe string) (uint64, error) {
	rec, err := c.draft(NewQube{Name: name, Class: string(qube.TemplateVM), Label: "black", Creator: qube.Dom0})
	if err != nil {
		return 0, err
	}
	if err := c.reserve(&rec); err != nil {
		return 0, err
	}
	text := "Building template " + name
	return c.begin("create", rec.Name, text, func(ctx context.Context, p *progress) error {
		undo := &undo{log: c.log.With("qube", name)}
		defer undo.run()
		undo.push("remove the template", func(context.Context) error { return c.unreserve(rec) })
		root, _ := Qube{c.View(), &entry{rec: rec}}.Volume(rootVolume)
		pool, err := c.pool(root.Pool)
		if err != nil {
			return err
		}
		image, err := c.cfg.Builder.Build(ctx, recipe, pool.ImportDir(), func(f float64, what string) {
			p.report(0.95*f, text+" — "+what)
		})
		if err != nil {
			return wrap(err, "build template %s from recipe %s", name, recipe)
		}
		undo.push("remove the image", func(context.Context) error { return os.RemoveAll(image) })
		info, err := os.Stat(image)
		if err != nil {
			return wrap(err, "build template %s", name)
		}
		// The image says how large the root is.
		rec.Volumes[rootVolume] = store.Volume{Pool: rec.Volumes[rootVolume].Pool, Size: info.Size()}
		q := Qube{c.View(), &entry{rec: rec}}
		p.report(0.96, text+" — making its volumes")
		if err := c.createVolumes(ctx, q, nil, undo); err != nil {
			return err
		}
		root, _ = q.Volume(rootVolume)
		if err := pool.Import(ctx, root.Spec, image); err != nil {
			return wrap(err, "import the image of %s", name)
		}
		if err := c.complete(rec); err != nil {
			return err
		}
		undo.disarm()
		c.measureFamily(rec.UUID)
		return nil
	}), nil
}
