package admin

import (
	"strings"

	"cubicle/daemon/core"
)

// Policy decides who may call what (spec/admin-api.md §1.1).
type Policy interface {
	// Allows reports whether the call may be made. It is asked for each call,
	// and again for each qube and event that a list or a stream would show.
	// It is safe for concurrent use.
	Allows(q Question) bool
}

// Question is what a policy is asked.
type Question struct {
	Source core.Qube
	// Dest is the zero value when Known is false: there is no such qube.
	Dest   core.Qube
	Known  bool
	Method string
	Arg    string // unchecked
	// Shown: it is not the call itself, which its source was allowed to make
	// when it was made, but one of the things that a reply would show.
	Shown bool
}

// Dom0Only lets dom0 do everything, and others nothing but tell of themselves.
type Dom0Only struct{}

// Allows implements Policy.
func (Dom0Only) Allows(q Question) bool {
	return q.Source.IsAdmin() || strings.HasPrefix(q.Method, "qubes.") && q.Known && q.Dest.IsAdmin()
}
