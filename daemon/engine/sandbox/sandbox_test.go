package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/enginetest"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
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

// waiting describes a machine whose program only waits.
func waiting(t *testing.T) engine.Machine {
	t.Helper()
	dir := t.TempDir()
	m := engine.Machine{
		UUID: string(qube.NewUUID()), Name: "waiting", Domain: 0x8000, Memory: 128, VCPUs: 1,
		AgentDir: filepath.Join(dir, "agent"), LinkDir: filepath.Join(dir, "link"),
	}
	for _, d := range []string{m.AgentDir, m.LinkDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(m.AgentDir, engine.AgentBinary), waiter(), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Root.Base = storage.Layer{Path: filepath.Join(dir, "root.img"), Format: storage.Raw}
	if err := smallImage(t.Context(), m.Root.Base.Path); err != nil {
		t.Fatal(err)
	}
	return m
}

// Without its supervisor a machine must not run on unseen.
func TestSupervisorIsKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("machines need root")
	}
	for _, runtime := range []string{Runsc, Crun} {
		t.Run(runtime, func(t *testing.T) {
			e := opener(t, runtime)(t, paths.Root(t.TempDir())).(*Engine)
			defer e.Close()
			m := waiting(t)
			if err := e.Prepare(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := e.Start(t.Context(), m.UUID); err != nil {
				t.Fatal(err)
			}
			running, err := e.machine(m.UUID)
			if err != nil {
				t.Fatal(err)
			}
			first := running.init.identity
			if err := running.super.signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if ev := <-e.Events(); ev.State != engine.Up {
				t.Errorf("first event %+v", ev)
			}
			if ev := <-e.Events(); ev.State != engine.Absent || ev.Reason != engine.Crashed {
				t.Errorf("second event %+v", ev)
			}
			if err := e.Release(t.Context(), m.UUID); err != nil {
				t.Error(err)
			}
			if p, err := first.open(); err == nil {
				p.close()
				t.Error("the machine's first process runs on")
			}
		})
	}
}
