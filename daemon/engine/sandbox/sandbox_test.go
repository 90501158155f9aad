package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/enginetest"
	"cubicle/daemon/paths"
)

// program finds a runtime as the programs do, or in the repository's bin.
func program(t *testing.T, name string) string {
	t.Helper()
	if built, err := filepath.Abs("../../../bin/" + name); err == nil {
		if _, err := os.Stat(built); err == nil {
			return built
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func TestRunsc(t *testing.T) { conform(t, Runsc) }
func TestCrun(t *testing.T)  { conform(t, Crun) }

func conform(t *testing.T, runtime string) {
	path := program(t, runtime)
	ranges := filepath.Join(t.TempDir(), "ranges.json")
	enginetest.TestEngine(t, func(t *testing.T, root paths.Root) engine.Engine {
		e, err := New(Options{Runtime: runtime, Binary: path, Root: root, Ranges: ranges})
		if err != nil {
			t.Fatal(err)
		}
		return e
	})
}
