package coretest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"cubicle/daemon/core"
	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// System is a core in a world, on a folder.
type System struct {
	*core.Core
	World  *World
	Engine *Engine
	Router *Router
	Clock  core.Clock
	Dir    string
}

// Start opens a system on a folder that may hold the state of an earlier one,
// with the world's engine and perhaps more.
func Start(w *World, dir string, clock core.Clock, more ...engine.Engine) (*System, error) {
	s := &System{World: w, Dir: dir, Clock: clock, Router: w.NewRouter()}
	s.Engine = w.NewEngine("test", s.Router)
	st, err := store.Open(filepath.Join(dir, "state"))
	if err != nil {
		return nil, err
	}
	imports := filepath.Join(dir, "import")
	if err := os.MkdirAll(imports, 0o700); err != nil {
		return nil, err
	}
	s.Core, err = core.Open(context.Background(), core.Config{
		Store: st, Pools: []storage.Pool{w.NewPool(imports)}, Drivers: []storage.Driver{w.PoolDriver(imports)},
		Engines: append([]engine.Engine{s.Engine}, more...),
		Router:  s.Router, Caller: w, Builder: w, Clock: clock, Log: slog.New(slog.DiscardHandler),
		Logs: filepath.Join(dir, "log"), Links: filepath.Join(dir, "links"), Runs: filepath.Join(dir, "runs"), AgentDir: dir, QrexecUID: os.Geteuid(),
	})
	return s, err
}

// NewSystem returns a system with the template debian-12 and a real clock; it
// is closed, and its world checked for breaches, at the end of the test.
func NewSystem(t testing.TB) *System {
	t.Helper()
	s, err := Start(New(), t.TempDir(), core.WallClock{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		for _, b := range s.World.Breaches() {
			t.Error(b)
		}
	})
	if err := s.Done(s.CreateTemplate("debian-12", "debian-12")); err != nil {
		t.Fatal(err)
	}
	return s
}

// Done waits for a job.
func (s *System) Done(id uint64, err error) error {
	if err != nil {
		return err
	}
	return s.Wait(context.Background(), id)
}

// NewQube makes an AppVM on debian-12.
func (s *System) NewQube(name, label string) (qube.UUID, error) {
	if err := s.Done(s.Create(core.NewQube{Name: name, Class: "AppVM", Label: label, Creator: qube.Dom0})); err != nil {
		return "", err
	}
	q, ok := s.View().Named(qube.Name(name))
	if !ok {
		return "", fmt.Errorf("%s was made and is not there", name)
	}
	return q.UUID(), nil
}

// State is a qube's state.
func (s *System) State(id qube.UUID) qube.State {
	q, ok := s.View().Lookup(id)
	if !ok {
		return ""
	}
	return q.State()
}
