package core

import (
	"slices"
	"strings"

	"cubicle/daemon/qube"
)

// touch is a property or feature of a qube, or with an empty UUID of the
// system, that a change may have changed.
type touch struct {
	id   qube.UUID
	name string
}

// touch tells that the defaults that follow a property may have changed.
func (t *tx) touch(id qube.UUID, name string) {
	at := touch{id, name}
	if t.known[at] {
		return
	}
	if t.known == nil {
		t.known = map[touch]bool{}
	}
	t.known[at] = true
	t.touched = append(t.touched, at)
}

// follow tells of every default that is another one now (spec/admin-api.md
// §7.3), and of the tags that mirror properties.
func (t *tx) follow() {
	for i := 0; i < len(t.touched); i++ { // the list grows meanwhile
		at := t.touched[i]
		if at.id == "" {
			t.followSystem(at.name)
			continue
		}
		owner, ok := t.v.Lookup(at.id)
		if !ok {
			continue
		}
		if mirrored(at.name) {
			t.mirror(owner, at.name)
		}
		for _, f := range qube.Followers(at.name) {
			switch f.Of {
			case qube.OfSystem: // another property of that name
			case qube.Itself:
				t.compare(owner, f.Name)
			default:
				for _, q := range t.kin(f.Of, owner) {
					t.compare(q, f.Name)
				}
			}
		}
	}
}

// kin are the qubes whose template, netvm or guivm is the one given.
func (t *tx) kin(of qube.Relation, owner Qube) []Qube {
	property, may := "guivm", true
	switch of {
	case qube.OfTemplate:
		property, may = "template", owner.Class() == qube.TemplateVM || owner.Property("template_for_dispvms") == "True"
	case qube.OfNetVM:
		property, may = "netvm", owner.Property("provides_network") == "True"
	}
	if !may {
		return nil
	}
	if t.family[of] == nil {
		members := map[qube.Name][]Qube{}
		for _, q := range t.v.Qubes() {
			if to := qube.Name(q.Property(property)); to != "" {
				members[to] = append(members[to], q)
			}
		}
		if t.family == nil {
			t.family = map[qube.Relation]map[qube.Name][]Qube{}
		}
		t.family[of] = members
	}
	return t.family[of][owner.Name()]
}

func (t *tx) followSystem(name string) {
	for _, f := range qube.SystemFollowers(name) {
		if row, ok := qube.LookupSystem(f.Name); ok {
			if was, changed := defaultChanged(row, t.before.System(), t.v.System()); changed {
				t.emitReset(nil, row, was)
				t.touch("", f.Name)
			}
		}
	}
	for _, f := range qube.Followers(name) {
		if f.Of != qube.OfSystem {
			continue
		}
		for _, q := range append(t.v.Qubes(), Qube{t.v, t.v.dom0}) {
			t.compare(q, f.Name)
		}
	}
}

// compare tells of a qube's property if its default is another one now.
func (t *tx) compare(q Qube, name string) {
	row, ok := qube.Lookup(q.Class(), name)
	old, existed := t.before.Lookup(q.UUID())
	if !ok || !existed || t.known[touch{q.UUID(), name}] {
		return
	}
	if was, changed := defaultChanged(row, old, q); changed {
		t.emitReset(q.e, row, was)
		t.touch(q.UUID(), name)
	}
}

func defaultChanged(row qube.Property, before, after qube.Source) (was string, changed bool) {
	was, wasDefault := row.Value(before)
	now, isDefault := row.Value(after)
	return was, wasDefault && isDefault && was != now
}

// emitReset tells that a property has its default, which may be another one
// than before. The second pair of events has upstream's older names.
func (t *tx) emitReset(e *entry, row qube.Property, was string) {
	args := []Arg{{"name", row.Name}}
	if was != "" || row.Default != nil {
		args = append(args, Arg{"oldvalue", spoken(row, was)})
	}
	for _, event := range []string{"property-pre-reset:", "property-pre-del:", "property-reset:", "property-del:"} {
		t.emit(e, event+row.Name, args...)
	}
}

// spoken is a value as events tell it: nothing is None where it is not a text.
func spoken(row qube.Property, value string) string {
	if value == "" && row.Type != qube.Str {
		return "None"
	}
	return value
}

// mirrors are the properties that a tag tells of: guivm-NAME, …
// (spec/admin-api.md §5.3).
func mirrors() []string { return []string{"guivm", "audiovm", "relayvm"} }

func mirrored(property string) bool { return slices.Contains(mirrors(), property) }

// isMirror reports whether a tag is one that follows a property.
func isMirror(tag string) bool {
	return slices.ContainsFunc(mirrors(), func(p string) bool { return strings.HasPrefix(tag, p+"-") })
}

// mirrorOf is the tag of a property, or empty.
func (q Qube) mirrorOf(property string) string {
	if v := q.Property(property); v != "" {
		return property + "-" + v
	}
	return ""
}

// mirror tells how the tag of a property changed.
func (t *tx) mirror(q Qube, property string) {
	was, now := "", q.mirrorOf(property)
	if old, ok := t.before.Lookup(q.UUID()); ok {
		was = old.mirrorOf(property)
	}
	if was == now {
		return
	}
	if was != "" {
		t.emit(q.e, "domain-tag-delete:"+was, Arg{"tag", was})
	}
	if now != "" {
		t.emit(q.e, "domain-tag-add:"+now, Arg{"tag", now})
	}
}
