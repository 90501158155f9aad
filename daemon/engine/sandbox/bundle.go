package sandbox

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
)

// Files in the folder of a machine (paths.Machines()/UUID).
const (
	fileConfig  = "config.json" // the OCI bundle
	fileRecord  = "machine.json"
	filePID     = "pid"     // of the sandbox's first process
	fileStatus  = "status"  // the runtime's exit status, at the end
	fileRuntime = "runtime" // the runtime's own state
	fileLog     = "runtime.log"
)

// capabilities are those of root in the qube, over what the qube owns only:
// what init and sudo need. They are no barrier; root in a qube is assumed
// hostile, and the barrier is the user namespace or gVisor.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", // a package manager's work
	"CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETFCAP", // sudo, and installing setuid programs
	"CAP_SYS_CHROOT", "CAP_NET_BIND_SERVICE",
	"CAP_SYS_ADMIN",  // init binds /rw/home on /home
	"CAP_SYS_PTRACE", // a debugger in the qube
}

// spec describes the machine to the runtime.
func (e *Engine) spec(m engine.Machine, t *tree, ids uint32, cgroup string) *specs.Spec {
	at := func(name string) string { return filepath.Join(t.hideout, name) }
	bind := func(from, to string, more ...string) specs.Mount {
		return specs.Mount{Destination: to, Type: "bind", Source: at(from), Options: append([]string{"bind", "nodev"}, more...)}
	}
	memory := int64(m.Memory) << 20
	tmpfs := func(to, mode string, size int64, more ...string) specs.Mount {
		return specs.Mount{Destination: to, Type: "tmpfs", Source: "tmpfs",
			Options: append([]string{"nosuid", "nodev", "mode=" + mode, "size=" + strconv.FormatInt(size, 10)}, more...)}
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		// X clients share pictures through it.
		tmpfs("/dev/shm", "1777", memory/2),
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		tmpfs("/run", "0755", memory/4),
		tmpfs("/tmp", "1777", memory/2),
		bind(treeAgent, engine.AgentDir, "ro", "nosuid"),
		bind(treeLink, engine.AgentLinkDir, "ro", "nosuid", "noexec"),
	}
	if m.Private.Base.Path != "" {
		mode := "rw"
		if m.Private.Overlay == nil && m.Private.Base.ReadOnly {
			mode = "ro"
		}
		mounts = append(mounts, bind(treeRW, "/rw", mode))
	}
	args := e.options.Command
	if len(args) == 0 {
		args = []string{engine.AgentDir + "/" + engine.AgentBinary, "init"}
	}
	idMap := []specs.LinuxIDMapping{{ContainerID: 0, HostID: ids, Size: RangeSize}}
	spec := &specs.Spec{
		Version:  "1.0.2",
		Hostname: string(m.Name),
		Root:     &specs.Root{Path: at(treeRoot), Readonly: m.Root.Overlay == nil && m.Root.Base.ReadOnly},
		Mounts:   mounts,
		Process: &specs.Process{
			Args: args,
			Cwd:  "/",
			Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "container=cubicle"},
			// sudo needs new privileges; they end at the qube.
			NoNewPrivileges: false,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
			Rlimits: []specs.POSIXRlimit{
				rlimit("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, 1<<19),
				rlimit("RLIMIT_NPROC", unix.RLIMIT_NPROC, maxProcesses),
				rlimit("RLIMIT_CORE", unix.RLIMIT_CORE, 0),
			},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.UserNamespace}, {Type: specs.CgroupNamespace},
			},
			UIDMappings: idMap,
			GIDMappings: idMap,
			// The barrier is the user namespace. These tell what others do
			// (each key pressed in dom0 is an interrupt) or are of no use.
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/diskstats", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/pagetypeinfo", "/proc/sched_debug", "/proc/schedstat", "/proc/scsi", "/proc/slabinfo", "/proc/softirqs", "/proc/timer_list", "/proc/vmallocinfo", "/proc/zoneinfo",
				"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if cgroup != "" {
		spec.Linux.CgroupsPath = cgroup
		spec.Linux.Resources = limits(m)
	}
	if e.options.Runtime == Crun {
		spec.Linux.Seccomp = systemCalls()
	} else {
		// gVisor caches files (exclusive access) but for the folders in which
		// dom0 changes something while the qube runs.
		spec.Annotations = make(map[string]string)
		for _, name := range []string{treeAgent, treeLink} {
			prefix := "dev.gvisor.spec.mount." + name + "."
			spec.Annotations[prefix+"source"] = at(name)
			spec.Annotations[prefix+"type"] = "bind"
			spec.Annotations[prefix+"share"] = "shared"
		}
	}
	return spec
}

// rlimit limits a resource to n, or to less where we may not have so much:
// root in the qube cannot raise what dom0 gave.
func rlimit(name string, resource int, n uint64) specs.POSIXRlimit {
	var own unix.Rlimit
	if err := unix.Getrlimit(resource, &own); err == nil {
		n = min(n, own.Max)
	}
	return specs.POSIXRlimit{Type: name, Soft: n, Hard: n}
}

// maxProcesses bounds the processes of one user in the qube. runsc needs many
// threads of its own besides, so that its control group gets more.
const maxProcesses = 4096

func limits(m engine.Machine) *specs.LinuxResources {
	memory := int64(m.Memory) << 20
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory},
		Pids:   &specs.LinuxPids{Limit: 2 * maxProcesses},
	}
	if m.VCPUs > 0 {
		const period = 100_000 // µs
		p, quota := uint64(period), int64(m.VCPUs)*period
		r.CPU = &specs.LinuxCPU{Period: &p, Quota: &quota}
	}
	return r
}

func (e *Engine) writeBundle(m engine.Machine, t *tree, ids uint32, cgroup string) error {
	data, err := json.MarshalIndent(e.spec(m, t, ids, cgroup), "", " ")
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return writeVolatile(filepath.Join(e.dir(m.UUID), fileConfig), data)
}
