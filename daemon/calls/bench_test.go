package calls

import (
	"fmt"
	"log/slog"
	"testing"

	"cubicle/daemon/core/coretest"
	"cubicle/daemon/paths"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/defaults"
)

// benchmarked is a decider with the default policy and so many more qubes.
func benchmarked(b *testing.B, s *coretest.System, qubes int) *Calls {
	b.Helper()
	for i := range qubes {
		if _, err := s.NewQube(fmt.Sprint("q", i), "red"); err != nil {
			b.Fatal(err)
		}
	}
	root := paths.Root(b.TempDir())
	if err := defaults.Lay(root, -1); err != nil {
		b.Fatal(err)
	}
	kept, runtime, legacy := root.PolicyFiles()
	c, err := New(Options{
		Core: s.Core, Dirs: policy.Dirs{Policy: []string{kept, runtime}, Legacy: legacy}, Disposables: b.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// BenchmarkJudge decides with the default policy among 200 qubes: as it is
// most of the time, after a qube has changed, and after the policy has.
func BenchmarkJudge(b *testing.B) {
	c := benchmarked(b, coretest.NewSystem(b), 200)
	r := policy.Request{Service: "qubes.Filecopy", Argument: "+", Source: "q1", Target: "q2"}
	judge := func(b *testing.B) {
		if d, _, err := c.judge(r); err != nil || d.Action != policy.Ask {
			b.Fatal(d, err)
		}
	}
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			judge(b)
		}
	})
	b.Run("qubes", func(b *testing.B) {
		for b.Loop() {
			c.systems.view = nil
			judge(b)
		}
	})
	b.Run("policy", func(b *testing.B) {
		for b.Loop() {
			c.rules.number = 0
			judge(b)
		}
	})
}
