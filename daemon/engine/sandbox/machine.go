package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/vchan"
)

// releaseLimit bounds how long a machine's end may take the kernel: writing
// back what the qube wrote last.
const releaseLimit = 30 * time.Second

// machine is a prepared or running machine. Engine.mu guards the fields that
// change.
type machine struct {
	uuid   string
	name   string
	domain vchan.Domain
	limit  int64 // bytes of memory
	tree   *tree
	group  group

	state    engine.MachineState
	killed   bool // Kill was called
	stopping bool // Shutdown was called
	watch    *oomWatch
	starved  time.Time     // when it was told last that memory was not enough
	super    *process      // the supervisor
	init     *process      // the sandbox's first process
	ended    chan struct{} // closed at the end of the run
	dropped  chan struct{} // closed when nobody follows it any longer
}

// forget stops following a machine that runs on. Engine.mu is held.
func (m *machine) forget() {
	select {
	case <-m.dropped:
	default:
		close(m.dropped)
	}
}

// record is what a later process must know of a machine, in its folder.
type record struct {
	Engine string       `json:"engine"`
	UUID   string       `json:"uuid"`
	Name   string       `json:"name"`
	Domain vchan.Domain `json:"domain"`
	Memory int64        `json:"memory"` // bytes
	Loops  []loopDevice `json:"loops"`
	Below  []loopDevice `json:"below,omitempty"` // of the images shared with other machines
	// Supervisor is set before it begins, Init when the machine runs: one
	// without the other is a start that was interrupted.
	Supervisor *identity `json:"supervisor,omitempty"`
	Init       *identity `json:"init,omitempty"`
}

// writeRecord writes down a machine with what runs of it, or nil.
func (e *Engine) writeRecord(m *machine, super, first *process) error {
	r := record{Engine: e.options.Runtime, UUID: m.uuid, Name: m.name, Domain: m.domain, Memory: m.limit}
	if m.tree != nil {
		r.Loops, r.Below = m.tree.loops, m.tree.below
	}
	if super != nil {
		r.Supervisor = &super.identity
	}
	if first != nil {
		r.Init = &first.identity
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeVolatile(filepath.Join(e.dir(m.uuid), fileRecord), data)
}

func (e *Engine) readRecord(uuid string) (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(e.dir(uuid), fileRecord))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s of machine %s: %w", fileRecord, uuid, err)
	}
	return r, nil
}

// writeVolatile replaces a file that need not outlive the power.
func writeVolatile(path string, data []byte) error {
	tmp := path + "~"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Prepare builds mounts, bundle and control group.
func (e *Engine) Prepare(ctx context.Context, m engine.Machine) error {
	return fail("prepare", m.UUID, e.prepare(ctx, m))
}

func (e *Engine) prepare(ctx context.Context, m engine.Machine) (err error) {
	if !uuids.MatchString(m.UUID) {
		return fmt.Errorf("%q is not a UUID", m.UUID)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return unusable("mounting volumes needs root: start qubesd as root (sudo)")
	}
	if m.Memory < 16 {
		return fmt.Errorf("%w: %d MiB", engine.ErrNoMemory, m.Memory)
	}
	if err := e.reserve(m); err != nil {
		return err
	}
	p := &machine{
		uuid: m.UUID, name: string(m.Name), domain: m.Domain, limit: int64(m.Memory) << 20,
		group: group{uuid: m.UUID},
	}
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		e.mu.Lock()
		delete(e.machines, m.UUID)
		e.mu.Unlock()
	}()
	if err := e.clearLeftovers(m.UUID); err != nil {
		return err
	}
	ids, err := e.ranges.For(e.options.Root, m.UUID)
	if err != nil {
		return err
	}
	dir := e.dir(m.UUID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	undo = append(undo, func() error { return os.RemoveAll(dir) })
	if p.group.controllers, err = findControllers(); err != nil {
		return err
	}
	undo = append(undo, func() error { return p.group.remove(time.Second) })
	if err := p.group.create(p.limit); err != nil {
		return err
	}
	if p.tree, err = e.newTree(m, ids); err != nil {
		return err
	}
	undo = append(undo, func() error { return e.dropTree(p.tree) })
	if err := e.writeBundle(m, p.tree, ids, p.group.path()); err != nil {
		return err
	}
	if err := e.writeRecord(p, nil, nil); err != nil {
		return err
	}
	e.mu.Lock()
	e.machines[m.UUID] = p
	e.mu.Unlock()
	return nil
}

// reserve claims the UUID so that a second Prepare fails.
func (e *Engine) reserve(m engine.Machine) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	if e.machines[m.UUID] != nil {
		return engine.ErrRunning
	}
	e.machines[m.UUID] = &machine{uuid: m.UUID, name: string(m.Name)}
	return nil
}

// clearLeftovers releases what an earlier process prepared and did not
// release, and ends a start that it did not finish. A machine that still runs
// is an error.
func (e *Engine) clearLeftovers(uuid string) error {
	if _, err := os.Lstat(e.dir(uuid)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r, err := e.readRecord(uuid)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("an unreadable record of a machine is replaced", "uuid", uuid, "error", err)
	}
	if r.Supervisor != nil {
		if p, err := r.Supervisor.open(); err == nil {
			defer p.close()
			if r.Init != nil {
				return engine.ErrRunning
			}
			if err := endSupervisor(p, uuid); err != nil {
				return err
			}
		}
	}
	return e.clear(uuid, r.Loops)
}

// endSupervisor ends a supervisor that nobody follows, with all that it has
// started so far.
func endSupervisor(super *process, uuid string) error {
	controllers, err := findControllers()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(killLimit); time.Now().Before(deadline); {
		// The runtime may just be between its process group and the
		// machine's control group: try again until nothing is in either.
		_ = unix.Kill(-super.PID, unix.SIGKILL)
		killAll(group{controllers: controllers, uuid: uuid})
		if super.wait(10*time.Millisecond) == nil {
			return nil
		}
	}
	return fmt.Errorf("its supervisor, process %d, does not end", super.PID)
}

// clear removes what no process needs any longer.
func (e *Engine) clear(uuid string, loops []loopDevice) error {
	g := group{uuid: uuid}
	var err error
	if g.controllers, err = findControllers(); err != nil {
		return err
	}
	killAll(g)
	return errors.Join(awaitFree(loops, releaseLimit), g.remove(5*time.Second), os.RemoveAll(e.dir(uuid)))
}

// Release undoes Prepare.
func (e *Engine) Release(ctx context.Context, uuid string) error {
	return fail("release", uuid, e.release(ctx, uuid))
}

func (e *Engine) release(_ context.Context, uuid string) error {
	if !uuids.MatchString(uuid) {
		return fmt.Errorf("%q is not a UUID", uuid)
	}
	e.mu.Lock()
	m := e.machines[uuid]
	if m != nil && m.state != engine.Absent {
		e.mu.Unlock()
		return engine.ErrRunning
	}
	delete(e.machines, uuid)
	e.mu.Unlock()
	if m == nil {
		return e.clearLeftovers(uuid)
	}
	m.watch.close()
	killAll(m.group)
	var err error
	if m.tree != nil {
		err = e.dropTree(m.tree)
	}
	return errors.Join(err, m.group.remove(5*time.Second), os.RemoveAll(e.dir(uuid)))
}

// Forget gives the qube's user ids back.
func (e *Engine) Forget(_ context.Context, uuid string) error {
	e.mu.Lock()
	known := e.machines[uuid] != nil
	e.mu.Unlock()
	if known {
		return fail("forget", uuid, engine.ErrRunning)
	}
	return fail("forget", uuid, e.ranges.Forget(e.options.Root, uuid))
}
