package core

import (
	"context"
	"fmt"
	"os"
	"strings"

	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

// NewQube says what a qube shall be.
type NewQube struct {
	Name  string
	Class string
	Label string
	// Template is a name; empty: the default one, for classes that have one. A
	// StandaloneVM becomes a copy of it; without, its root is empty.
	Template string
	// Properties are set at creation, in the property table's form, those
	// among them that can be set only then.
	Properties map[string]string
	// Pools says which volumes are not to be in their default pool.
	Pools map[string]string
	// Sizes are bytes of volumes that are not to have their default size.
	Sizes map[string]int64
	// Creator is the qube that asked: for the tag created-by-…, and for what
	// its features say of the qubes that it makes.
	Creator qube.Name
}

// plan is a new qube as it will be.
type plan struct {
	rec store.Record
	// from is the qube whose data and settings it gets, or nil.
	from *Qube
	// copies are the volumes of from that are copied.
	copies map[string]Volume
}

// Create checks a new qube and makes it.
func (c *Core) Create(n NewQube) (uint64, error) {
	p, err := c.draft(n, nil)
	if err != nil {
		return 0, err
	}
	return c.build("create", "Creating "+string(p.rec.Name), p)
}

// build makes the volumes of a planned qube and then the qube. Until it is
// whole its file says so, and a crash leads to its removal.
func (c *Core) build(kind, text string, n plan) (uint64, error) {
	if err := c.reserve(&n.rec); err != nil {
		return 0, err
	}
	return c.begin(kind, n.rec.Name, text, func(ctx context.Context, p *progress) error {
		return c.construct(ctx, text, n, p)
	}), nil
}

func (c *Core) construct(ctx context.Context, text string, n plan, p *progress) error {
	undo := &undo{log: c.log.With("qube", string(n.rec.Name))}
	defer undo.run()
	undo.push("remove the qube", func(context.Context) error { return c.unreserve(n.rec) })
	if err := c.createVolumes(ctx, n.imagine(c.View()), n.copies, undo, func(done float64, what string) {
		p.report(0.1+0.8*done, text+" — "+what)
	}); err != nil {
		return err
	}
	if n.from != nil {
		if err := c.copyFiles(*n.from, n.rec); err != nil {
			return err
		}
	}
	if err := c.complete(n); err != nil {
		return err
	}
	undo.disarm()
	c.measureFamily(n.rec.UUID)
	return nil
}

// copyFiles copies what is kept beside a qube's record: its firewall, and for
// a clone its notes and what is known of its applications.
func (c *Core) copyFiles(from Qube, to store.Record) error {
	s := c.cfg.Store
	rules, err := s.Firewall(from.Class(), from.Name())
	if err == nil && rules != nil {
		err = s.SetFirewall(to.Class, to.Name, rules)
		tell(c.firewalls)
	}
	if err != nil {
		return wrap(err, "copy the firewall of %s", from.Name())
	}
	if to.Class == qube.DispVM {
		return nil
	}
	notes, err := s.Notes(from.Class(), from.Name())
	if err == nil && notes != "" {
		err = s.SetNotes(to.Class, to.Name, notes)
	}
	if err != nil {
		return wrap(err, "copy the notes of %s", from.Name())
	}
	return nil
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
		if _, exists := t.v.Lookup(rec.UUID); exists {
			return Failf(AlreadyExists, "there is a qube with the uuid %s", rec.UUID)
		}
		if id := rec.Properties["dispid"]; id != "" {
			for _, o := range t.v.Qubes() {
				if o.Property("dispid") == id {
					return Failf(AlreadyExists, "there is a disposable with the dispid %s", id)
				}
			}
		}
		if err := t.unclaimed(*rec); err != nil {
			return err
		}
		switch {
		case rec.QID == 0:
			rec.QID = t.freeQID()
		case t.hasQID(rec.QID):
			return Failf(AlreadyExists, "there is a qube with the qid %d", rec.QID)
		}
		if rec.QID > qube.MaxQID {
			return Failf(VMError, "there are too many qubes")
		}
		t.drafts = append(t.drafts, *rec)
		t.after = append(t.after, func() { c.reserved[rec.Name] = rec.Clone() })
		return nil
	})
}

// unclaimed tells which qube refers to one of that name which is gone: what
// it meant must not become another qube by accident. A qube that fits is a
// repair.
func (t *tx) unclaimed(rec store.Record) error {
	q := Qube{t.v, &entry{rec: rec}}
	return t.v.references(rec.Name, func(row qube.Property, owner string) error {
		if row.Target != nil && row.Target(q) == nil && row.Name != "guivm" && row.Name != "audiovm" {
			return nil
		}
		return Failf(InUse, "the %s of %s is a qube named %s, which is gone: change that first", row.Name, owner, rec.Name)
	})
}

// freeQID is the lowest number that no qube has.
func (t *tx) freeQID() int {
	used := map[int]bool{}
	for _, e := range t.v.qubes {
		used[e.rec.QID] = true
	}
	for _, rec := range t.c.reserved {
		used[rec.QID] = true
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
func (c *Core) complete(n plan) error {
	rec := n.rec
	rec.Pending = ""
	return c.update(func(t *tx) error {
		e := &entry{rec: rec, xid: -1}
		e.state = e.rest()
		t.put(e)
		t.save(e)
		q := Qube{t.v, e}
		t.emit(e, "domain-init")
		for _, tag := range q.Tags() {
			t.emit(e, "domain-tag-add:"+tag, Arg{"tag", tag})
		}
		if n.from != nil && rec.Class != qube.DispVM {
			t.emit(e, "domain-clone-files", Arg{"src", string(n.from.Name())})
		}
		t.emit(e, "domain-create-on-disk")
		t.events = append(t.events, Event{Name: "domain-add", Args: []Arg{{"vm", string(rec.Name)}}, Qube: rec.UUID})
		t.heal(rec.Name)
		if row, ok := qube.LookupSystem("default_template"); ok && rec.Class == qube.TemplateVM && t.v.System().Property(row.Name) == "" {
			t.setSystem(row, string(rec.Name))
		}
		t.after = append(t.after, func() { delete(c.reserved, rec.Name) })
		return nil
	})
}

// noTemplate begins the trouble of a qube whose template is missing.
const noTemplate = "its template "

// heal makes the qubes usable that waited for a template of that name.
func (t *tx) heal(template qube.Name) {
	for id, o := range t.v.qubes {
		if o.rec.Properties["template"] != string(template) || !strings.HasPrefix(o.broken, noTemplate) || (Qube{t.v, o}).missesTemplate() != "" {
			continue
		}
		e := t.edit(id)
		e.state, e.broken = qube.Halted, ""
		t.events = append(t.events, Event{Qube: id})
		t.heal(e.rec.Name)
	}
}

// cloneable is the qube of that name, if there is something to copy.
func cloneable(v *View, name qube.Name) (Qube, error) {
	q, ok := v.Named(name)
	switch {
	case !ok:
		return Qube{}, Failf(NotFound, "there is no qube named %q", name)
	case q.IsAdmin():
		return Qube{}, Failf(VMError, "dom0 cannot be cloned")
	case q.e.broken != "":
		return Qube{}, Failf(VMError, "%s cannot be cloned: %s", q.Name(), q.Trouble())
	}
	return q, nil
}

// Clone copies a qube with its settings and what its volumes hold.
func (c *Core) Clone(id qube.UUID, name string, creator qube.Name) (uint64, error) {
	q, err := c.findQube(id)
	if err == nil {
		q, err = cloneable(c.View(), q.Name())
	}
	if err != nil {
		return 0, err
	}
	p, err := c.draft(NewQube{Name: name, Class: string(q.Class()), Label: q.Label().Name,
		Template: string(q.TemplateName()), Creator: creator}, &q)
	if err != nil {
		return 0, err
	}
	return c.build("clone", fmt.Sprintf("Cloning %s to %s", q.Name(), p.rec.Name), p)
}

// CreateTemplate builds a template from a recipe.
func (c *Core) CreateTemplate(name, recipe string) (uint64, error) {
	n, err := c.draft(NewQube{Name: name, Class: string(qube.TemplateVM), Label: "black", Creator: qube.Dom0}, nil)
	if err != nil {
		return 0, err
	}
	features, err := c.cfg.Builder.Features(recipe)
	if err != nil {
		return 0, wrap(err, "build template %s from recipe %s", name, recipe)
	}
	for feature, value := range features {
		if err := checkFeature(feature, value); err != nil {
			return 0, err
		}
		n.rec.Features[feature] = value
	}
	if err := c.reserve(&n.rec); err != nil {
		return 0, err
	}
	rec := n.rec
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
		if err := c.createVolumes(ctx, q, nil, undo, func(_ float64, what string) { p.report(0.96, text+" — "+what) }); err != nil {
			return err
		}
		root, _ = q.Volume(rootVolume)
		if err := pool.Import(ctx, root.Spec, image); err != nil {
			return wrap(err, "import the image of %s", name)
		}
		if err := c.complete(plan{rec: rec}); err != nil {
			return err
		}
		undo.disarm()
		c.measureFamily(rec.UUID)
		return nil
	}), nil
}
