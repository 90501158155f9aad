package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
)

// follow announces that the machine runs, and waits for its end.
func (e *Engine) follow(m *machine) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	m.ended, m.dropped = make(chan struct{}), make(chan struct{})
	m.state = engine.Up
	e.events.add(engine.Event{UUID: m.uuid, State: engine.Up})
	return e.startFollowing(m)
}

// startFollowing waits in the background for the supervisor's end. Engine.mu
// is held.
func (e *Engine) startFollowing(m *machine) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	watch := m.watch
	if e.options.Runtime != Crun {
		watch = nil // gVisor ends as a whole
	}
	e.following.Add(1)
	go func() {
		defer e.following.Done()
		defer r.Close()
		if e.awaitEnd(m, r, watch) {
			e.finish(m)
		}
		m.super.close()
		m.init.close()
	}()
	ended, dropped := m.ended, m.dropped
	go func() {
		select {
		case <-ended:
		case <-dropped:
		}
		w.Close()
	}()
	return nil
}

// tellAgain is how long a machine that keeps running out of memory is quiet.
const tellAgain = time.Minute

// starved tells that a program of a machine was ended for want of memory.
func (e *Engine) starved(m *machine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.state == engine.Absent || time.Since(m.starved) < tellAgain {
		return
	}
	m.starved = time.Now()
	e.events.add(engine.Event{UUID: m.uuid, State: engine.Up, Reason: engine.OutOfMemory,
		Detail: fmt.Sprintf("a program in it needed more than its %d MiB of memory and was ended: give it more (its property memory)", m.limit>>20)})
}

// finish announces the machine's end and why.
func (e *Engine) finish(m *machine) {
	status, err := readStatus(filepath.Join(e.dir(m.uuid), fileStatus))
	if err != nil {
		// Somebody ended the supervisor alone: no machine runs without.
		if m.super != nil {
			_ = unix.Kill(-m.super.PID, unix.SIGKILL)
		}
		_ = m.init.signal(unix.SIGKILL)
		killAll(m.group)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ev := engine.Event{UUID: m.uuid, State: engine.Absent}
	noMemory := m.watch.killed()
	switch {
	case m.killed:
		ev.Reason = engine.Killed
	case noMemory && (status != 0 || err != nil):
		ev.Reason = engine.OutOfMemory
		ev.Detail = fmt.Sprintf("it needed more than its %d MiB of memory: give it more (its property memory)", m.limit>>20)
	case err != nil:
		ev.Reason = engine.Crashed
		ev.Detail = e.options.Runtime + " was ended from outside"
	case status == 0 || m.stopping && status == 128+int(unix.SIGTERM):
		ev.Reason = engine.Stopped
	default:
		ev.Reason = engine.Crashed
		ev.Detail = fmt.Sprintf("its first process ended with status %d", status)
	}
	m.state = engine.Absent
	m.watch.close()
	e.events.add(ev)
	close(m.ended)
}

// running returns a machine that runs.
func (e *Engine) running(uuid string) (*machine, engine.MachineState, error) {
	m, err := e.machine(uuid)
	if err != nil {
		return nil, engine.Absent, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.state == engine.Absent {
		return nil, engine.Absent, engine.ErrNotRunning
	}
	return m, m.state, nil
}

// setState changes the state of a machine that still runs, and announces it.
func (e *Engine) setState(m *machine, s engine.MachineState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.state != engine.Absent && m.state != s {
		m.state = s
		e.events.add(engine.Event{UUID: m.uuid, State: s})
	}
}

// Pause freezes a machine: its control group under crun, and under runsc the
// programs of gVisor's kernel. Frozen by the control group, that kernel crashes
// where it is just making a process.
func (e *Engine) Pause(ctx context.Context, uuid string) error {
	return fail("pause", uuid, e.setFrozen(ctx, uuid, true))
}

// Resume thaws it.
func (e *Engine) Resume(ctx context.Context, uuid string) error {
	return fail("resume", uuid, e.setFrozen(ctx, uuid, false))
}

func (e *Engine) setFrozen(ctx context.Context, uuid string, frozen bool) error {
	m, state, err := e.running(uuid)
	if err != nil {
		return err
	}
	after, command := engine.Up, "resume"
	if frozen {
		after, command = engine.Suspended, "pause"
	}
	if state == after {
		return nil
	}
	if e.options.Runtime == Runsc {
		err = e.tell(ctx, m, command, m.uuid)
	} else {
		err = m.group.freeze(frozen)
	}
	if errors.Is(err, errNoFreezer) {
		return fmt.Errorf("%w: %w", engine.ErrUnsupported, err)
	}
	if err != nil {
		if frozen && e.options.Runtime == Crun {
			// Half frozen is neither.
			err = errors.Join(err, m.group.freeze(false))
		}
		return err
	}
	e.setState(m, after)
	return nil
}

// isFrozen tells whether a machine that was just found is paused.
func (e *Engine) isFrozen(ctx context.Context, m *machine) (bool, error) {
	if e.options.Runtime == Crun {
		return m.group.frozen()
	}
	line := append(e.runtime(m, "state"), m.uuid)
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).Output()
	if err != nil {
		return false, fmt.Errorf("runsc state: %w", err)
	}
	var said struct{ Status string }
	err = json.Unmarshal(out, &said)
	return said.Status == "paused", err
}

// Shutdown sends SIGTERM to the qube's init.
func (e *Engine) Shutdown(ctx context.Context, uuid string) error {
	m, state, err := e.running(uuid)
	if err != nil {
		return fail("shut down", uuid, err)
	}
	if state == engine.Suspended {
		if err := e.Resume(ctx, uuid); err != nil {
			return err
		}
	}
	e.mu.Lock()
	m.stopping = true
	e.mu.Unlock()
	if e.options.Runtime == Crun && m.super != nil {
		err = m.init.signal(unix.SIGTERM)
	} else {
		err = e.tell(ctx, m, "kill", m.uuid, "TERM")
	}
	return fail("shut down", uuid, err)
}

// Kill ends a machine and waits until it is gone.
func (e *Engine) Kill(_ context.Context, uuid string) error {
	m, state, err := e.running(uuid)
	if err != nil {
		return fail("kill", uuid, err)
	}
	e.mu.Lock()
	m.killed = true
	super, first, ended := m.super, m.init, m.ended
	e.mu.Unlock()
	if err := first.signal(unix.SIGKILL); err != nil {
		e.log.Warn("the first process of a machine cannot be killed", "uuid", uuid, "error", err)
	}
	if state == engine.Suspended {
		// In version 1, the frozen do not even die.
		if err := m.group.freeze(false); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			e.log.Warn("a machine cannot be thawed to be killed", "uuid", uuid, "error", err)
		}
	}
	if super != nil {
		select {
		case <-ended:
			return nil
		case <-time.After(3 * time.Second):
		}
	}
	e.destroy(m, super)
	select {
	case <-ended:
		return nil
	case <-time.After(killLimit):
		return fail("kill", uuid, errors.New("its processes do not end"))
	}
}

// Stats tells what a running machine uses. Processes is 0 for gVisor, whose
// processes only its own kernel knows.
func (e *Engine) Stats(_ context.Context, uuid string) (engine.Stats, error) {
	m, _, err := e.running(uuid)
	if err != nil {
		return engine.Stats{}, fail("look at", uuid, err)
	}
	s := engine.Stats{MemoryMax: m.limit}
	if m.group.none() {
		return s, fail("look at", uuid, fmt.Errorf("%w: statistics need control groups", engine.ErrUnsupported))
	}
	if s.Memory, err = m.group.memoryUse(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fail("look at", uuid, err)
	}
	if s.CPU, err = m.group.cpuTime(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fail("look at", uuid, err)
	}
	if e.options.Runtime == Crun {
		s.Processes = len(m.group.processes())
	}
	return s, nil
}

// Running finds the machines in this root of this engine: those that run, and
// those that ended while nobody looked.
func (e *Engine) Running(ctx context.Context) ([]engine.Found, error) {
	entries, err := os.ReadDir(e.options.Root.Machines())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for machines: %w", err)
	}
	var found []engine.Found
	for _, entry := range entries {
		if !uuids.MatchString(entry.Name()) {
			continue
		}
		f, ok, err := e.find(ctx, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("look for machine %s: %w", entry.Name(), err)
		}
		if ok {
			found = append(found, f)
		} else if reason, ended := e.endedUnseen(entry.Name()); ended {
			found = append(found, engine.Found{UUID: entry.Name(), State: engine.Absent, Reason: reason})
		}
	}
	return found, nil
}

// endedUnseen tells whether a machine of ours that nobody follows is there
// without running, and how it ended.
func (e *Engine) endedUnseen(uuid string) (engine.Reason, bool) {
	e.mu.Lock()
	known := e.machines[uuid] != nil
	e.mu.Unlock()
	r, err := e.readRecord(uuid)
	if known || err != nil || r.Engine != e.options.Runtime {
		return "", false // followed, just going, or another engine's
	}
	status, err := readStatus(filepath.Join(e.dir(uuid), fileStatus))
	if err == nil && r.Init != nil && (status == 0 || status == 128+int(unix.SIGTERM)) {
		return engine.Stopped, true
	}
	return engine.Crashed, true
}

// find takes up a machine that an earlier process started.
func (e *Engine) find(ctx context.Context, uuid string) (engine.Found, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.Found{}, false, errClosed
	}
	if m := e.machines[uuid]; m != nil {
		return engine.Found{UUID: uuid, Domain: m.domain, State: m.state}, m.state != engine.Absent, nil
	}
	r, err := e.readRecord(uuid)
	if f, ok, lerr := e.takeLost(uuid, r, err); ok || lerr != nil {
		return f, ok, lerr
	}
	if err != nil || r.Engine != e.options.Runtime || r.Supervisor == nil || r.Init == nil {
		// Half-prepared or another engine's; Prepare and Release clean up.
		return engine.Found{}, false, nil
	}
	super, err := r.Supervisor.open()
	if err != nil {
		return engine.Found{}, false, nil // it ended while nobody looked
	}
	first, err := r.Init.open()
	if err != nil {
		first = nil // it is just ending; the supervisor tells when
	}
	m := &machine{
		uuid: uuid, name: r.Name, domain: r.Domain, limit: r.Memory,
		tree: &tree{loops: r.Loops, below: r.Below}, group: group{uuid: uuid},
		super: super, init: first, state: engine.Up,
		ended: make(chan struct{}), dropped: make(chan struct{}),
	}
	if m.group.controllers, err = findControllers(); err != nil {
		return engine.Found{}, false, err
	}
	if m.watch, err = watchMemory(m.group); err != nil {
		e.log.Warn("a running machine cannot be watched for lack of memory", "uuid", uuid, "error", err)
		m.watch = &oomWatch{group: m.group}
	}
	if frozen, err := e.isFrozen(ctx, m); err == nil && frozen {
		m.state = engine.Suspended
	}
	e.machines[uuid] = m
	if err := e.startFollowing(m); err != nil {
		return engine.Found{}, false, err
	}
	return engine.Found{UUID: uuid, Domain: m.domain, State: m.state}, true, nil
}
