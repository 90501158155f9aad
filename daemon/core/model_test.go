package core_test

import (
	"context"
	"os"
	"testing"

	"pgregory.net/rapid"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
)

// Whatever is done to qubes in whatever order: the state told is the state of
// the machines, contracts are kept, and nothing is left of what is halted.
func TestModelOfStartAndStop(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		w := coretest.New()
		s, err := coretest.Start(w, dir, core.WallClock{})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		if err := s.Done(s.CreateTemplate("debian-12", "x")); err != nil {
			rt.Fatal(err)
		}
		var ids []qube.UUID
		for _, name := range []string{"work", "personal"} {
			id, err := s.NewQube(name, "blue")
			if err != nil {
				rt.Fatal(err)
			}
			ids = append(ids, id)
		}
		model := map[qube.UUID]qube.State{ids[0]: qube.Halted, ids[1]: qube.Halted}
		pick := rapid.SampledFrom(ids)
		// expect checks a result against what the state allows.
		expect := func(rt *rapid.T, err error, allowed bool) bool {
			if (err == nil) != allowed {
				rt.Fatalf("error %v, but allowed is %v", err, allowed)
			}
			return err == nil
		}
		up := func(id qube.UUID) bool { return model[id] != qube.Halted }
		rt.Repeat(map[string]func(*rapid.T){
			"start": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				expect(rt, s.Done(s.Core.Start(id)), true)
				if !up(id) {
					model[id] = qube.Running
				}
			},
			"failing start": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				w.Set(func(w *coretest.World) { w.FailStart = engine.ErrNoMemory })
				expect(rt, s.Done(s.Core.Start(id)), up(id))
				w.Set(func(w *coretest.World) { w.FailStart = nil })
			},
			"shutdown": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				if expect(rt, s.Done(s.Shutdown(context.Background(), id, false)), model[id] == qube.Running) {
					model[id] = qube.Halted
				}
			},
			"kill": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				if expect(rt, s.Done(s.Kill(id)), up(id)) {
					model[id] = qube.Halted
				}
			},
			"pause": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				if expect(rt, s.Done(s.Pause(id)), model[id] == qube.Running) {
					model[id] = qube.Paused
				}
			},
			"unpause": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				if expect(rt, s.Done(s.Unpause(id)), model[id] == qube.Paused) {
					model[id] = qube.Running
				}
			},
			"crash": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				s.Engine.Crash(string(id), engine.Crashed)
				model[id] = qube.Halted
				wait(t, "the crash is seen", func() bool { return s.State(id) == qube.Halted })
			},
			"remove": func(rt *rapid.T) {
				id := pick.Draw(rt, "id")
				if up(id) { // removing a halted one would end the game
					expect(rt, s.Done(s.Remove(id)), false)
				}
			},
			"restart of the daemon": func(rt *rapid.T) {
				s.Close()
				if s, err = coretest.Start(w, dir, core.WallClock{}); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				for id, state := range model {
					// After the daemon's restart agents say hello again.
					wait(t, string(state), func() bool { return s.State(id) == state })
				}
				for _, b := range w.Breaches() {
					rt.Fatal(b)
				}
				if !up(ids[0]) && !up(ids[1]) {
					if left := w.Leftovers(); len(left) > 0 {
						rt.Fatalf("left: %v", left)
					}
				}
			},
		})
	})
}
