// Package engine runs the machines of qubes. An Engine is a driver for one
// way of running them: a sandbox by an OCI runtime, a virtual machine through
// libvirt. It knows nothing of policy, properties or storage drivers: core
// hands it a Machine and follows its events.
package engine

import (
	"context"
	"errors"
	"time"

	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/vchan"
)

// Machine is everything an engine must know to run a qube once.
type Machine struct {
	UUID     string // the qube's UUID in lower case: names the machine for the engine
	Name     qube.Name
	Domain   vchan.Domain // its number during this run
	Memory   int          // MiB
	VCPUs    int
	Root     storage.Attachment
	Private  storage.Attachment
	Volatile storage.Attachment // zero when the engine needs none: sandboxes have the root's overlay
	// LinkDir is dom0's folder that holds the qube's link socket
	// (paths.LinkSocket); sandboxes see it read-only at AgentLinkDir.
	LinkDir string
	// AgentDir is dom0's folder that holds the static qubes-agent binary;
	// sandboxes see it read-only at AgentDir.
	AgentDir string
}

// Where a sandbox finds what dom0 gives it.
const (
	AgentLinkDir = "/run/cubicle"
	AgentDir     = "/usr/lib/cubicle"
	AgentBinary  = "qubes-agent"
)

// Isolation is what stands between a qube and dom0, as the UI names it.
type Isolation string

// The isolations, strongest first.
const (
	Xen        Isolation = "Xen"
	KVM        Isolation = "KVM"
	Emulation  Isolation = "emulation" // QEMU without hardware support
	GVisor     Isolation = "gVisor"
	Namespaces Isolation = "namespaces"
	None       Isolation = "none"
)

// Lack is something that an engine cannot do, with the reason that people
// are shown.
type Lack struct {
	What   string // "pause", "network", "block devices", "usb", "balloon", …
	Reason string
}

// Capabilities describes an engine on this machine.
type Capabilities struct {
	Isolation Isolation
	// Weakness says in one sentence what the isolation does not protect
	// from; empty for the strongest.
	Weakness string
	Lacks    []Lack
	// Foreign: the machine is somebody else's, and so are its disks. It has
	// no volumes and no link; its agents are met on upstream's sockets
	// (paths.Root.Vchan), when they come.
	Foreign bool
}

// MachineState is an engine's view of a machine.
type MachineState int

// The states.
const (
	Absent MachineState = iota
	Up
	Suspended // paused
)

// Reason is why a machine ended.
type Reason string

// The reasons.
const (
	Stopped     Reason = "stopped" // orderly
	Killed      Reason = "killed"  // Kill was called
	Crashed     Reason = "crashed"
	OutOfMemory Reason = "out of memory"
)

// Event tells that a machine changed its state by itself or by a call.
type Event struct {
	UUID  string
	State MachineState
	// Reason is set when State is Absent. OutOfMemory with Up tells of a
	// machine that lives on, in which the kernel ended a program.
	Reason Reason
	Detail string // for the log and the UI: one line, made by dom0
}

// Stats is what a machine uses.
type Stats struct {
	Memory    int64         // bytes in use
	MemoryMax int64         // bytes it may use
	CPU       time.Duration // since start
	Processes int
}

// The kinds of error that callers tell apart.
var (
	ErrNotRunning  = errors.New("the machine is not running")
	ErrRunning     = errors.New("the machine is running already")
	ErrUnsupported = errors.New("this engine cannot do that")
	ErrUnusable    = errors.New("the engine is not usable on this machine")
	ErrNoMemory    = errors.New("not enough memory")
)

// Engine is a driver's contract. Methods are safe for concurrent use; calls
// for one machine are serialised by the caller. Every driver passes
// enginetest.TestEngine.
type Engine interface {
	// Name is the engine's name: "runsc", "crun", "kvm", …
	Name() string

	// Capabilities describes the engine; it does no I/O.
	Capabilities() Capabilities

	// Probe tells whether the engine works here, by running something. The
	// error wraps ErrUnusable and its text names the mend.
	Probe(ctx context.Context) error

	// Prepare makes everything for a run that can be made before it: mounts,
	// bundle, limits. It is undone by Release. A second Prepare without
	// Release is an error (ErrRunning).
	Prepare(ctx context.Context, m Machine) error

	// Start runs a prepared machine and returns when it runs; its agent may
	// need longer. On error the machine is absent and stays prepared.
	Start(ctx context.Context, uuid string) error

	// Pause freezes a running machine, Resume thaws it.
	Pause(ctx context.Context, uuid string) error
	Resume(ctx context.Context, uuid string) error

	// Shutdown asks the machine to end by itself and returns at once; the
	// end is an Event. Kill ends it now and returns when it is gone. Both
	// give ErrNotRunning for a machine that is absent.
	Shutdown(ctx context.Context, uuid string) error
	Kill(ctx context.Context, uuid string) error

	// Release frees what Prepare made: no mount, loop device, control group
	// or process of the machine remains. No-op when nothing is prepared;
	// ErrRunning while the machine runs.
	Release(ctx context.Context, uuid string) error

	// Stats tells what a running machine uses.
	Stats(ctx context.Context, uuid string) (Stats, error)

	// Running finds the machines of this root that run, also those that an
	// earlier process of ours started, and follows them from then on. It
	// tells as well which of that process's machines ended while nobody
	// looked (Absent): Release frees what is left of them.
	Running(ctx context.Context) ([]Found, error)

	// Forget gives back what a machine keeps from run to run, such as its
	// user ids. The machine is released, and will not be prepared again.
	Forget(ctx context.Context, uuid string) error

	// Events delivers every change of a machine's state, in order, to one
	// reader, until Close. The engine never drops one.
	Events() <-chan Event

	// Close ends the driver; machines run on.
	Close() error
}

// Found is a machine that an earlier process started.
type Found struct {
	UUID   string
	Domain vchan.Domain
	State  MachineState
	Reason Reason // when State is Absent: Stopped, or Crashed for every other end
	// Trouble says why a machine that runs is not wholly known; empty: it is.
	// Shutdown and Kill end it all the same. More than one engine may tell of
	// it, with the same UUID.
	Trouble string
}
