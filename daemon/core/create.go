package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
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

// draft turns a wish into a plan, with everything checked that can be checked
// before. A clone takes over the settings of another qube.
func (c *Core) draft(n NewQube, clone *Qube) (plan, error) {
	v := c.View()
	name, err := qube.ParseName(n.Name)
	if err != nil {
		return plan{}, &Error{Kind: BadValue, Text: err.Error()}
	}
	class, err := qube.ParseClass(n.Class)
	if err != nil || class == qube.AdminVM {
		return plan{}, Failf(BadValue, "a qube of class %q cannot be created", n.Class)
	}
	if _, ok := v.Named(name); ok {
		return plan{}, Failf(AlreadyExists, "a qube named %s exists already", name)
	}
	label, ok := v.Label(n.Label)
	if !ok {
		return plan{}, Failf(LabelNotFound, "there is no label %q", n.Label)
	}
	p := plan{rec: store.Record{Name: name, UUID: qube.NewUUID(), Class: class}.Clone()}
	if err := c.draftTemplate(v, &p.rec, n.Template); err != nil {
		return plan{}, err
	}
	switch {
	case clone != nil:
		p.inherit(*clone)
	case class == qube.DispVM:
		t, _ := v.Named(qube.Name(p.rec.Properties["template"]))
		p.inheritAsDisposable(t)
	case class == qube.StandaloneVM && n.Template != "":
		t, err := cloneable(v, qube.Name(n.Template))
		if err != nil {
			return plan{}, err
		}
		if !t.Class().HasMachine() {
			return plan{}, Failf(BadValue, "%s has no root that could be copied", t.Name())
		}
		p.inherit(t)
	}
	p.rec.Properties["label"] = label.Name
	if err := c.draftCreator(v, &p.rec, n.Creator); err != nil {
		return plan{}, err
	}
	q := p.imagine(v)
	for _, prop := range slices.Sorted(maps.Keys(n.Properties)) {
		if err := c.draftProperty(q, &p.rec, prop, n.Properties[prop]); err != nil {
			return plan{}, err
		}
	}
	if class == qube.DispVM && p.rec.Properties["dispid"] == "" {
		id, err := c.newDispID("")
		if err != nil {
			return plan{}, err
		}
		p.rec.Properties["dispid"] = strconv.Itoa(id)
	}
	return p, c.draftVolumes(q, &p.rec, n)
}

// imagine is the qube that a plan would become.
func (p *plan) imagine(v *View) Qube { return Qube{v, &entry{rec: p.rec, state: qube.Halted, xid: -1}} }

// inherit takes over the settings of a qube and what its volumes hold.
func (p *plan) inherit(from Qube) {
	old := from.e.rec.Clone()
	for name, value := range old.Properties {
		if row, ok := qube.Lookup(p.rec.Class, name); ok && !row.Own && row.Set != qube.Never {
			p.rec.Properties[name] = value
		}
	}
	p.rec.Features, p.rec.Volumes, p.rec.Devices = old.Features, old.Volumes, old.Devices
	for name := range p.rec.Features {
		if isPreload(name) && name != "preload-dispvm-max" {
			delete(p.rec.Features, name)
		}
	}
	for _, tag := range old.Tags {
		if !saysCreator(tag) {
			p.rec.Tags = append(p.rec.Tags, tag)
		}
	}
	p.from, p.copies = &from, map[string]Volume{}
	for _, v := range from.Volumes() {
		switch {
		case v.Spec.SaveOnStop:
		case v.Spec.SnapOnStart && p.rec.Class == qube.StandaloneVM:
			v = from.origin(v.Name) // what the qube starts from becomes the copy's own
		default:
			continue
		}
		p.copies[v.Name] = v
		set := p.rec.Volumes[v.Name]
		set.Size = v.Spec.Size
		p.rec.Volumes[v.Name] = set
	}
}

// inheritAsDisposable is inherit for a disposable, which has its template's
// data anyway (spec/admin-api.md §10).
func (p *plan) inheritAsDisposable(template Qube) {
	volatile := template.e.rec.Volumes[volatileVolume]
	p.inherit(template)
	delete(p.rec.Features, "preload-dispvm-max")
	p.copies, p.rec.Devices, p.rec.Volumes = nil, nil, map[string]store.Volume{}
	if volatile.Pool != "" {
		p.rec.Volumes[volatileVolume] = store.Volume{Pool: volatile.Pool}
	}
}

// isPreload reports whether a feature belongs to the disposables that are
// started in advance.
func isPreload(feature string) bool { return strings.HasPrefix(feature, "preload-dispvm") }

// saysCreator reports whether a tag says who made a qube. It gives rights, and
// is no copy's.
func saysCreator(tag string) bool {
	return strings.HasPrefix(tag, "created-by-") || strings.HasPrefix(tag, "disp-created-by-")
}

// draftCreator adds what a new qube has because of who made it.
func (c *Core) draftCreator(v *View, rec *store.Record, name qube.Name) error {
	if v.System().Property("check_updates_vm") == "False" && rec.Class.HasMachine() {
		rec.Features["check-updates"] = ""
	}
	creator, ok := v.Named(name)
	if !ok {
		return nil
	}
	tag(rec, "created-by-"+string(name))
	more, _ := creator.Feature("tag-created-vm-with")
	for _, t := range strings.Fields(more) {
		if strings.Trim(t, tagBytes) != "" || saysCreator(t) || isMirror(t) {
			return Failf(InvalidTag, "the feature tag-created-vm-with of %s names the tag %q", name, t)
		}
		tag(rec, t)
	}
	if gui, _ := creator.Feature("set-created-guivm"); gui != "" && rec.Class.HasMachine() {
		return c.draftProperty(Qube{v, &entry{rec: *rec}}, rec, "guivm", gui)
	}
	return nil
}

// tag adds a tag to a record of one's own.
func tag(rec *store.Record, t string) {
	if i, found := slices.BinarySearch(rec.Tags, t); !found {
		rec.Tags = slices.Insert(rec.Tags, i, t)
	}
}

// draftProperty sets a property of a new qube.
func (c *Core) draftProperty(q Qube, rec *store.Record, name, text string) error {
	row, ok := qube.Lookup(rec.Class, name)
	switch {
	case name == "template" || name == "label" || name == "name" || name == "klass":
		return nil // said already
	case !ok:
		return Failf(NoProperty, "a %s has no property %q", rec.Class, name)
	case row.Set == qube.Never:
		return Failf(BadProperty, "property %s of %s cannot be set", name, rec.Name)
	}
	value, err := c.parse(q.v, row, text)
	if err != nil {
		return err
	}
	switch name {
	case "uuid":
		if rec.UUID = qube.UUID(value); rec.UUID == qube.Dom0UUID {
			return Failf(BadProperty, "the uuid %s is dom0's", value)
		}
	case "qid":
		if rec.QID, _ = strconv.Atoi(value); rec.QID == 0 {
			return Failf(BadProperty, "the qid 0 is dom0's")
		}
	case "provides_network":
		rec.Properties[name] = value
		if value == "True" {
			rec.Features["servicevm"] = "1"
		}
	default:
		rec.Properties[name] = value
	}
	return nil
}

// draftVolumes takes over what was said of a new qube's volumes.
func (c *Core) draftVolumes(q Qube, rec *store.Record, n NewQube) error {
	for _, volume := range slices.Sorted(maps.Keys(n.Pools)) {
		pool := n.Pools[volume]
		if vol, ok := q.Volume(volume); !ok || vol.Spec.SnapOnStart {
			return Failf(BadValue, "the pool of volume %q cannot be chosen", volume)
		}
		if _, err := c.pool(pool); err != nil {
			return err
		}
		set := rec.Volumes[volume]
		set.Pool = pool
		rec.Volumes[volume] = set
	}
	for _, volume := range slices.Sorted(maps.Keys(n.Sizes)) {
		size := n.Sizes[volume]
		vol, ok := q.Volume(volume)
		switch {
		case !ok || vol.Spec.SnapOnStart:
			return Failf(BadValue, "the size of volume %q cannot be chosen", volume)
		case size < minVolume || size > maxVolume:
			return Failf(BadValue, "a volume has from %d MiB to %d TiB", minVolume>>20, maxVolume>>40)
		}
		set := rec.Volumes[volume]
		set.Size = size
		rec.Volumes[volume] = set
	}
	return nil
}

func (c *Core) draftTemplate(v *View, rec *store.Record, template string) error {
	if !rec.Class.HasTemplate() {
		if template != "" && rec.Class != qube.StandaloneVM {
			return Failf(BadValue, "a %s has no template", rec.Class)
		}
		return nil
	}
	if template == "" {
		name := "default_template"
		if rec.Class == qube.DispVM {
			name = "default_dispvm"
		}
		if template = v.System().Property(name); template == "" {
			return Failf(BadValue, "no template was given and there is no %s", name)
		}
	}
	t, ok := v.Named(qube.Name(template))
	if !ok {
		return Failf(NotFound, "there is no template named %q", template)
	}
	row, _ := qube.Lookup(rec.Class, "template")
	if err := row.Target(t); err != nil {
		return &Error{Kind: BadValue, Text: err.Error()}
	}
	if t.e.broken != "" {
		return Failf(VMError, "the template %s cannot be used: %s", t.Name(), t.Trouble())
	}
	rec.Properties["template"] = string(t.Name())
	return nil
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
	p.report(0.1, text+" — making its volumes")
	if err := c.createVolumes(ctx, n.imagine(c.View()), n.copies, undo); err != nil {
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

// CreateTemplate builds a template from a recipe.
func (c *Core) CreateTemplate(name, recipe string) (uint64, error) {
	n, err := c.draft(NewQube{Name: name, Class: string(qube.TemplateVM), Label: "black", Creator: qube.Dom0}, nil)
	if err != nil {
		return 0, err
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
		p.report(0.96, text+" — making its volumes")
		if err := c.createVolumes(ctx, q, nil, undo); err != nil {
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
