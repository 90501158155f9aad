package core

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

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
	for name, v := range p.rec.Volumes { // old states are not copied
		v.Kept = nil
		p.rec.Volumes[name] = v
	}
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
