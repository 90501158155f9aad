package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine lays files out below a folder as a machine would show them.
func machine(t *testing.T, files map[string]string) Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Machine{Root: root, StateDir: root, TryKVM: func(context.Context) error { return nil }}
}

func TestKVMCountsOnlyWithHardwareAndAnAnswer(t *testing.T) {
	const vmx, plain = "flags\t\t: fpu vmx sse", "flags\t\t: fpu sse vmx2"
	hang := func(context.Context) error { return errors.New("no answer within 5s\nmore") }
	for _, c := range []struct {
		name  string
		files map[string]string
		try   func(context.Context) error
		want  Verdict
	}{
		{"nothing", map[string]string{"proc/cpuinfo": vmx}, nil, Missing},
		{"no flags", map[string]string{"proc/cpuinfo": plain, "dev/kvm": ""}, nil, Broken},
		{"hangs", map[string]string{"proc/cpuinfo": vmx, "dev/kvm": ""}, hang, Broken},
		{"answers", map[string]string{"proc/cpuinfo": vmx, "dev/kvm": ""}, nil, Good},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine(t, c.files)
			if c.try != nil {
				m.TryKVM = c.try
			}
			f := m.kvm(context.Background())
			if f.Verdict != c.want {
				t.Errorf("%v: %+v", f.Verdict, f)
			}
			if (f.Mend == "") != (c.want == Good) {
				t.Errorf("mend %q", f.Mend)
			}
		})
	}
}

func TestFindingsFollowTheMachine(t *testing.T) {
	for _, c := range []struct {
		name    string
		files   map[string]string
		subject string
		want    Verdict
	}{
		{"dom0", map[string]string{"proc/xen/capabilities": "control_d\n"}, "Xen", Good},
		{"guest", map[string]string{"sys/hypervisor/type": "xen\n"}, "Xen", Weak},
		{"bare", nil, "Xen", Missing},
		{"v2", map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu memory pids"}, "cgroups", Good},
		{"hybrid", map[string]string{"sys/fs/cgroup/memory/tasks": "", "sys/fs/cgroup/unified/cgroup.controllers": ""}, "cgroups", Weak},
		{"none", nil, "cgroups", Missing},
		{"vsock", map[string]string{"dev/vhost-vsock": ""}, "vhost-vsock", Good},
		{"iommu", map[string]string{"sys/class/iommu/dmar0/x": ""}, "IOMMU", Good},
		{"no iommu", nil, "IOMMU", Missing},
		{"loop", map[string]string{"dev/loop-control": ""}, "loop devices", Good},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine(t, c.files)
			for _, f := range Run(context.Background(), m.Checks()) {
				if f.Subject == c.subject && f.Verdict != c.want {
					t.Errorf("%+v", f)
				}
				if f.Found == "" || f.Consequence == "" {
					t.Errorf("says too little: %+v", f)
				}
				if f.Verdict == Missing && f.Mend == "" {
					t.Errorf("names no mend: %+v", f)
				}
			}
		})
	}
}

func TestReflinkTellsTheTruth(t *testing.T) {
	dir := t.TempDir()
	f := Machine{Root: "/", StateDir: filepath.Join(dir, "not", "yet")}.reflink(context.Background())
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := os.WriteFile(src, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	works := exec.Command("cp", "--reflink=always", src, dst).Run() == nil
	if (f.Verdict == Good) != works {
		t.Errorf("cp --reflink works: %v, finding %+v", works, f)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".reflink*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestEngineTellsMissingFromBroken(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Verdict
	}{
		{nil, Good},
		{errors.New("hybrid mode not supported"), Broken},
		{fmt.Errorf("runsc: %w", exec.ErrNotFound), Missing},
	} {
		f := Engine("runsc", "gVisor", "", func(context.Context) error { return c.err })(context.Background())
		if f.Verdict != c.want {
			t.Errorf("%v: %+v", c.err, f)
		}
	}
}

func TestPrintNamesConsequenceAndMend(t *testing.T) {
	var b bytes.Buffer
	err := Print(&b, []Finding{{"KVM", Missing, "no /dev/kvm", "no machines", "modprobe kvm"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"KVM missing", "no /dev/kvm", "→ no machines", "mend: modprobe kvm"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %q", want, b.String())
		}
	}
}
