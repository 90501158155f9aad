// Package jail locks qrexecd in before it reads the first byte of a qube:
// the calls that it needs (the table below says what for), UNIX sockets as
// the only kind of socket, its own run folders as the only files, no new
// privileges, no new programs, no core dumps and no debugger.
package jail

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/seccomp"
)

// calls are the system calls of the jailed process. Whatever is not here
// fails with EPERM.
var calls = seccomp.Filter{
	{Why: "move bytes and descriptors on sockets",
		Calls: []string{"read", "write", "readv", "writev", "recvmsg", "sendmsg", "recvfrom", "sendto", "splice", "pipe2", "shutdown", "close"}},
	{Why: "sockets, but no network: neither AF_INET nor netlink, packets or vsock",
		Calls: []string{"socket", "socketpair"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Equals, Value: unix.AF_UNIX}}},
	{Why: "accept and dial UNIX sockets, and ask who is there",
		Calls: []string{"bind", "listen", "accept4", "connect", "getsockname", "getpeername", "getsockopt", "setsockopt"}},
	{Why: "non-blocking mode, close-on-exec, seals and pipe sizes", Calls: []string{"fcntl"}},
	{Why: "the network poller", Calls: []string{"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2"}},
	{Why: "the pixel region", Calls: []string{"memfd_create", "ftruncate"}},
	{Why: "the sockets' files, within what landlock leaves",
		Calls: []string{"openat", "newfstatat", "fstat", "unlinkat", "unlink", "symlinkat", "renameat", "renameat2", "readlinkat", "fchmodat", "fchmodat2", "fchmod"}},
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
	{Why: "who we are, for the check of peers", Calls: []string{"getuid", "geteuid", "getgid", "getegid"}},
}

// Enter locks the whole process in, for good. It keeps what landlock cannot
// do on an older kernel, which the returned text then names; everything else
// must succeed. Descriptors that are open stay usable. The folders must
// exist.
func Enter(root paths.Root) (weakness string, err error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return "", fmt.Errorf("jail: not dumpable: %w", err)
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil {
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			return "", fmt.Errorf("jail: landlock: %w", err)
		}
		weakness = "the kernel has no landlock: files are not locked away"
	} else if abi < 6 {
		weakness = fmt.Sprintf("landlock %d does not lock abstract sockets away", abi)
	}
	err = landlock.V9.BestEffort().Restrict(
		// In both we listen: in the second for the databases of qubes that
		// come over upstream's sockets.
		landlock.PathAccess(sockets, root.RunQubes(), root.Vchan()),
	)
	if err != nil {
		return "", fmt.Errorf("jail: landlock: %w", err)
	}
	ownThreads := seccomp.Rule{Why: "the Go runtime: signals to its own threads",
		Calls: []string{"tgkill"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Equals, Value: uint32(os.Getpid())}}}
	if err := append(slices.Clone(calls), ownThreads).Load(); err != nil {
		return "", fmt.Errorf("jail: %w", err)
	}
	return weakness, nil
}

// sockets are the rights to keep sockets and their symbolic links in a folder.
const sockets landlock.AccessFSSet = llsys.AccessFSMakeSock | llsys.AccessFSMakeSym | llsys.AccessFSRemoveFile | llsys.AccessFSResolveUnix
