// Package doctor finds out what this machine offers to run qubes with, what
// follows from it, and how to mend what is missing. Every finding comes from
// trying, not from guessing by version.
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
	"time"

	"golang.org/x/sys/unix"
)

// Verdict is how a finding turned out.
type Verdict int

// The verdicts.
const (
	Good    Verdict = iota // it is there and works
	Weak                   // something works, with a disadvantage
	Missing                // it is not there
	Broken                 // it is there and does not work
)

func (v Verdict) String() string {
	return [...]string{"ok", "weak", "missing", "broken"}[v]
}

// Finding is the result of one check.
type Finding struct {
	Subject     string
	Verdict     Verdict
	Found       string // what was seen
	Consequence string // what it means for the qubes
	Mend        string // what to do about it; empty when nothing
}

// Check looks for one thing.
type Check func(ctx context.Context) Finding

// Machine says where to look; tests point it to folders of their own.
type Machine struct {
	Root string // of the file system: "/"
	// TryKVM runs a tiny guest; nil result means that it answered.
	TryKVM func(ctx context.Context) error
	// StateDir is the folder in which qubes would be kept.
	StateDir string
}

// Checks returns all checks but those of the container engines, which bring
// their own (Engine).
func (m Machine) Checks() []Check {
	return []Check{m.xen, m.kvm, m.vsock, m.cgroups, m.loop, m.reflink, m.lvm, m.iommu}
}

// Run runs checks one after the other, each with a limit of its own.
func Run(ctx context.Context, checks []Check) []Finding {
	var findings []Finding
	for _, check := range checks {
		c, cancel := context.WithTimeout(ctx, 20*time.Second)
		findings = append(findings, check(c))
		cancel()
	}
	return findings
}

// Engine returns the check of an engine: probe runs something in it.
func Engine(name, isolation, weakness string, probe func(context.Context) error) Check {
	return func(ctx context.Context) Finding {
		f := Finding{Subject: name, Found: "a test container ran", Consequence: "qubes can run in it; isolation: " + isolation}
		if weakness != "" {
			f.Consequence += " — " + weakness
		}
		if err := probe(ctx); err != nil {
			f.Verdict, f.Found, f.Consequence = Broken, firstLine(err.Error()), "no qube can run in "+name
			f.Mend = "see the reason beside it; `make setup` installs " + name
			if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
				f.Verdict = Missing
			}
		}
		return f
	}
}

func (m Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.Root}, elem...)...)
}

func (m Machine) read(elem ...string) string {
	b, err := os.ReadFile(m.path(elem...))
	if err != nil {
		return "" // an absent file is what the caller asks about
	}
	return strings.TrimSpace(string(b))
}

func (m Machine) exists(elem ...string) bool {
	_, err := os.Stat(m.path(elem...))
	return err == nil
}

func (m Machine) xen(context.Context) Finding {
	f := Finding{Subject: "Xen"}
	switch {
	case strings.Contains(m.read("proc/xen/capabilities"), "control_d"):
		f.Found, f.Consequence = "this system is dom0 of a Xen host", "the strongest isolation is possible"
	case m.read("sys/hypervisor/type") == "xen":
		f.Verdict, f.Found = Weak, "this system is itself a Xen guest"
		f.Consequence = "Xen cannot be used from here"
	default:
		f.Verdict, f.Found = Missing, "not running under Xen"
		f.Consequence = "qubes cannot be Xen domains"
		f.Mend = "install xen-system-amd64 and boot its entry"
	}
	return f
}

func (m Machine) kvm(ctx context.Context) Finding {
	f := Finding{Subject: "KVM", Consequence: "qubes cannot be hardware-isolated machines"}
	flags := strings.Fields(cpuFlags(m.read("proc/cpuinfo")))
	hardware := false
	for _, flag := range flags {
		hardware = hardware || flag == "vmx" || flag == "svm"
	}
	switch {
	case !m.exists("dev/kvm"):
		f.Verdict, f.Found = Missing, "no /dev/kvm"
		f.Mend = "enable virtualisation in the firmware and load kvm_intel or kvm_amd"
		if !hardware {
			f.Found = "no /dev/kvm, and the processor shows neither vmx nor svm"
		}
	case !hardware:
		f.Verdict, f.Found = Broken, "/dev/kvm is there, but the processor shows neither vmx nor svm"
		f.Mend = "enable virtualisation in the firmware, or nested virtualisation on the outer host"
	default:
		if err := m.TryKVM(ctx); err != nil {
			f.Verdict, f.Found = Broken, "a tiny guest did not answer: "+firstLine(err.Error())
			f.Mend = "read the kernel's log; nested virtualisation may be off on the outer host"
			return f
		}
		f.Found, f.Consequence = "a tiny guest answered", "hardware-isolated qubes are possible"
	}
	return f
}

func cpuFlags(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return flags
		}
	}
	return ""
}

func (m Machine) vsock(context.Context) Finding {
	if m.exists("dev/vhost-vsock") {
		return Finding{Subject: "vhost-vsock", Found: "/dev/vhost-vsock", Consequence: "virtual machines get fast channels"}
	}
	return Finding{
		Subject: "vhost-vsock", Verdict: Missing, Found: "no /dev/vhost-vsock",
		Consequence: "virtual machines talk through a virtio-serial port, which is slower; sandboxes are not concerned",
		Mend:        "modprobe vhost_vsock",
	}
}

func (m Machine) cgroups(context.Context) Finding {
	f := Finding{Subject: "cgroups"}
	controllers := m.read("sys/fs/cgroup/cgroup.controllers")
	v1 := m.exists("sys/fs/cgroup/memory/memory.limit_in_bytes") || m.exists("sys/fs/cgroup/memory/tasks")
	switch {
	case strings.Contains(controllers, "memory"):
		f.Found, f.Consequence = "version 2, controllers "+controllers, "memory and processes of qubes are limited and counted"
	case v1:
		f.Verdict, f.Found = Weak, "version 1 or hybrid, with a memory controller"
		f.Consequence = "limits work; crun is started in a mount namespace of its own to bear it"
		f.Mend = "boot with systemd.unified_cgroup_hierarchy=1 (optional)"
	default:
		f.Verdict, f.Found = Missing, "no memory controller"
		f.Consequence = "a qube may use up all memory of this machine"
		f.Mend = "mount cgroup2 at /sys/fs/cgroup, or boot with cgroup_enable=memory"
	}
	return f
}

func (m Machine) loop(context.Context) Finding {
	if m.exists("dev/loop-control") {
		return Finding{Subject: "loop devices", Found: "/dev/loop-control", Consequence: "volumes can be mounted for sandboxes"}
	}
	return Finding{
		Subject: "loop devices", Verdict: Missing, Found: "no /dev/loop-control",
		Consequence: "sandboxes cannot mount their volumes", Mend: "modprobe loop",
	}
}

// reflink tries FICLONE where the qubes are kept.
func (m Machine) reflink(context.Context) Finding {
	f := Finding{Subject: "reflink"}
	err := tryReflink(existing(m.StateDir))
	switch {
	case err == nil:
		f.Found, f.Consequence = "files can be cloned in "+m.StateDir, "clones and revisions take no time and no room"
	case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY):
		f.Verdict, f.Found = Weak, "the file system of "+m.StateDir+" cannot share blocks"
		f.Consequence = "clones of templates and standalone qubes are copies"
		f.Mend = "keep the state on btrfs or XFS"
	default:
		f.Verdict, f.Found = Broken, err.Error()
		f.Consequence = "it is not known whether files can be cloned"
		f.Mend = "run as a user who may write there"
	}
	return f
}

// existing returns the nearest folder above dir that is there.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func tryReflink(dir string) error {
	src, err := os.CreateTemp(dir, ".reflink-*")
	if err != nil {
		return err
	}
	defer os.Remove(src.Name())
	defer src.Close()
	dst, err := os.CreateTemp(dir, ".reflink-*")
	if err != nil {
		return err
	}
	defer os.Remove(dst.Name())
	defer dst.Close()
	if _, err := src.Write(bytes.Repeat([]byte{1}, 4096)); err != nil {
		return err
	}
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

func (m Machine) lvm(ctx context.Context) Finding {
	f := Finding{Subject: "LVM", Consequence: "qubes are kept in image files"}
	tool, err := exec.LookPath("vgs")
	if err != nil {
		f.Verdict, f.Found, f.Mend = Missing, "no LVM tools", "apt-get install lvm2 (optional: for thin volumes)"
		return f
	}
	out, err := exec.CommandContext(ctx, tool, "--noheadings", "-o", "vg_name").Output()
	if err != nil {
		f.Verdict, f.Found, f.Mend = Broken, "vgs: "+firstLine(err.Error()), "run as root"
		return f
	}
	groups := strings.Fields(string(out))
	if len(groups) == 0 {
		f.Verdict, f.Found, f.Mend = Missing, "no volume group", "create a thin pool (optional)"
		return f
	}
	f.Found = "volume groups " + strings.Join(groups, ", ")
	f.Consequence = "a thin pool may keep the qubes"
	return f
}

func (m Machine) iommu(context.Context) Finding {
	units, err := os.ReadDir(m.path("sys/class/iommu"))
	if err == nil && len(units) > 0 {
		return Finding{Subject: "IOMMU", Found: fmt.Sprintf("%d unit(s)", len(units)), Consequence: "devices can be given to virtual machines safely"}
	}
	return Finding{
		Subject: "IOMMU", Verdict: Missing, Found: "no unit in /sys/class/iommu",
		Consequence: "no PCI device can be given to a qube; network and USB stay in dom0",
		Mend:        "enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or amd_iommu=on",
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
