package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
)

func TestRanges(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "subuid")
	taken := fmt.Sprintf("alice:100000:65536\nbob:%d:%d\nnonsense\n", firstRange, 2*RangeSize+1)
	if err := os.WriteFile(sub, []byte(taken), 0o644); err != nil {
		t.Fatal(err)
	}
	rootA, rootB := paths.Root(t.TempDir()), paths.Root(t.TempDir())
	ranges := func() *Ranges {
		return &Ranges{Path: filepath.Join(dir, "state", "ranges.json"), Subordinate: []string{sub, filepath.Join(dir, "missing")}}
	}
	get := func(root paths.Root, uuid string) uint32 {
		t.Helper()
		base, err := ranges().For(root, uuid)
		if err != nil {
			t.Fatal(err)
		}
		if base%RangeSize != 0 {
			t.Errorf("the range of %s begins at %d", uuid, base)
		}
		return base
	}
	first := get(rootA, "one")
	if first != firstRange+3*RangeSize {
		t.Errorf("the first range begins at %d, in or after somebody's own", first)
	}
	if again := get(rootA, "one"); again != first {
		t.Errorf("the second time the range is %d, before %d", again, first)
	}
	seen := map[uint32]bool{first: true}
	for _, base := range []uint32{get(rootA, "two"), get(rootB, "one"), get(rootB, "two")} {
		if seen[base] {
			t.Errorf("the range at %d is given out twice", base)
		}
		seen[base] = true
	}
	// A root that is gone gives its ranges back.
	if err := os.RemoveAll(string(rootA)); err != nil {
		t.Fatal(err)
	}
	if base := get(rootB, "three"); base != first {
		t.Errorf("the new range begins at %d, not where one was given back, %d", base, first)
	}
	// Somebody's new range takes ours away.
	taken += fmt.Sprintf("carol:%d:1\n", first+5)
	if err := os.WriteFile(sub, []byte(taken), 0o644); err != nil {
		t.Fatal(err)
	}
	if base := get(rootB, "three"); base == first {
		t.Error("the range overlaps one of /etc/subuid")
	}
}

func TestControllers(t *testing.T) {
	const (
		v1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
			"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
			"40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
		unified  = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
		v2       = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
		sealed   = "41 31 0:38 / /sys/fs/cgroup ro,relatime - cgroup2 cgroup2 rw\n"
		confined = "41 31 0:38 /docker/1 /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
	)
	for name, test := range map[string]struct {
		mounts  string
		v2      bool
		folders map[string]string
	}{
		"version 1": {v1, false, map[string]string{"cpu": "/sys/fs/cgroup/cpu", "cpuacct": "/sys/fs/cgroup/cpu", "memory": "/sys/fs/cgroup/memory"}},
		"hybrid":    {v1 + unified, false, map[string]string{"cpu": "/sys/fs/cgroup/cpu", "cpuacct": "/sys/fs/cgroup/cpu", "memory": "/sys/fs/cgroup/memory"}},
		"version 2": {v2, true, map[string]string{"": "/sys/fs/cgroup"}},
		"read-only": {sealed, false, nil},
		"part":      {confined, false, nil},
		"nothing":   {"", false, nil},
	} {
		c, err := parseControllers(bufio.NewScanner(strings.NewReader(test.mounts)), func(string) bool { return true })
		if err != nil || c.v2 != test.v2 || fmt.Sprint(c.folders) != fmt.Sprint(test.folders) && len(c.folders)+len(test.folders) > 0 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestHideoutHidesNothingNeeded(t *testing.T) {
	if dir, err := hideout("/home/x", "/mntx"); err != nil || dir != "/mnt" {
		t.Errorf("hideout() = %q, %v", dir, err)
	}
	dir, err := hideout("/mnt/data/cubicle")
	if err != nil || dir == "/mnt" {
		t.Errorf("below /mnt: %q, %v", dir, err)
	}
	if _, err := hideout("/mnt/a", "/srv/a", "/media", "/opt/b"); !errors.Is(err, engine.ErrUnusable) {
		t.Errorf("with every folder needed: %v", err)
	}
}

func TestMissingRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root, root is what is missing")
	}
	for _, runtime := range []string{Runsc, Crun} {
		e, err := New(Options{Runtime: runtime, Binary: "/no/such/" + runtime, Root: paths.Root(t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		err = e.Probe(t.Context())
		if !errors.Is(err, engine.ErrUnusable) || !strings.Contains(err.Error(), mend[runtime]) {
			t.Errorf("%s: %v", runtime, err)
		}
	}
	if _, err := New(Options{Runtime: "docker"}); err == nil {
		t.Error("an unknown runtime is taken")
	}
}

func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("we are root")
	}
	e, err := New(Options{Runtime: Crun, Root: paths.Root(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Probe(t.Context()); !errors.Is(err, engine.ErrUnusable) || !strings.Contains(err.Error(), "root") {
		t.Errorf("Probe: %v", err)
	}
}

func TestEventsKeepOrderWithoutAReader(t *testing.T) {
	q := newQueue()
	const n = 1000
	for i := range n {
		q.add(engine.Event{Detail: fmt.Sprint(i)})
	}
	for i := range n {
		if ev := <-q.out; ev.Detail != fmt.Sprint(i) {
			t.Fatalf("event %d is %q", i, ev.Detail)
		}
	}
	q.close()
	q.add(engine.Event{})
	if ev, ok := <-q.out; ok {
		t.Errorf("after the end there is %+v", ev)
	}
}

func TestProcessIsTheVeryOne(t *testing.T) {
	p, err := openProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if again, err := p.identity.open(); err != nil {
		t.Error(err)
	} else {
		again.close()
	}
	other := p.identity
	other.Start++
	if _, err := other.open(); !errors.Is(err, unix.ESRCH) {
		t.Errorf("another process of the same number: %v", err)
	}
	if err := p.wait(0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for ourselves: %v", err)
	}
}

// What the bundle gives away is a matter of review: it is kept as a text.
func TestBundleDeniesWhatItShould(t *testing.T) {
	for _, runtime := range []string{Runsc, Crun} {
		e, err := New(Options{Runtime: runtime, Root: paths.Root(t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		spec := e.spec(engine.Machine{UUID: "00000000-0000-4000-8000-000000000000", Name: "work", Memory: 400, VCPUs: 2}, &tree{hideout: "/mnt"}, firstRange, "/cubicle/x/qube")
		spec.Process.Rlimits = nil // as far as this host allows
		if spec.Linux.Seccomp != nil {
			spec.Linux.Seccomp = &specs.LinuxSeccomp{} // TestFilter looks at it
		}
		data, err := json.MarshalIndent(spec, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, '\n')
		golden := filepath.Join("testdata", "config-"+runtime+".json")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != string(data) {
			t.Errorf("%s differs from the bundle; UPDATE_GOLDEN=1 writes it anew:\n%s", golden, data)
		}
	}
}

func FuzzControllers(f *testing.F) {
	f.Add("41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n")
	f.Add("32 31 0:29 / /x rw - cgroup cgroup rw,cpu\n - - \n")
	f.Add("")
	f.Fuzz(func(t *testing.T, mounts string) {
		c, _ := parseControllers(bufio.NewScanner(strings.NewReader(mounts)), func(string) bool { return true })
		for name, dir := range c.folders {
			if dir == "" {
				t.Errorf("the controller %q is nowhere", name)
			}
		}
	})
}
