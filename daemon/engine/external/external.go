// Package external is the engine of qubes whose agents are somebody else's
// process: upstream's own agents, ones under development, tests. dom0 starts
// and ends nothing; it meets the agents on the sockets of upstream's socket
// vchan (spec/vchan.md §3) in paths.Root.Vchan, under the domain id of the
// qube's property external_domain or one that dom0 chose for this run.
//
// A qube counts as running from its start until it is shut down or killed,
// which ends dom0's side of all channels. What the agents' process may do in
// dom0 is nobody's business here: no isolation is claimed.
package external

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// Name is the engine's name.
const Name = "external"

// queue is how many events may wait: one of each machine's start and end, for
// more machines than there are.
const queue = 1 << 14

// Engine follows machines that are not ours.
type Engine struct {
	dir    string
	events chan engine.Event

	mu       sync.Mutex // guards what follows
	machines map[string]*machine
}

// machine is one qube's run.
type machine struct {
	Domain vchan.Domain `json:"domain"`
	up     bool
}

var _ engine.Engine = (*Engine)(nil)

// New returns the engine. It records its machines in folder dir, which does
// not outlive the computer's run.
func New(dir string) (*Engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("engine %s: %w", Name, err)
	}
	return &Engine{dir: dir, events: make(chan engine.Event, queue), machines: map[string]*machine{}}, nil
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Capabilities implements engine.Engine.
func (e *Engine) Capabilities() engine.Capabilities {
	const theirs = "the qube's agents are another program's, which dom0 does not control"
	return engine.Capabilities{
		Isolation: engine.None,
		Weakness:  "Nothing stands between dom0 and the program that plays this qube, whatever runs it.",
		Foreign:   true,
		Lacks: []engine.Lack{
			{What: "pause", Reason: theirs}, {What: "network", Reason: theirs}, {What: "volumes", Reason: theirs},
			{What: "block devices", Reason: theirs}, {What: "usb", Reason: theirs}, {What: "balloon", Reason: theirs},
		},
	}
}

// Probe implements engine.Engine: it needs nothing of the computer.
func (e *Engine) Probe(context.Context) error { return nil }

// Prepare implements engine.Engine.
func (e *Engine) Prepare(_ context.Context, m engine.Machine) error {
	if _, err := qube.ParseUUID(m.UUID); err != nil {
		return fmt.Errorf("prepare a foreign machine: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.machines[m.UUID] != nil {
		return fmt.Errorf("prepare %s: %w", m.Name, engine.ErrRunning)
	}
	e.machines[m.UUID] = &machine{Domain: m.Domain}
	return nil
}

// Start implements engine.Engine: from now on the agents are expected.
func (e *Engine) Start(ctx context.Context, uuid string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.machines[uuid]
	switch {
	case m == nil:
		return fmt.Errorf("start %s: it was not prepared", uuid)
	case m.up:
		return fmt.Errorf("start %s: %w", uuid, engine.ErrRunning)
	}
	if err := e.record(uuid, *m); err != nil {
		return fmt.Errorf("start %s: %w", uuid, err)
	}
	m.up = true
	e.events <- engine.Event{UUID: uuid, State: engine.Up}
	return nil
}

// record writes down that a machine runs. It does not outlive the computer's
// run, so that the rename alone is enough.
func (e *Engine) record(uuid string, m machine) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	half := e.path(uuid) + half
	if err := os.WriteFile(half, raw, 0o600); err != nil {
		return errors.Join(err, os.Remove(half))
	}
	return os.Rename(half, e.path(uuid))
}

const (
	suffix = ".json"
	half   = ".new" // ends the name of a record that is being written
)

func (e *Engine) path(uuid string) string { return filepath.Join(e.dir, uuid+suffix) }

// Pause implements engine.Engine.
func (e *Engine) Pause(context.Context, string) error { return engine.ErrUnsupported }

// Resume implements engine.Engine.
func (e *Engine) Resume(context.Context, string) error { return engine.ErrUnsupported }

// Shutdown implements engine.Engine: dom0 lets go of the agents.
func (e *Engine) Shutdown(_ context.Context, uuid string) error { return e.end(uuid, engine.Stopped) }

// Kill implements engine.Engine.
func (e *Engine) Kill(_ context.Context, uuid string) error { return e.end(uuid, engine.Killed) }

func (e *Engine) end(uuid string, why engine.Reason) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.machines[uuid]
	if m == nil || !m.up {
		return engine.ErrNotRunning
	}
	if err := os.Remove(e.path(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end %s: %w", uuid, err)
	}
	m.up = false
	e.events <- engine.Event{UUID: uuid, State: engine.Absent, Reason: why}
	return nil
}

// Release implements engine.Engine.
func (e *Engine) Release(_ context.Context, uuid string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.machines[uuid]; m != nil && m.up {
		return fmt.Errorf("release %s: %w", uuid, engine.ErrRunning)
	}
	delete(e.machines, uuid)
	return nil
}

// Stats implements engine.Engine: what the agents use is not known.
func (e *Engine) Stats(_ context.Context, uuid string) (engine.Stats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.machines[uuid]; m == nil || !m.up {
		return engine.Stats{}, engine.ErrNotRunning
	}
	return engine.Stats{}, nil
}

// Running implements engine.Engine: what an earlier process of ours recorded
// runs on, because nobody else can end it.
func (e *Engine) Running(context.Context) ([]engine.Found, error) {
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return nil, fmt.Errorf("find foreign machines: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []engine.Found
	for _, entry := range entries {
		uuid, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok {
			continue
		}
		raw, err := os.ReadFile(e.path(uuid))
		if err != nil {
			return nil, fmt.Errorf("find foreign machines: %w", err)
		}
		m := machine{up: true}
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("find foreign machines: %s: %w", e.path(uuid), err)
		}
		e.machines[uuid] = &m
		found = append(found, engine.Found{UUID: uuid, Domain: m.Domain, State: engine.Up})
	}
	return found, nil
}

// Forget implements engine.Engine: nothing is kept from run to run.
func (e *Engine) Forget(context.Context, string) error { return nil }

// Events implements engine.Engine.
func (e *Engine) Events() <-chan engine.Event { return e.events }

// Close implements engine.Engine.
func (e *Engine) Close() error { return nil }
