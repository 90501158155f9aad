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
	case (row.Name == "kernel" || row.Name == "default_kernel") && value != "":
		if !c.cfg.Store.HasKernel(value) {
			return "", Failf(BadProperty, "the kernel %q is not installed", value)
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
		t.setProperty(id, row, value)
		return t.allow(q, row)
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
		t.resetProperty(id, row)
		return t.allow(q, row)
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

// setProperty stores a checked value, with what follows from it.
func (t *tx) setProperty(id qube.UUID, row qube.Property, value string) {
	e := t.amend(id)
	old, _ := row.Value(Qube{t.v, e})
	e.rec.Properties[row.Name] = value
	args := []Arg{{"name", row.Name}, {"newvalue", spoken(row, value)}}
	if old != "" || row.Default != nil {
		args = append(args, Arg{"oldvalue", spoken(row, old)})
	}
	t.emit(e, "property-pre-set:"+row.Name, args...)
	t.emit(e, "property-set:"+row.Name, args...)
	t.changed(e, row, value)
}

// resetProperty forgets a value, with what follows from that.
func (t *tx) resetProperty(id qube.UUID, row qube.Property) {
	e := t.amend(id)
	old, _ := row.Value(Qube{t.v, e})
	delete(e.rec.Properties, row.Name)
	t.emitReset(e, row, old)
	now, _ := row.Value(Qube{t.v, e})
	t.changed(e, row, now)
}

// changed does what follows from a property's new value.
func (t *tx) changed(e *entry, row qube.Property, now string) {
	t.touch(e.rec.UUID, row.Name)
	switch row.Name {
	case "template":
		if strings.HasPrefix(e.broken, noTemplate) {
			e.state, e.broken = qube.Halted, ""
		}
		// Every default that comes from a template may be another one.
		for _, r := range qube.Rows(e.rec.Class) {
			if slices.ContainsFunc(r.Follows, func(f qube.Follow) bool { return f.Of == qube.OfTemplate }) {
				t.compare(Qube{t.v, e}, r.Name)
			}
		}
	case "provides_network":
		if on := e.rec.Features["servicevm"] != ""; now == "True" && !on {
			t.setFeature(e, "servicevm", "1")
		} else if now != "True" && on {
			t.removeFeature(e, "servicevm")
		}
	}
}

// allow tells why a property of q, as it was, must not have the value that it
// has now.
func (t *tx) allow(was Qube, row qube.Property) error {
	q, _ := t.v.Lookup(was.UUID())
	switch row.Name {
	case "netvm":
		return t.allowNetVM(was, q)
	case "provides_network", "template_for_dispvms":
		return t.stillFits(q)
	case "virt_mode":
		if q.Property("virt_mode") == "pvh" && q.Fact("pci") != "" {
			return Failf(BadProperty, "%s has PCI devices, which a qube in mode pvh cannot have", q.Name())
		}
	case "template":
		for _, o := range t.v.Qubes() {
			if o.Class() == qube.DispVM && o.TemplateName() == q.Name() && !o.isDown() && o.Property("is_preload") != "True" {
				return Failf(InUse, "the disposable %s of %s runs", o.Name(), q.Name())
			}
		}
	}
	return nil
}

// allowNetVM: no qube gives network to itself, and a running one changes only
// to one that runs.
func (t *tx) allowNetVM(was, q Qube) error {
	net, ok := q.Referent("netvm")
	if t.v.loops(q) {
		return Failf(BadProperty, "%s would be its own network provider", q.Name())
	}
	if ok && !q.isDown() && net.Property("name") != was.Property("netvm") && net.isDown() {
		return Failf(NotRunning, "%s runs and can only change to a network provider that runs, which %s does not", q.Name(), net.Name())
	}
	return nil
}

// stillFits tells which property that refers to q must not do so any more.
func (t *tx) stillFits(q Qube) error {
	return t.v.references(q.Name(), func(row qube.Property, owner string) error {
		if row.Target != nil && row.Target(q) != nil {
			return Failf(InUse, "%s is the %s of %s", q.Name(), row.Name, owner)
		}
		return nil
	})
}

// references calls visit for every VM property that names a qube, of the
// system and of all qubes, until it returns an error.
func (v *View) references(n qube.Name, visit func(row qube.Property, owner string) error) error {
	for _, row := range qube.SystemRows() {
		if s, _ := row.Value(v.System()); row.Type == qube.VM && s == string(n) {
			if err := visit(row, "the system"); err != nil {
				return err
			}
		}
	}
	for _, q := range append(v.Qubes(), Qube{v, v.dom0}) {
		for name, value := range q.e.rec.Properties {
			if value != string(n) {
				continue
			}
			if row, ok := qube.Lookup(q.Class(), name); ok && row.Type == qube.VM {
				if err := visit(row, string(q.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// loops reports whether q reaches itself from netvm to netvm.
func (v *View) loops(q Qube) bool {
	at := q
	for range v.qubes {
		next, ok := at.Referent("netvm")
		if !ok {
			return false
		}
		if next.UUID() == q.UUID() {
			return true
		}
		at = next
	}
	return false
}

// SetSystemProperty sets a global property.
func (c *Core) SetSystemProperty(name, text string) error {
	return c.update(func(t *tx) error {
		row, ok := qube.LookupSystem(name)
		switch {
		case !ok:
			return Failf(NoProperty, "there is no global property %q", name)
		case row.Set == qube.Never:
			return Failf(BadProperty, "the global property %s cannot be set", name)
		}
		value, err := c.parse(t.v, row, text)
		if err != nil {
			return err
		}
		t.setSystem(row, value)
		return t.allowSystem(row)
	})
}

// ResetSystemProperty puts a global property back to its default.
func (c *Core) ResetSystemProperty(name string) error {
	return c.update(func(t *tx) error {
		row, ok := qube.LookupSystem(name)
		switch {
		case !ok:
			return Failf(NoProperty, "there is no global property %q", name)
		case row.Set == qube.Never:
			return Failf(BadProperty, "the global property %s cannot be set", name)
		}
		old, _ := row.Value(t.v.System())
		t.ownSystem()
		delete(t.v.system.Properties, name)
		t.emitReset(nil, row, old)
		t.systemChanged(row, old)
		return t.allowSystem(row)
	})
}

// ownSystem makes the system's properties the change's own, and has them saved.
func (t *tx) ownSystem() {
	t.v.system.Properties, t.system = maps.Clone(t.v.system.Properties), true
}

func (t *tx) setSystem(row qube.Property, value string) {
	old, _ := row.Value(t.v.System())
	t.ownSystem()
	t.v.system.Properties[row.Name] = value
	args := []Arg{{"name", row.Name}, {"newvalue", spoken(row, value)}}
	if old != "" || row.Default != nil {
		args = append(args, Arg{"oldvalue", spoken(row, old)})
	}
	t.emit(nil, "property-pre-set:"+row.Name, args...)
	t.emit(nil, "property-set:"+row.Name, args...)
	t.systemChanged(row, old)
}

// systemChanged does what follows from a global property's new value.
func (t *tx) systemChanged(row qube.Property, old string) {
	t.touch("", row.Name)
	if row.Name != "clockvm" {
		return
	}
	// The one that knows the time is told so by a service.
	now := t.v.System().Property("clockvm")
	if q, ok := t.v.Named(qube.Name(old)); ok && old != now {
		if _, on := q.Feature(clockSync); on {
			t.removeFeature(t.amend(q.UUID()), clockSync)
		}
	}
	if q, ok := t.v.Named(qube.Name(now)); ok {
		if on, _ := q.Feature(clockSync); on == "" {
			t.setFeature(t.amend(q.UUID()), clockSync, "1")
		}
	}
}

const clockSync = "service.clocksync"

// allowSystem tells why a global property must not have the value that it has
// now.
func (t *tx) allowSystem(row qube.Property) error {
	if row.Name != "default_netvm" {
		return nil
	}
	for _, q := range t.v.Qubes() {
		if _, own := q.Explicit("netvm"); own {
			continue
		}
		if was, ok := t.before.Lookup(q.UUID()); ok {
			if err := t.allowNetVM(was, q); err != nil {
				return err
			}
		}
	}
	return nil
}

// Notes is the text that people keep with a qube.
func (c *Core) Notes(id qube.UUID) (string, error) {
	q, err := c.findQube(id)
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
	q, err := c.findQube(id)
	if err != nil {
		return err
	}
	if err := c.cfg.Store.SetNotes(q.Class(), q.Name(), text); err != nil {
		return advise(wrap(err, "write the notes of %s", q.Name()))
	}
	return nil
}
