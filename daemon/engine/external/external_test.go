package external

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cubicle/daemon/engine"
	"cubicle/daemon/vchan"
)

const (
	one = "01234567-89ab-4def-8123-456789abcdef"
	two = "11234567-89ab-4def-8123-456789abcdef"
)

func open(t *testing.T, dir string) *Engine {
	t.Helper()
	e, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func expect(t *testing.T, e *Engine, want engine.Event) {
	t.Helper()
	select {
	case got := <-e.Events():
		if got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
	default:
		t.Errorf("no event, want %+v", want)
	}
}

func TestLife(t *testing.T) {
	ctx, e := context.Background(), open(t, t.TempDir())
	defer e.Close()
	if err := e.Probe(ctx); err != nil {
		t.Error(err)
	}
	if c := e.Capabilities(); c.Isolation != engine.None || c.Weakness == "" || !c.Foreign {
		t.Errorf("it claims %+v", c)
	}
	m := engine.Machine{UUID: one, Name: "work", Domain: 7}
	if err := e.Start(ctx, one); err == nil {
		t.Error("started before it was prepared")
	}
	if err := e.Prepare(ctx, m); err != nil {
		t.Fatal(err)
	}
	if err := e.Prepare(ctx, m); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("prepared twice: %v", err)
	}
	for what, err := range map[string]error{"kill": e.Kill(ctx, one), "shutdown": e.Shutdown(ctx, two)} {
		if !errors.Is(err, engine.ErrNotRunning) {
			t.Errorf("%s of one that does not run: %v", what, err)
		}
	}
	if err := e.Start(ctx, one); err != nil {
		t.Fatal(err)
	}
	expect(t, e, engine.Event{UUID: one, State: engine.Up})
	_, stats := e.Stats(ctx, one)
	_, none := e.Stats(ctx, two)
	for _, c := range []struct {
		what      string
		err, want error
	}{
		{"start", e.Start(ctx, one), engine.ErrRunning}, {"release", e.Release(ctx, one), engine.ErrRunning},
		{"pause", e.Pause(ctx, one), engine.ErrUnsupported}, {"resume", e.Resume(ctx, one), engine.ErrUnsupported},
		{"stats", stats, nil}, {"stats of none", none, engine.ErrNotRunning},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	if err := e.Shutdown(ctx, one); err != nil {
		t.Error(err)
	}
	expect(t, e, engine.Event{UUID: one, State: engine.Absent, Reason: engine.Stopped})
	if err := errors.Join(e.Release(ctx, one), e.Release(ctx, one), e.Forget(ctx, one)); err != nil {
		t.Error(err)
	}
	if found, err := e.Running(ctx); err != nil || len(found) > 0 {
		t.Errorf("left: %v, %v", found, err)
	}
	if err := e.Prepare(ctx, engine.Machine{UUID: "../../x"}); err == nil {
		t.Error("a bad uuid was accepted")
	}
}

// A machine that nobody but the user can end runs on without us.
func TestFoundAgain(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	e := open(t, dir)
	for id, d := range map[string]vchan.Domain{one: 7, two: 9} {
		if err := errors.Join(e.Prepare(ctx, engine.Machine{UUID: id, Domain: d}), e.Start(ctx, id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Kill(ctx, two); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, two+suffix+half), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = open(t, dir)
	found, err := e.Running(ctx)
	if err != nil || len(found) != 1 || found[0] != (engine.Found{UUID: one, Domain: 7, State: engine.Up}) {
		t.Fatalf("%+v, %v", found, err)
	}
	if err := e.Kill(ctx, one); err != nil {
		t.Error(err)
	}
	expect(t, e, engine.Event{UUID: one, State: engine.Absent, Reason: engine.Killed})
}
