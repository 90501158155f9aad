package core

import (
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/qube"
)

// check turns a text into the value of a property of q, or tells why it
// cannot be that. It does not ask when the property may be set.
func (c *Core) check(q Qube, name, text string) (string, error) {
	row, ok := qube.Lookup(q.Class(), name)
	if !ok {
		return "", Failf(NoProperty, "%s has no property %q", q.Name(), name)
	}
	switch name {
	case "name", "uuid", "qid", "klass":
		return "", Failf(BadProperty, "property %s of %s cannot be set", name, q.Name())
	}
	if row.Set == qube.Never {
		return "", Failf(BadProperty, "property %s of %s cannot be set", name, q.Name())
	}
	return c.parse(q.v, row, text)
}

// parse applies a row's rules, and those that need the other qubes.
func (c *Core) parse(v *View, row qube.Property, text string) (string, error) {
	value, err := row.Parse(text)
	if err != nil {
		return "", &Error{Kind: BadProperty, Text: err.Error()}
	}
	switch {
	case row.Type == qube.VM && value != "":
		target, ok := v.Named(qube.Name(value))
		if !ok {
			return "", Failf(NotFound, "property %s: there is no qube named %s", row.Name, value)
		}
		if row.Target != nil {
			if err := row.Target(target); err != nil {
				return "", Failf(BadProperty, "property %s: %v", row.Name, err)
			}
		}
	case row.Type == qube.LabelRef:
		label, ok := v.Label(value)
		if !ok {
			return "", Failf(LabelNotFound, "there is no label %q", value)
		}
		return label.Name, nil
	case row.Name == "engine" || row.Name == "default_engine":
		if _, ok := c.engines[value]; !ok {
			return "", Failf(BadProperty, "this machine has no engine %q, only %s", value, strings.Join(c.engineNames(), ", "))
		}
	case strings.HasPrefix(row.Name, "default_pool"):
		if !c.pools.has(value) {
			return "", Failf(BadProperty, "there is no pool %q", value)
		}
	}
	return value, nil
}

func (c *Core) engineNames() []string {
	var names []string
	for _, e := range c.cfg.Engines {
		names = append(names, e.Name())
	}
	return names
}

// settable tells why a property of q must not be changed now.
func settable(q Qube, row qube.Property) error {
	switch {
	case row.Set == qube.Never, row.Set == qube.AtCreation:
		return Failf(BadProperty, "property %s of %s cannot be set", row.Name, q.Name())
	case q.IsAdmin() && row.Name == "label":
		return Failf(BadProperty, "the label of dom0 cannot be set")
	case row.Set == qube.WhileHalted && !q.isDown():
		return Failf(NotHalted, "property %s of %s can only be changed while it is halted", row.Name, q.Name())
	case q.e.broken != "" && (row.Name != "template" || !strings.HasPrefix(q.e.broken, noTemplate)):
		return Failf(VMError, "%s cannot be changed: %s", q.Name(), q.Trouble())
	}
	return nil
}

// SetProperty sets a property of a qube.
func (c *Core) SetProperty(id qube.UUID, name, text string) error {
	return c.update(func(t *tx) error {
		q, row, err := t.row(id, name)
		if err != nil {
			return err
		}
		value, err := c.check(q, name, text)
		if err != nil {
			return err
		}
		if row.Name == "netvm" && t.v.loops(q.Name(), value) {
			return Failf(BadProperty, "%s would be its own network provider", q.Name())
		}
		if row.Name == "provides_network" && value == "False" {
			for _, o := range t.v.Qubes() {
				if o.Property("netvm") == string(q.Name()) {
					return Failf(InUse, "%s gives network to %s", q.Name(), o.Name())
				}
			}
		}
		old, _ := row.Value(q)
		return t.setProperty(id, row, &value, old)
	})
}

// ResetProperty puts a property of a qube back to its default.
func (c *Core) ResetProperty(id qube.UUID, name string) error {
	return c.update(func(t *tx) error {
		q, row, err := t.row(id, name)
		if err != nil {
			return err
		}
		if row.Default == nil {
			return Failf(BadProperty, "property %s of %s has no default", name, q.Name())
		}
		old, _ := row.Value(q)
		return t.setProperty(id, row, nil, old)
	})
}

func (t *tx) row(id qube.UUID, name string) (Qube, qube.Property, error) {
	q, ok := t.v.Lookup(id)
	if !ok {
		return Qube{}, qube.Property{}, Failf(NotFound, "the qube %s does not exist", id)
	}
	row, ok := qube.Lookup(q.Class(), name)
	if !ok {
		return Qube{}, qube.Property{}, Failf(NoProperty, "%s has no property %q", q.Name(), name)
	}
	return q, row, settable(q, row)
}

// setProperty stores a value, or with nil the default.
func (t *tx) setProperty(id qube.UUID, row qube.Property, value *string, old string) error {
	e, save := t.editAny(id)
	e.rec = e.rec.Clone()
	if value != nil {
		e.rec.Properties[row.Name] = *value
	} else {
		delete(e.rec.Properties, row.Name)
	}
	now, _ := row.Value(Qube{t.v, e})
	if value != nil {
		t.emit(e, "property-set:"+row.Name, Arg{"name", row.Name}, Arg{"newvalue", now}, Arg{"oldvalue", old})
	} else {
		t.emit(e, "property-reset:"+row.Name, Arg{"name", row.Name}, Arg{"oldvalue", old})
	}
	if row.Name == "label" {
		t.emit(e, "property-reset:icon", Arg{"name", "icon"})
	}
	if row.Name == "template" && strings.HasPrefix(e.broken, noTemplate) {
		e.state, e.broken = qube.Halted, ""
	}
	t.touchDependents(e)
	return save()
}

// editAny is edit for qubes and dom0, with the way to save it.
func (t *tx) editAny(id qube.UUID) (*entry, func() error) {
	if id == qube.Dom0UUID {
		e := *t.v.dom0
		t.v.dom0 = &e
		return &e, func() error {
			t.v.system.Admin = e.rec
			return t.c.cfg.Store.SaveSystem(t.v.system)
		}
	}
	e := t.edit(id)
	return e, func() error { return t.c.cfg.Store.Save(e.rec) }
}

// touchDependents marks the qubes whose defaults come from e.
func (t *tx) touchDependents(e *entry) {
	if e.rec.Class != qube.TemplateVM {
		return
	}
	for _, o := range t.v.qubes {
		if o.rec.Properties["template"] == string(e.rec.Name) {
			t.events = append(t.events, Event{Qube: o.rec.UUID})
		}
	}
}

// loops reports whether n would reach itself if its netvm were to.
func (v *View) loops(n qube.Name, to string) bool {
	for range v.qubes {
		if to == string(n) {
			return true
		}
		q, ok := v.Named(qube.Name(to))
		if !ok || q.IsAdmin() {
			return false
		}
		to = q.Property("netvm")
	}
	return false
}

// SetSystemProperty sets a global property.
func (c *Core) SetSystemProperty(name, text string) error {
	return c.update(func(t *tx) error {
		row, ok := qube.LookupSystem(name)
		if !ok {
			return Failf(NoProperty, "there is no global property %q", name)
		}
		value, err := c.parse(t.v, row, text)
		if err != nil {
			return err
		}
		return t.setSystem(name, value)
	})
}

// ResetSystemProperty puts a global property back to its default.
func (c *Core) ResetSystemProperty(name string) error {
	return c.update(func(t *tx) error {
		row, ok := qube.LookupSystem(name)
		if !ok {
			return Failf(NoProperty, "there is no global property %q", name)
		}
		old, _ := row.Value(t.v.System())
		t.v.system.Properties = maps.Clone(t.v.system.Properties)
		delete(t.v.system.Properties, name)
		t.systemEvent("property-reset:"+name, Arg{"name", name}, Arg{"oldvalue", old})
		return c.cfg.Store.SaveSystem(t.v.system)
	})
}

func (t *tx) setSystem(name, value string) error {
	old := t.v.System().Property(name)
	t.v.system.Properties = maps.Clone(t.v.system.Properties)
	t.v.system.Properties[name] = value
	t.systemEvent("property-set:"+name, Arg{"name", name}, Arg{"newvalue", value}, Arg{"oldvalue", old})
	return t.c.cfg.Store.SaveSystem(t.v.system)
}

// systemEvent tells of a change of the system; every qube may look different
// then, because defaults come from there.
func (t *tx) systemEvent(name string, args ...Arg) {
	t.events = append(t.events, Event{Name: name, Args: args})
	for id := range t.v.qubes {
		t.events = append(t.events, Event{Qube: id})
	}
}

// SetFeature sets a feature; the value is printable ASCII.
func (c *Core) SetFeature(id qube.UUID, name, value string) error {
	if name == "" || strings.Trim(name, featureBytes) != "" {
		return Failf(BadValue, "%q is not a feature's name", name)
	}
	for i := 0; i < len(value); i++ {
		if value[i] < ' ' || value[i] > '~' {
			return Failf(BadValue, "the value of feature %s must be printable ASCII", name)
		}
	}
	return c.change(id, func(e *entry, t *tx) error {
		args := []Arg{{"feature", name}, {"value", value}}
		if old, ok := e.rec.Features[name]; ok {
			args = append(args, Arg{"oldvalue", old})
		}
		e.rec.Features[name] = value
		t.emit(e, "domain-feature-set:"+name, args...)
		return nil
	})
}

const (
	tagBytes     = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	featureBytes = tagBytes + "."
)

// RemoveFeature unsets a feature.
func (c *Core) RemoveFeature(id qube.UUID, name string) error {
	return c.change(id, func(e *entry, t *tx) error {
		if _, ok := e.rec.Features[name]; !ok {
			return Failf(FeatureNotFound, "%s has no feature %q", e.rec.Name, name)
		}
		delete(e.rec.Features, name)
		t.emit(e, "domain-feature-delete:"+name, Arg{"feature", name})
		return nil
	})
}

// SetTag adds a tag.
func (c *Core) SetTag(id qube.UUID, tag string) error {
	if tag == "" || strings.Trim(tag, tagBytes) != "" {
		return Failf(InvalidTag, "%q is not a tag", tag)
	}
	return c.change(id, func(e *entry, t *tx) error {
		if i, found := slices.BinarySearch(e.rec.Tags, tag); !found {
			e.rec.Tags = slices.Insert(e.rec.Tags, i, tag)
			t.emit(e, "domain-tag-add:"+tag, Arg{"tag", tag})
		}
		return nil
	})
}

// RemoveTag takes a tag away.
func (c *Core) RemoveTag(id qube.UUID, tag string) error {
	return c.change(id, func(e *entry, t *tx) error {
		i, found := slices.BinarySearch(e.rec.Tags, tag)
		if !found {
			return Failf(TagNotFound, "%s has no tag %q", e.rec.Name, tag)
		}
		e.rec.Tags = slices.Delete(e.rec.Tags, i, i+1)
		t.emit(e, "domain-tag-delete:"+tag, Arg{"tag", tag})
		return nil
	})
}

// change edits a qube's record and saves it.
func (c *Core) change(id qube.UUID, edit func(*entry, *tx) error) error {
	return c.update(func(t *tx) error {
		q, ok := t.v.Lookup(id)
		if !ok {
			return Failf(NotFound, "the qube %s does not exist", id)
		}
		if q.e.broken != "" {
			return Failf(VMError, "%s cannot be changed: %s", q.Name(), q.Trouble())
		}
		e, save := t.editAny(id)
		e.rec = e.rec.Clone()
		if err := edit(e, t); err != nil {
			return err
		}
		return save()
	})
}

// Notes is the text that people keep with a qube.
func (c *Core) Notes(id qube.UUID) (string, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return "", err
	}
	text, err := c.cfg.Store.Notes(q.Class(), q.Name())
	if err != nil {
		return "", wrap(err, "read the notes of %s", q.Name())
	}
	return text, nil
}

// SetNotes replaces it.
func (c *Core) SetNotes(id qube.UUID, text string) error {
	q, err := c.findMachine(id)
	if err != nil {
		return err
	}
	if err := c.cfg.Store.SetNotes(q.Class(), q.Name(), text); err != nil {
		return advise(wrap(err, "write the notes of %s", q.Name()))
	}
	return nil
}
