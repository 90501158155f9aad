// Package sandbox is the engine that runs qubes as OCI bundles with runsc
// (gVisor: a kernel of its own for every qube) or crun (Linux namespaces).
//
// How a machine is made: Prepare builds the qube's tree in a mount namespace
// of its own: images by loop device → ext4 → idmapped mount → overlay. Nobody
// else sees these mounts, and the kernel takes them down when the last process
// in the namespace ends, whatever becomes of us. Start runs the OCI runtime in
// that namespace below a small shell, the supervisor, which keeps the exit
// status and bounds the console log; it lives on when this process ends, and
// Running finds it again by what Prepare wrote to paths.Machines()/UUID. The
// end of the supervisor is the end of the machine.
//
// Users: images hold plain ids; each qube has 65536 ids of the host to itself
// (see Ranges), so that root in the qube is nobody outside.
//
// To try a program in a machine without the rest of the system:
//
//	go run ./daemon/engine/trial --engine crun -- bash -c 'id; ls /rw'
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
)

var _ engine.Engine = (*Engine)(nil)

// The runtimes.
const (
	Runsc = "runsc"
	Crun  = "crun"
)

// Options says which runtime to use and where.
type Options struct {
	Runtime string // Runsc or Crun
	// Binary is the runtime's program; empty: beside our own program, then
	// in PATH.
	Binary string
	Root   paths.Root
	Log    *slog.Logger // nil: none
	// Ranges is the file that gives out user ids; empty: DefaultRanges.
	Ranges string
	// Command replaces the command of PID 1 (the agent's); for trials.
	Command []string
}

// Engine runs machines with one OCI runtime.
type Engine struct {
	options Options
	log     *slog.Logger
	ranges  *Ranges
	events  *queue

	mu       sync.Mutex // guards what follows
	machines map[string]*machine
	bases    map[fileID]*base
	idmaps   map[uint32]*os.File // user namespaces for idmapped mounts, by first id
	closed   bool
	// following counts the goroutines that wait for machines' ends.
	following sync.WaitGroup
}

// New returns the engine. It looks at nothing yet: Probe does.
func New(o Options) (*Engine, error) {
	if o.Runtime != Runsc && o.Runtime != Crun {
		return nil, fmt.Errorf("no such OCI runtime: %q", o.Runtime)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ranges == "" {
		o.Ranges = DefaultRanges
	}
	if o.Binary == "" {
		o.Binary = findBinary(o.Runtime)
	}
	return &Engine{
		options:  o,
		log:      o.Log.With("engine", o.Runtime),
		ranges:   &Ranges{Path: o.Ranges},
		events:   newQueue(),
		machines: make(map[string]*machine),
		bases:    make(map[fileID]*base),
		idmaps:   make(map[uint32]*os.File),
	}, nil
}

// findBinary looks beside our own program first: runsc is built with us.
func findBinary(name string) string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return beside
		}
	}
	if found, err := exec.LookPath(name); err == nil {
		return found
	}
	return name
}

// Name is the runtime's name.
func (e *Engine) Name() string { return e.options.Runtime }

// Capabilities tells what separates the qubes.
func (e *Engine) Capabilities() engine.Capabilities {
	c := engine.Capabilities{
		Isolation: engine.GVisor,
		Weakness:  "A flaw in gVisor's kernel that reaches through its system call filter opens dom0; there is no hardware boundary.",
		Lacks: []engine.Lack{
			{What: "network", Reason: "the sandbox has no network device"},
			{What: "block devices", Reason: "a sandbox sees files, not devices"},
			{What: "usb", Reason: "gVisor has no USB drivers"},
			{What: "pci", Reason: "a sandbox has no devices of its own"},
			{What: "balloon", Reason: "memory is given back by itself; the limit is fixed while the qube runs"},
			{What: "kernel", Reason: "gVisor is the kernel"},
			{What: "operating systems", Reason: "only Linux programs run in gVisor"},
		},
	}
	if e.options.Runtime == Crun {
		c.Isolation = engine.Namespaces
		c.Weakness = "The qube shares dom0's kernel: one flaw in that kernel is enough to leave the qube."
		c.Lacks[2].Reason = "devices belong to the kernel that all qubes share"
		c.Lacks[5].Reason = "the qube shares dom0's kernel"
		c.Lacks[6].Reason = "only Linux programs run on dom0's kernel"
	}
	return c
}

// unusable names the mend of what makes the engine unusable.
func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", engine.ErrUnusable, fmt.Errorf(format, args...))
}

// uuids is what may name a folder below paths.Machines.
var uuids = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (e *Engine) dir(uuid string) string { return filepath.Join(e.options.Root.Machines(), uuid) }

// machine returns a prepared machine.
func (e *Engine) machine(uuid string) (*machine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	m := e.machines[uuid]
	if m == nil {
		return nil, engine.ErrNotRunning
	}
	return m, nil
}

var errClosed = errors.New("the engine is closed")

// fail names the operation and the machine of an error.
func fail(op, uuid string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s machine %s: %w", op, uuid, err)
}

// Events delivers what happens.
func (e *Engine) Events() <-chan engine.Event { return e.events.out }

// Close ends the driver; machines run on, and prepared ones are released.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	var idle []string
	for uuid, m := range e.machines {
		if m.state == engine.Absent {
			idle = append(idle, uuid)
		} else {
			m.forget()
		}
	}
	e.mu.Unlock()
	var err error
	for _, uuid := range idle {
		err = errors.Join(err, e.release(context.Background(), uuid))
	}
	e.following.Wait()
	e.letGo()
	e.events.close()
	return err
}

// letGo closes what holds the mounts of machines that run on: from here on
// they hold them alone.
func (e *Engine) letGo() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.machines {
		m.watch.close()
		if m.tree != nil && m.tree.ns != nil {
			m.tree.ns.Close()
			m.tree.ns = nil
		}
	}
	for id, b := range e.bases {
		b.ns.Close()
		delete(e.bases, id)
	}
	for ids, ns := range e.idmaps {
		ns.Close()
		delete(e.idmaps, ids)
	}
}
