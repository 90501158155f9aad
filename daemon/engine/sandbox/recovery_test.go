package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
)

// each runs a test with an engine of each runtime, whose program is a copy.
func each(t *testing.T, test func(t *testing.T, e *Engine)) {
	if os.Geteuid() != 0 {
		t.Skip("machines need root")
	}
	for _, runtime := range []string{Runsc, Crun} {
		t.Run(runtime, func(t *testing.T) {
			binary := filepath.Join(t.TempDir(), runtime)
			if out, err := exec.Command("cp", program(t, runtime), binary).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			test(t, newEngine(t, runtime, binary, paths.Root(t.TempDir())))
		})
	}
}

func newEngine(t *testing.T, runtime, binary string, root paths.Root) *Engine {
	t.Helper()
	e, err := New(Options{Runtime: runtime, Binary: binary, Root: root, Ranges: filepath.Join(string(root), "ranges.json")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func started(t *testing.T, e *Engine) engine.Machine {
	t.Helper()
	m := waiting(t)
	if err := e.Prepare(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), m.UUID); err != nil {
		t.Fatal(errors.Join(err, e.Release(t.Context(), m.UUID)))
	}
	return m
}

// noMachine checks that nothing of a machine is left.
func noMachine(t *testing.T, e *Engine, uuid string, processes ...identity) {
	t.Helper()
	for _, i := range processes {
		if p, err := i.open(); err == nil {
			p.close()
			t.Errorf("process %d runs on", i.PID)
		}
	}
	c, err := findControllers()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range c.folders {
		if _, err := os.Stat(filepath.Join(dir, cgroupParent, uuid)); err == nil {
			t.Errorf("control group %s is left", filepath.Join(dir, cgroupParent, uuid))
		}
	}
	if _, err := os.Stat(e.dir(uuid)); err == nil {
		t.Errorf("%s is left", e.dir(uuid))
	}
}

// A daemon that is killed between launching a machine and noting that it runs
// leaves a start to be undone.
func TestInterruptedStart(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		m := started(t, e)
		r, err := e.readRecord(m.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		running, err := r.Supervisor.open()
		if err != nil {
			t.Fatal(err)
		}
		// As it was before.
		if err := e.writeRecord(&machine{uuid: m.UUID, name: "waiting", tree: &tree{loops: r.Loops}}, running, nil); err != nil {
			t.Fatal(err)
		}
		running.close()
		next := newEngine(t, e.options.Runtime, e.options.Binary, e.options.Root)
		found, err := next.Running(t.Context())
		if err != nil || len(found) != 1 || found[0].State != engine.Absent || found[0].Reason != engine.Crashed {
			t.Errorf("Running() = %+v, %v", found, err)
		}
		if err := next.Release(t.Context(), m.UUID); err != nil {
			t.Error(err)
		}
		noMachine(t, next, m.UUID, *r.Supervisor, *r.Init)
	})
}

// A supervisor that is not told to go on has nobody who knows of it.
func TestSupervisorWithoutWord(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		m := waiting(t)
		if err := e.Prepare(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		prepared, err := e.machine(m.UUID)
		if err != nil {
			t.Fatal(err)
		}
		cmd, gate, err := e.launch(prepared)
		if err != nil {
			t.Fatal(err)
		}
		gate.Close() // as the kernel does after a kill
		if err := cmd.Wait(); err == nil {
			t.Error("the supervisor went on")
		}
		if err := e.Release(t.Context(), m.UUID); err != nil {
			t.Error(err)
		}
		noMachine(t, e, m.UUID)
	})
}

// The next probe clears away what a killed one left.
func TestInterruptedProbe(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		if err := os.MkdirAll(e.options.Root.Run(), 0o755); err != nil {
			t.Fatal(err)
		}
		held, err := e.probeFolder()
		if err != nil {
			t.Fatal(err)
		}
		trial, err := e.trial(held.Name())
		if err != nil {
			t.Fatal(err)
		}
		m := started(t, trial)
		r, err := trial.readRecord(m.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if err := trial.Close(); err != nil {
			t.Fatal(err)
		}
		// While somebody holds the folder, it stays.
		if err := e.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p, err := r.Init.open(); err != nil {
			t.Error("a probe under way was ended")
		} else {
			p.close()
		}
		held.Close()
		if err := e.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		noMachine(t, trial, m.UUID, *r.Supervisor, *r.Init)
		if left, _ := filepath.Glob(filepath.Join(e.options.Root.Run(), "probe-*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		table, err := e.ranges.load()
		if err != nil || len(table) > 0 {
			t.Errorf("user ids of %v, %v", table, err)
		}
	})
}

// A runtime that is deleted while it runs a machine is named with its mend,
// and the machine can still be killed.
func TestBinaryGone(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		m := started(t, e)
		if err := os.Remove(e.options.Binary); err != nil {
			t.Fatal(err)
		}
		named := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, engine.ErrUnusable) || !strings.Contains(err.Error(), mend[e.options.Runtime]) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if e.options.Runtime == Runsc { // crun is not needed for it
			named("shut down", e.Shutdown(t.Context(), m.UUID))
		}
		if err := e.Kill(t.Context(), m.UUID); err != nil {
			t.Error(err)
		}
		if err := e.Release(t.Context(), m.UUID); err != nil {
			t.Error(err)
		}
		noMachine(t, e, m.UUID)
		if err := e.Prepare(t.Context(), m); err == nil {
			named("start", e.Start(t.Context(), m.UUID))
			err = e.Release(t.Context(), m.UUID)
			if err != nil {
				t.Error(err)
			}
		} else {
			named("prepare", err)
		}
		noMachine(t, e, m.UUID)
		named("probe", e.Probe(t.Context()))
	})
}

// A control group that somebody removed fails the start by name.
func TestControlGroupGone(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		m := waiting(t)
		if err := e.Prepare(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		prepared, err := e.machine(m.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if prepared.group.none() {
			t.Skip("no control groups here")
		}
		if err := prepared.group.remove(time.Second); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), m.UUID); !errors.Is(err, engine.ErrUnusable) || !strings.Contains(err.Error(), "control group has vanished") {
			t.Errorf("start: %v", err)
		}
		if err := e.Release(t.Context(), m.UUID); err != nil {
			t.Error(err)
		}
		noMachine(t, e, m.UUID)
		if m = started(t, e); e.Kill(t.Context(), m.UUID) != nil || e.Release(t.Context(), m.UUID) != nil {
			t.Error("the next machine does not end")
		}
	})
}

func TestForgetGivesTheRangeBack(t *testing.T) {
	r := &Ranges{Path: filepath.Join(t.TempDir(), "ranges.json")}
	root := paths.Root(t.TempDir())
	first, err := r.For(root, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.For(root, "two"); err != nil {
		t.Fatal(err)
	}
	if err := r.Forget(root, "one"); err != nil {
		t.Fatal(err)
	}
	if again, err := r.For(root, "three"); err != nil || again != first {
		t.Errorf("the range of the forgotten is %d, the next %d, %v", first, again, err)
	}
}

// A machine whose record another version wrote runs on, and is ended like any
// other.
func TestUnreadableRecord(t *testing.T) {
	for end, text := range map[string]string{
		"killed":    `{"version": 7`,
		"shut down": `{"runtime": "x", "pid": 1}`,
	} {
		t.Run(end, func(t *testing.T) {
			each(t, func(t *testing.T, e *Engine) {
				m := started(t, e)
				r, err := e.readRecord(m.UUID)
				if err != nil {
					t.Fatal(err)
				}
				e.Close()
				if err := os.WriteFile(filepath.Join(e.dir(m.UUID), fileRecord), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				next := newEngine(t, e.options.Runtime, e.options.Binary, e.options.Root)
				found, err := next.Running(t.Context())
				if err != nil || len(found) != 1 || found[0].UUID != m.UUID || found[0].State != engine.Up || found[0].Trouble == "" {
					t.Fatalf("%+v, %v", found, err)
				}
				if err := next.Release(t.Context(), m.UUID); !errors.Is(err, engine.ErrRunning) {
					t.Errorf("released: %v", err)
				}
				if end == "shut down" {
					if err := next.Shutdown(t.Context(), m.UUID); err != nil {
						t.Fatal(err)
					}
				}
				// The first process of a crun machine is deaf here.
				if end == "killed" || e.options.Runtime == Crun {
					if err := next.Kill(t.Context(), m.UUID); err != nil {
						t.Fatal(err)
					}
				}
				limit := time.After(90 * time.Second)
				for gone := false; !gone; {
					select {
					case ev := <-next.Events():
						gone = ev.State == engine.Absent
					case <-limit:
						t.Fatal("it never ends")
					}
				}
				if err := next.Release(t.Context(), m.UUID); err != nil {
					t.Error(err)
				}
				noMachine(t, next, m.UUID, *r.Init)
				if found, err := next.Running(t.Context()); err != nil || len(found) != 0 {
					t.Errorf("%+v, %v", found, err)
				}
			})
		})
	}
}
