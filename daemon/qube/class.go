package qube

import (
	"fmt"
	"slices"
)

// Class is the kind of a qube.
type Class string

// The classes (spec/admin-api.md §3).
const (
	AdminVM      Class = "AdminVM"
	TemplateVM   Class = "TemplateVM"
	AppVM        Class = "AppVM"
	StandaloneVM Class = "StandaloneVM"
	DispVM       Class = "DispVM"
	RemoteVM     Class = "RemoteVM"
)

// Classes are all classes, in upstream's order.
func Classes() []Class {
	return []Class{AppVM, TemplateVM, StandaloneVM, AdminVM, DispVM, RemoteVM}
}

// ParseClass returns the class of that name.
func ParseClass(text string) (Class, error) {
	if c := Class(text); slices.Contains(Classes(), c) {
		return c, nil
	}
	return "", fmt.Errorf("there is no class %q", cut(text))
}

// HasMachine reports whether qubes of the class have a machine on this
// computer, and volumes: all but dom0 and a qube on another computer.
func (c Class) HasMachine() bool { return slices.Contains(machines(), c) }

// HasTemplate reports whether qubes of the class are based on another qube.
func (c Class) HasTemplate() bool { return c == AppVM || c == DispVM }

// machines are the classes with a machine.
func machines() []Class { return []Class{AppVM, TemplateVM, StandaloneVM, DispVM} }

// State is what a qube is doing, in upstream's words (spec/admin-api.md §8).
type State string

// The states.
const (
	Halted    State = "Halted"
	Transient State = "Transient" // up, but its agent has not said hello yet
	Running   State = "Running"
	Paused    State = "Paused"
	Suspended State = "Suspended" // asleep as the computer is, with the qube's own consent
	Halting   State = "Halting"
	Dying     State = "Dying"
	Crashed   State = "Crashed"
	NA        State = "NA" // its files are damaged; Qube.Error tells how
)

// IsUp reports whether the qube's machine exists.
func (s State) IsUp() bool {
	switch s {
	case Transient, Running, Paused, Suspended, Halting, Dying:
		return true
	}
	return false
}
