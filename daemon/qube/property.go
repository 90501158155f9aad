package qube

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Type is the kind of a property's value, as the Admin API names it.
type Type string

// The types (spec/admin-api.md §2.2).
const (
	Str      Type = "str"
	Int      Type = "int"
	Bool     Type = "bool"
	VM       Type = "vm"    // a qube's name, or empty for none
	LabelRef Type = "label" // a label's name
)

// When tells when people may set a property.
type When int

// The moments.
const (
	Never      When = iota // read-only
	AtCreation             // only while the qube is made
	WhileHalted
	Always
)

// String is the moment in words, for manual pages.
func (w When) String() string {
	switch w {
	case Never:
		return "read-only"
	case AtCreation:
		return "set at creation"
	case WhileHalted:
		return "set while halted"
	}
	return "set at any time"
}

// Property is a row of the table: everything that the Admin API, D-Bus, the
// command line, its manual pages and the Settings window know of it. Values
// are texts in the Admin API's form: "True" and "False", decimal numbers,
// names.
type Property struct {
	Name    string
	Type    Type
	Classes []Class // nil: every class
	Set     When
	// Default computes the value while none is set, and false when there is
	// none at all. nil: no default, and no way back to one.
	Default func(Source) (string, bool)
	// DefaultHelp says in words where the default comes from; empty when
	// there is none.
	DefaultHelp string
	// Follows names what the default is computed from: when one of them
	// changes, the default may.
	Follows []Follow
	// Check turns a text that has the right type into the value to keep, or
	// tells what is wrong with it. nil: every text of the type.
	Check func(text string) (string, error)
	// Target tells whether a qube may be the value of a VM property. nil:
	// every qube.
	Target func(Source) error
	// Optional: a VM property may be empty.
	Optional bool
	// Own: the value belongs to one qube; neither a clone nor a disposable
	// inherits it.
	Own  bool
	Help string
}

// Relation tells whose property a default follows.
type Relation int

// The relations.
const (
	Itself     Relation = iota
	OfTemplate          // of the qube's template
	OfNetVM             // of the qube that gives it network
	OfGUIVM             // of the qube that shows its windows
	OfSystem            // a global property
)

// Follow is one thing that a default is computed from: a property, a fact, or
// with the prefix "feature:" a feature.
type Follow struct {
	Of   Relation
	Name string
}

// FeatureKey is the name of a feature in a Follow.
func FeatureKey(feature string) string { return "feature:" + feature }

// Source is what a default is computed from: one qube, or the system.
type Source interface {
	// Explicit is the value that was set, and false when none was.
	Explicit(name string) (string, bool)
	// Property is the value, set or default; empty when there is neither.
	Property(name string) string
	// Feature is a feature's value, and false when it is not set.
	Feature(name string) (string, bool)
	// Fact is something that nobody sets: "klass", "xid", "start_time", …
	Fact(name string) string
	// Refer is the qube that a VM property names, or nil.
	Refer(property string) Source
	// Template is the qube's template, or nil.
	Template() Source
	// System is the source of the global properties.
	System() Source
}

// Value is the property's value at s and whether it is the default.
func (p *Property) Value(s Source) (value string, isDefault bool) {
	if v, ok := s.Explicit(p.Name); ok {
		return v, false
	}
	if p.Default == nil {
		return "", true
	}
	v, _ := p.Default(s)
	return v, true
}

// Parse checks a text that someone wants to set: by the type (spec/admin-api.md
// §1.1, §2.2), then by the row's own rule. It does not look up qubes, labels,
// pools, kernels and engines.
func (p *Property) Parse(text string) (string, error) {
	v, err := p.Type.parse(text)
	if err != nil {
		return "", fmt.Errorf("property %s: %w", p.Name, err)
	}
	if p.Type == VM && v == "" && !p.Optional {
		return "", fmt.Errorf("property %s: a qube's name is needed", p.Name)
	}
	if p.Check != nil {
		if v, err = p.Check(v); err != nil {
			return "", fmt.Errorf("property %s: %w", p.Name, err)
		}
	}
	return v, nil
}

// Has reports whether qubes of a class have the property.
func (p *Property) Has(c Class) bool { return p.Classes == nil || slices.Contains(p.Classes, c) }

// table is a set of rows, by name, with an index.
type table struct {
	rows  []Property
	index map[string]int
}

func newTable(rows []Property) table {
	slices.SortFunc(rows, func(a, b Property) int { return strings.Compare(a.Name, b.Name) })
	t := table{slices.Clip(rows), make(map[string]int, len(rows))}
	for i, r := range rows {
		t.index[r.Name] = i
	}
	return t
}

func (t table) find(name string) (*Property, bool) {
	i, ok := t.index[name]
	if !ok {
		return nil, false
	}
	return &t.rows[i], true
}

// tables and system are made once, at the first look, and never change.
var (
	tables = sync.OnceValue(func() map[Class]table {
		all := map[Class]table{}
		for _, c := range Classes() {
			all[c] = newTable(slices.DeleteFunc(qubeRows(), func(p Property) bool { return !p.Has(c) }))
		}
		return all
	})
	system = sync.OnceValue(func() table { return newTable(systemRows()) })
)

// Rows are the properties of a class, by name. The slice is shared: it is not
// to be written to.
func Rows(c Class) []Property { return tables()[c].rows }

// SystemRows are the global properties, by name. The slice is shared.
func SystemRows() []Property { return system().rows }

// Lookup returns the row of that name for a class.
func Lookup(c Class, name string) (Property, bool) { return deref(tables()[c].find(name)) }

// LookupSystem returns the row of the global property of that name.
func LookupSystem(name string) (Property, bool) { return deref(system().find(name)) }

func deref(p *Property, ok bool) (Property, bool) {
	if !ok {
		return Property{}, false
	}
	return *p, true
}

// ValueOf is the value of a qube's property by name; empty for one that its
// class does not have.
func ValueOf(c Class, name string, s Source) string { return valueOf(tables()[c], name, s) }

// SystemValue is ValueOf for a global property.
func SystemValue(name string, s Source) string { return valueOf(system(), name, s) }

func valueOf(t table, name string, s Source) string {
	row, ok := t.find(name)
	if !ok {
		return ""
	}
	v, _ := row.Value(s)
	return v
}

// Follower is a property whose default is computed from another one.
type Follower struct {
	Of   Relation // what the other one's owner is to the follower's
	Name string
}

// followers and systemFollowers are made once, at the first look.
var (
	followers       = sync.OnceValue(func() map[string][]Follower { return follow(qubeRows()) })
	systemFollowers = sync.OnceValue(func() map[string][]Follower { return follow(systemRows()) })
)

func follow(rows []Property) map[string][]Follower {
	all := map[string][]Follower{}
	for _, r := range rows {
		for _, f := range r.Follows {
			if to := (Follower{f.Of, r.Name}); !slices.Contains(all[f.Name], to) {
				all[f.Name] = append(all[f.Name], to)
			}
		}
	}
	return all
}

// Followers are the properties of qubes whose defaults may change with a
// property, a fact or a feature (FeatureKey) of that name. The slice is
// shared.
func Followers(name string) []Follower { return followers()[name] }

// SystemFollowers are the global ones that may change with a global property.
func SystemFollowers(name string) []Follower { return systemFollowers()[name] }
