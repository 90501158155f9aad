package qube

import "fmt"

// Class is the kind of a qube.
type Class string

// The classes (spec/admin-api.md §3).
const (
	AdminVM    Class = "AdminVM"
	TemplateVM Class = "TemplateVM"
	AppVM      Class = "AppVM"
)

// ParseClass returns the class of that name.
func ParseClass(text string) (Class, error) {
	switch c := Class(text); c {
	case AdminVM, TemplateVM, AppVM:
		return c, nil
	}
	return "", fmt.Errorf("there is no class %q", cut(text))
}

// State is what a qube is doing, in upstream's words (spec/admin-api.md §8).
type State string

// The states.
const (
	Halted    State = "Halted"
	Transient State = "Transient" // up, but its agent has not said hello yet
	Running   State = "Running"
	Paused    State = "Paused"
	Halting   State = "Halting"
	Dying     State = "Dying"
	Crashed   State = "Crashed"
	NA        State = "NA" // its files are damaged; Qube.Error tells how
)

// IsUp reports whether the qube's machine exists.
func (s State) IsUp() bool {
	switch s {
	case Transient, Running, Paused, Halting, Dying:
		return true
	}
	return false
}
