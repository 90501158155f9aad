package filecopy

import (
	"errors"
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cubicle/daemon/seccomp"
)

// calls are the system calls of a process that unpacks. Whatever is not here
// fails with EPERM.
var calls = seccomp.Filter{
	{Why: "the stream and the answer, which are open", Calls: []string{"read", "write", "close", "fcntl"}},
	{Why: "files, within what landlock leaves",
		Calls: []string{"openat", "mkdirat", "symlinkat", "linkat", "unlinkat", "fchmod", "utimensat", "newfstatat", "fstat", "syncfs", "sync"}},
	{Why: "the network poller", Calls: []string{"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2"}},
	{Why: "the Go runtime: memory", Calls: []string{"munmap", "madvise", "mincore", "mremap", "brk"}},
	{Why: "the Go runtime: memory, but none to execute",
		Calls: []string{"mmap", "mprotect"}, When: []seccomp.Cond{{Arg: 2, Op: seccomp.Lacks, Value: unix.PROT_EXEC}}},
	{Why: "the Go runtime: threads, but no processes",
		Calls: []string{"clone"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Has, Value: unix.CLONE_THREAD | unix.CLONE_VM}}},
	{Why: "the Go runtime: locks and the end of threads",
		Calls: []string{"futex", "sched_yield", "sched_getaffinity", "gettid", "getpid", "set_robust_list", "rseq", "exit", "exit_group", "restart_syscall"}},
	{Why: "the Go runtime: signal handlers", Calls: []string{"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"}},
	{Why: "the Go runtime: time and chance",
		Calls: []string{"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "getrandom"}},
}

// unpack are the rights below the folder that a stream is unpacked into:
// nothing that is there already can be read or written to.
const unpack landlock.AccessFSSet = llsys.AccessFSWriteFile | llsys.AccessFSReadDir | llsys.AccessFSMakeReg | llsys.AccessFSMakeDir |
	llsys.AccessFSMakeSym | llsys.AccessFSRemoveFile | llsys.AccessFSRefer

// Jail locks the whole process in, for good, before it reads the first byte of
// a stranger: only what is in dir can be reached, no program started, no
// connection made. What the kernel of the qube cannot do is left out; the
// rules of the unpacker hold without it.
func Jail(dir string) error {
	if err := landlock.V9.BestEffort().Restrict(landlock.PathAccess(unpack, dir)); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	ownThreads := seccomp.Rule{Why: "the Go runtime: signals to its own threads",
		Calls: []string{"tgkill"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Equals, Value: uint32(os.Getpid())}}}
	err := append(calls[:len(calls):len(calls)], ownThreads).Load()
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}
