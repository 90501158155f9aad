package qube

import (
	"fmt"
	"slices"
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

// Property is a row of the table: everything that the Admin API, D-Bus, the
// command line and the Settings window know of it. Values are texts in the
// Admin API's form: "True" and "False", decimal numbers, names.
type Property struct {
	Name    string
	Type    Type
	Classes []Class // nil: every class
	Set     When
	// Default computes the value while none is set, and false when there is
	// no default. nil: no default.
	Default func(Source) (string, bool)
	// Check turns a text that has the right type into the value to keep, or
	// tells what is wrong with it. nil: every text of the type.
	Check func(text string) (string, error)
	// Target tells whether a qube may be the value of a VM property. nil:
	// every qube.
	Target func(Source) error
	// Optional: a VM property may be empty.
	Optional bool
	Help     string
}

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
// §1.1, §2.2), then by the row's own rule. It does not look up qubes.
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

// Rows are the properties of a class, by name.
func Rows(c Class) []Property {
	return slices.DeleteFunc(qubeRows(), func(p Property) bool { return !p.Has(c) })
}

// Lookup returns the row of that name for a class.
func Lookup(c Class, name string) (Property, bool) { return find(Rows(c), name) }

// LookupSystem returns the row of the global property of that name.
func LookupSystem(name string) (Property, bool) { return find(SystemRows(), name) }

func find(rows []Property, name string) (Property, bool) {
	i := slices.IndexFunc(rows, func(p Property) bool { return p.Name == name })
	if i < 0 {
		return Property{}, false
	}
	return rows[i], true
}
