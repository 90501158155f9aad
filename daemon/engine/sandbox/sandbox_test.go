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
func program(t testing.TB, name string) string {
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

func TestRunsc(t *testing.T) { enginetest.TestEngine(t, opener(t, Runsc)) }
func TestCrun(t *testing.T)  { enginetest.TestEngine(t, opener(t, Crun)) }

func BenchmarkRunsc(b *testing.B) { enginetest.BenchmarkStart(b, opener(b, Runsc)) }
func BenchmarkCrun(b *testing.B)  { enginetest.BenchmarkStart(b, opener(b, Crun)) }

func opener(t testing.TB, runtime string) enginetest.Open {
	path := program(t, runtime)
	ranges := filepath.Join(t.TempDir(), "ranges.json")
	return func(t testing.TB, root paths.Root) engine.Engine {
		e, err := New(Options{Runtime: runtime, Binary: path, Root: root, Ranges: ranges})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}
