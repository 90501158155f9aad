// Package boundary describes what a hostile qube tries against dom0 and other
// qubes, and what comes of it under each engine. The attempts themselves are
// made by the program in the folder attacker, which runs in a qube, as its
// root and as its user; the test of cmd/cubicle compares what it reports with
// this table, and the table of docs/THREAT-MODEL.md is made from it.
package boundary

import (
	"fmt"
	"strings"
)

// Verdict is what came of an attempt.
type Verdict string

// The verdicts.
const (
	Refused  Verdict = "refused"  // it fails
	Harmless Verdict = "harmless" // it succeeds, and reaches nothing that is not the qube's
	Possible Verdict = "possible" // it succeeds, and reaches what is not the qube's
)

// Result is a verdict with its reason; Refused has none.
type Result struct {
	Verdict Verdict
	Why     string
}

func (r Result) String() string {
	if r.Why == "" {
		return string(r.Verdict)
	}
	return string(r.Verdict) + ": " + r.Why
}

// Results are those for root in the qube and for its user.
type Results struct{ Root, User Result }

func (r Results) String() string {
	if r.Root == r.User {
		return r.Root.String()
	}
	return fmt.Sprintf("root: %s; user: %s", r.Root, r.User)
}

// Attempt is one thing that a hostile qube tries.
type Attempt struct {
	Name  string // also of the attacker's function
	Group string
	Means string // what success would mean
	Crun  Results
	Runsc Results
	// Control says that the attempt must succeed in dom0 itself, which shows
	// that it would be noticed if it did in a qube.
	Control bool
}

// Of returns the results under an engine.
func (a Attempt) Of(engine string) Results {
	if engine == "runsc" {
		return a.Runsc
	}
	return a.Crun
}

// Target is what the attacker is told of dom0: more than a qube could know.
type Target struct {
	Secret      string   // text of dom0's file
	Files       []string // dom0's files and folders that hold the text, or must not open
	Inode       uint64   // of the file
	Process     int      // a process of dom0
	ProcessName string
	Abstract    string   // abstract socket that dom0 listens on
	Sockets     []string // dom0's sockets in the file system
	TCP         string   // address on dom0's loopback
	Key         string   // description of a key in the keyring of dom0's root
	SharedKey   int      // System V shared memory of dom0
	Queue       string   // POSIX message queue of dom0
	Marker      string   // in the command line of a process of another qube
	OtherDomain uint32   // the number of another qube
	Control     bool     // we are in dom0
}

// Report is what the attacker says about one attempt.
type Report struct {
	Name   string
	Done   bool   // it succeeded
	Detail string // for the log
}

// Table is the table of docs/THREAT-MODEL.md.
func Table() string {
	var b strings.Builder
	group := ""
	for _, a := range Attempts {
		if a.Group != group {
			group = a.Group
			fmt.Fprintf(&b, "\n### %s\n\n| attempt | success would mean | crun | runsc |\n|---|---|---|---|\n", group)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.Name, a.Means, a.Crun, a.Runsc)
	}
	return strings.TrimSpace(b.String()) + "\n"
}
