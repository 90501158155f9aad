// Package dom0 is how every window reaches the daemon: an immutable snapshot
// of qubes, labels, engines and jobs, a watch that brings the next one, and
// the actions. It hides how the daemon is found, also while it is not there
// yet or was restarted. Most callers need Connect (NewBus for tests) and the
// Client interface.
//
// It also re-exports the nouns of daemon/qube that a window checks or shows,
// so that windows import nothing of dom0 but this package.
package dom0

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cubicle/daemon/qube"
)

// The nouns, as daemon/qube defines them.
type (
	Name  = qube.Name
	Class = qube.Class
	State = qube.State
	Label = qube.Label
)

// The classes and states that windows tell apart.
const (
	AdminVM      = qube.AdminVM
	TemplateVM   = qube.TemplateVM
	AppVM        = qube.AppVM
	StandaloneVM = qube.StandaloneVM
	DispVM       = qube.DispVM

	Halted    = qube.Halted
	Transient = qube.Transient
	Running   = qube.Running
	Paused    = qube.Paused
	Halting   = qube.Halting
	Dying     = qube.Dying
	Crashed   = qube.Crashed
	NA        = qube.NA
)

// TerminalApp is the desktop-file id that opens the qube's terminal.
const TerminalApp AppID = "qubes-run-terminal"

// ParseName checks text as a qube's name; the error's Why says what is wrong
// with it in a few words (spec/admin-api.md §9).
func ParseName(text string) (Name, error) { return qube.ParseName(text) }

// NameFault is why text is not a name, in a few words, or "" when it is one.
func NameFault(text string) string {
	_, err := qube.ParseName(text)
	if fault := (*qube.NameError)(nil); errors.As(err, &fault) {
		return fault.Why
	}
	return ""
}

// QubeID and JobID identify an object for as long as it exists.
type (
	QubeID string
	JobID  string
)

// Qube is one qube as it was when the snapshot was taken.
type Qube struct {
	ID        QubeID
	Name      Name
	Class     Class
	Label     Label
	State     State
	Template  Name // empty: has none
	NetVM     Name // empty: offline
	XID       int  // domain id, -1 when off
	Engine    string
	Isolation string // engine.Isolation's words
	Weakness  string // what the isolation does not protect from, one sentence, or empty
	MemoryMax uint32 // MiB
	VCPUs     uint32
	User      string    // the desktop user inside
	Started   time.Time // zero when off

	MemoryUsed uint64  // bytes
	CPU        float64 // percent of one core
	Disk       uint64  // bytes

	ProvidesNetwork bool // others may have their network from it

	Problem  string // why it is broken, else empty
	Outdated bool   // its template has a newer version

	LastBackup time.Time // zero: never

	DisposableTemplate bool // disposables are made from it
	Updates            bool // it has said that there are some
}

// JobState is how far a job is.
type JobState string

// The job states.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Job is a piece of work that takes longer than a blink.
type Job struct {
	ID        JobID
	Kind      string // start, shutdown, create, clone, remove …
	Qube      Name
	Text      string // what it is doing, for people
	Progress  float64
	State     JobState
	ErrorName string // Admin API exception name
	Error     string
}

// Engine is a way to run qubes that this machine has.
type Engine struct {
	Name      string
	Isolation string
	Weakness  string
}

// Disk is the room for qubes' volumes, in bytes; zero while it is not known.
type Disk struct{ Size, Used uint64 }

// Scarce reports whether the room will soon be used up: less than a tenth and
// less than 20 GB are left.
func (d Disk) Scarce() bool {
	left := d.Size - min(d.Used, d.Size)
	return d.Size > 0 && left < d.Size/10 && left < 20e9
}

// Link is whether the snapshot is live.
type Link int

// The links.
const (
	Connecting Link = iota // not heard from the daemon yet
	Connected              // live
	Lost                   // was live; the snapshot is the last known state
)

// Snapshot is the whole state at one moment. It is shared: never change it.
type Snapshot struct {
	Link    Link
	Problem string // why there is no link, for people; empty when connected

	Qubes   []Qube  // by name
	Labels  []Label // by index
	Jobs    []Job   // oldest first
	Engines []Engine
	Disk    Disk
	Devices []Device // offered, assigned, or both; by class, backend and port

	DefaultTemplate Name // empty: none
	DefaultEngine   string
}

// ByID finds a qube.
func (s *Snapshot) ByID(id QubeID) (Qube, bool) {
	for i := range s.Qubes {
		if s.Qubes[i].ID == id {
			return s.Qubes[i], true
		}
	}
	return Qube{}, false
}

// ByName finds a qube.
func (s *Snapshot) ByName(name Name) (Qube, bool) {
	i, found := slices.BinarySearchFunc(s.Qubes, name, func(q Qube, name Name) int { return cmp.Compare(q.Name, name) })
	if !found {
		return Qube{}, false
	}
	return s.Qubes[i], true
}

// NewQube is what a qube is created with.
type NewQube struct {
	Name     Name
	Class    Class
	Label    Label
	Template Name // empty: the default one, or none for a template
	// Properties are rows of the property table that differ from their
	// defaults; Private is the private volume's bytes, 0 for the default.
	Properties map[string]string
	Private    uint64
}

// Client is the daemon as windows see it.
//
// Snapshot never blocks. Actions block until the daemon has accepted or
// refused the request (never until a job's end); their errors are *Error.
// An action's job shows up in a later snapshot, maybe before the action
// returns. All methods may be called from any goroutine.
type Client interface {
	// Snapshot is the latest state; never nil.
	Snapshot() *Snapshot
	// Watch calls notify with every later snapshot, one at a time, until
	// stop is called: what matters (states, names, jobs that end, the link)
	// at once, the beginning of work (a job, a qube in transition) within
	// 60 ms, chatter (memory, CPU, progress) merged to at most four a second.
	// notify must not block.
	Watch(notify func(*Snapshot)) (stop func())

	Create(ctx context.Context, wish NewQube) (JobID, error)
	Clone(ctx context.Context, id QubeID, name Name) (JobID, error)
	Remove(ctx context.Context, id QubeID) (JobID, error)
	Start(ctx context.Context, id QubeID) (JobID, error)
	Shutdown(ctx context.Context, id QubeID, force bool) (JobID, error)
	Kill(ctx context.Context, id QubeID) (JobID, error)
	Pause(ctx context.Context, id QubeID) (JobID, error)
	Unpause(ctx context.Context, id QubeID) (JobID, error)
	// StartApp starts the qube when it is off, then the desktop-file id app.
	StartApp(ctx context.Context, id QubeID, app AppID) (JobID, error)
	// Run starts a shell command; user empty means the qube's desktop user.
	Run(ctx context.Context, id QubeID, command, user string) (JobID, error)
	// Cancel asks a job to stop.
	Cancel(ctx context.Context, id JobID) error

	Inside
}

// Error is a refused action.
type Error struct {
	Op      string // "start", "create" …
	Subject string // the qube's name or the job
	Name    string // Admin API exception name, or "" when the daemon was not reached
	Reason  string // the daemon's own words
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s: %s", e.Op, e.Subject, e.Reason) }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }
