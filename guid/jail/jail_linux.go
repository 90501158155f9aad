// Package jail locks the process that serves one qube's windows in before it
// reads the qube's first byte: its two sockets go on working, and nothing else
// can be opened, started or signalled.
package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cubicle/daemon/seccomp"
)

// calls are the system calls of the jailed process. Whatever is not here
// fails with EPERM. The runtime's look at the machine's processors, which it
// repeats for ever, is switched off in cmd/qubes-guid.
var calls = seccomp.Filter{
	{Why: "the agent's channel, the X server's socket, the log, the supervisor's leash",
		Calls: []string{"read", "write", "close"}},
	{Why: "the network poller", Calls: []string{"epoll_ctl", "epoll_pwait"}},
	{Why: "the Go runtime: memory", Calls: []string{"munmap", "madvise"}},
	{Why: "the Go runtime: memory, but none to execute",
		Calls: []string{"mmap", "mprotect"}, When: []seccomp.Cond{{Arg: 2, Op: seccomp.Lacks, Value: unix.PROT_EXEC}}},
	{Why: "the Go runtime: threads, but no processes",
		Calls: []string{"clone"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Has, Value: unix.CLONE_THREAD | unix.CLONE_VM}}},
	{Why: "the Go runtime: locks and the end of threads",
		Calls: []string{"futex", "sched_yield", "gettid", "getpid", "exit", "exit_group"}},
	{Why: "libc: what a new thread tells the kernel of itself", Calls: []string{"set_robust_list", "rseq"}},
	{Why: "the kernel: a sleep goes on after the process was stopped", Calls: []string{"restart_syscall"}},
	{Why: "the Go runtime: signal handlers", Calls: []string{"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"}},
	{Why: "the Go runtime: time and chance",
		Calls: []string{"nanosleep", "clock_gettime", "getrandom"}},
}

// Memory of the jailed process. A session needs a few MB, its queues 20 at
// most; the collector works harder above the soft limit, and the process ends
// at the hard one.
const (
	softMemory = 128 << 20
	hardMemory = 512 << 20
)

// limit bounds what the process may use of the machine, for good.
func limit() error {
	debug.SetMemoryLimit(softMemory)
	for _, l := range []struct {
		name     string
		resource int
		max      uint64
	}{
		// The Go runtime reserves addresses in plenty, which are not counted
		// here as long as they are not writable.
		{"memory", unix.RLIMIT_DATA, hardMemory},
		{"core dumps", unix.RLIMIT_CORE, 0}, // it holds what the user types
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("read the limit of %s: %w", l.name, err)
		}
		bound := min(l.max, now.Max)
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: bound, Max: bound}); err != nil {
			return fmt.Errorf("limit the %s: %w", l.name, err)
		}
	}
	return nil
}

// Enter locks the whole process in, for good. Descriptors that are open stay
// usable. What an older kernel's landlock cannot do the returned text names;
// everything else must succeed.
func Enter() (weakness string, err error) {
	_, _ = time.Now().Zone() // reads the time zone's file, which the log needs later
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return "", fmt.Errorf("jail: not dumpable: %w", err)
	}
	if err := limit(); err != nil {
		return "", fmt.Errorf("jail: %w", err)
	}
	abi, err := llsys.LandlockGetABIVersion()
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP):
		weakness = "the kernel has no landlock: only the filter of system calls keeps files away"
	case err != nil:
		return "", fmt.Errorf("jail: landlock: %w", err)
	case abi < 6:
		weakness = fmt.Sprintf("landlock %d does not lock abstract sockets away: only the filter of system calls does", abi)
	}
	if err := landlock.V9.BestEffort().Restrict(); err != nil {
		return "", fmt.Errorf("jail: landlock: %w", err)
	}
	ownThreads := seccomp.Rule{Why: "the Go runtime: signals to its own threads",
		Calls: []string{"tgkill"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Equals, Value: uint32(os.Getpid())}}}
	if err := append(slices.Clone(calls), ownThreads).Load(); err != nil {
		return "", fmt.Errorf("jail: %w", err)
	}
	return weakness, nil
}
