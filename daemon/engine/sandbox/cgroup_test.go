package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// version2 is a tree of files as version 2 of control groups has them.
func version2(t *testing.T) (group, string) {
	t.Helper()
	dir := t.TempDir()
	g := group{controllers{v2: true, folders: map[string]string{"": dir}}, "00000000-0000-4000-8000-000000000001"}
	return g, filepath.Join(dir, cgroupParent, g.uuid)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestVersion2WithoutControllers(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]bool{"cpuset cpu io memory hugetlb pids rdma misc\n": true, "cpu pids\n": false, "": false} {
		write(t, filepath.Join(dir, "cgroup.controllers"), text)
		if got := complete(dir); got != want {
			t.Errorf("with %q it is complete: %v", text, got)
		}
	}
	if complete(filepath.Join(dir, "missing")) {
		t.Error("nothing is complete")
	}
}

func TestVersion2Create(t *testing.T) {
	g, own := version2(t)
	if err := g.create(400 << 20); err != nil {
		t.Fatal(err)
	}
	limit, err := os.ReadFile(filepath.Join(own, "memory.max"))
	if err != nil || string(limit) != "419430400" {
		t.Errorf("the limit is %q, %v", limit, err)
	}
	// Each level passes the controllers on to the next: the runtime's group
	// is below ours. A write adds one controller; the last stays in a file.
	for _, dir := range []string{g.folders[""], filepath.Dir(own), own} {
		last, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil || string(last) != "+cpu" {
			t.Errorf("%s passes on %q, %v", dir, last, err)
		}
	}
	if got, want := g.path(), "/cubicle/"+g.uuid+"/qube"; got != want {
		t.Errorf("the runtime's group is %s, want %s", got, want)
	}
}

func TestVersion2Figures(t *testing.T) {
	g, own := version2(t)
	write(t, filepath.Join(own, "memory.current"), "9000\n")
	write(t, filepath.Join(own, "memory.stat"), "anon 5000\ninactive_file 4000\nactive_file 1\n")
	write(t, filepath.Join(own, "cpu.stat"), "usage_usec 1500\nuser_usec 1000\n")
	write(t, filepath.Join(own, "cgroup.procs"), "")
	write(t, filepath.Join(own, "qube/cgroup.procs"), "4001\n4002\n")
	write(t, filepath.Join(own, "qube/inner/cgroup.procs"), "4003\n")
	if used, err := g.memoryUse(); err != nil || used != 5000 {
		t.Errorf("memory in use: %d, %v", used, err)
	}
	if used, err := g.cpuTime(); err != nil || used != 1500*time.Microsecond {
		t.Errorf("processor time: %v, %v", used, err)
	}
	if pids := g.processes(); !slices.Equal(slices.Sorted(slices.Values(pids)), []int{4001, 4002, 4003}) {
		t.Errorf("processes: %v", pids)
	}
}

func TestVersion2OutOfMemory(t *testing.T) {
	g, own := version2(t)
	events := filepath.Join(own, "memory.events")
	write(t, events, "low 0\noom 2\noom_kill 2\n")
	w, err := watchMemory(g)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if w.killed() {
		t.Error("kills of an earlier run count")
	}
	write(t, events, "low 0\noom 3\noom_kill 3\n")
	if !w.killed() {
		t.Error("a kill does not count")
	}
}

func TestVersion2Freeze(t *testing.T) {
	g, own := version2(t)
	write(t, filepath.Join(own, "cgroup.events"), "populated 1\nfrozen 0\n")
	for _, frozen := range []bool{true, false} {
		word := map[bool]string{true: "1", false: "0"}[frozen]
		done := make(chan error, 1)
		go func() { done <- g.freeze(frozen) }()
		// The kernel's part.
		for {
			if got, err := os.ReadFile(filepath.Join(own, "cgroup.freeze")); err == nil && string(got) == word {
				break
			}
			time.Sleep(time.Millisecond)
		}
		write(t, filepath.Join(own, "cgroup.events"), "populated 1\nfrozen "+word+"\n")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got, err := g.frozen(); err != nil || got != frozen {
			t.Errorf("frozen is %v, %v", got, err)
		}
	}
}

// The kernel's own version 2, wherever it is mounted: what it does without
// controllers (processes, freezing, removal) is tried for real.
func TestVersion2Kernel(t *testing.T) {
	dir := unified
	if fsType(dir) != unix.CGROUP2_SUPER_MAGIC {
		if dir = cgroupRoot; fsType(dir) != unix.CGROUP2_SUPER_MAGIC {
			t.Skip("no control groups of version 2 here")
		}
	}
	if os.Geteuid() != 0 || unix.Access(dir, unix.W_OK) != nil {
		t.Skip("the control groups cannot be written")
	}
	g := group{controllers{v2: true, folders: map[string]string{"": dir}}, "00000000-0000-4000-8000-" + time.Now().Format("150405000000")}
	own := filepath.Join(dir, cgroupParent, g.uuid)
	err := g.create(64 << 20)
	defer func() {
		if err := g.remove(5 * time.Second); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(own); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the group stays: %v", err)
		}
	}()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(own, cgroupChild)
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `echo $$ >"$0/cgroup.procs" && echo in && exec sleep 60`, child)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		killAll(g)
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("the process ended with %v", err)
		}
	}()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if pids := g.processes(); !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("processes %v, want %d", pids, cmd.Process.Pid)
	}
	for _, frozen := range []bool{true, false} {
		if err := g.freeze(frozen); err != nil {
			t.Fatal(err)
		}
		if got, err := g.frozen(); err != nil || got != frozen {
			t.Errorf("frozen is %v, %v", got, err)
		}
	}
}
