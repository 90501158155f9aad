// Package jail locks qrexecd in before it reads the first byte of a qube:
// the calls that it needs (the table below says what for), UNIX sockets as
// the only kind of socket, its own run folders as the only files, no new
// privileges, no new programs, no core dumps and no debugger.
package jail

import (
	"errors"
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
)

// calls are the system calls of the jailed process, with the reason for each
// group. Whatever is not here fails with EPERM.
var calls = []struct {
	why   string
	names []string
}{
	{"move bytes and descriptors on sockets", []string{"read", "write", "readv", "writev", "recvmsg", "sendmsg", "recvfrom", "sendto", "splice", "pipe2", "shutdown", "close"}},
	{"accept and dial UNIX sockets, and ask who is there", []string{"bind", "listen", "accept4", "connect", "getsockname", "getpeername", "getsockopt", "setsockopt"}},
	{"non-blocking mode, close-on-exec, seals and pipe sizes", []string{"fcntl"}},
	{"the network poller", []string{"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2"}},
	{"the pixel region", []string{"memfd_create", "ftruncate"}},
	{"the sockets' files, within what landlock leaves", []string{"openat", "newfstatat", "fstat", "unlinkat", "unlink", "symlinkat", "renameat", "renameat2", "readlinkat", "fchmodat", "fchmodat2", "fchmod"}},
	{"the Go runtime: memory, never executable", []string{"munmap", "madvise", "mincore", "mremap", "brk"}},
	{"the Go runtime: threads and their locks", []string{"futex", "sched_yield", "sched_getaffinity", "gettid", "getpid", "set_robust_list", "rseq", "exit", "exit_group", "restart_syscall"}},
	{"the Go runtime: signals to itself", []string{"tgkill", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"}},
	{"the Go runtime: time and chance", []string{"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "getrandom"}},
	{"who we are, for the check of peers", []string{"getuid", "geteuid", "getgid", "getegid"}},
}

// guarded are calls that are allowed only with such arguments.
func guarded() []seccomp.NameWithConditions {
	arg := func(n uint32, op seccomp.Operation, v uint64) seccomp.Condition {
		return seccomp.Condition{Argument: n, Operation: op, Value: v}
	}
	one := func(name string, c ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: c}
	}
	return []seccomp.NameWithConditions{
		// No network: neither AF_INET nor netlink, packets or vsock.
		one("socket", arg(0, seccomp.Equal, unix.AF_UNIX)),
		one("socketpair", arg(0, seccomp.Equal, unix.AF_UNIX)),
		// Memory that can be executed is never made.
		one("mmap", arg(2, seccomp.BitsNotSet, unix.PROT_EXEC)),
		one("mprotect", arg(2, seccomp.BitsNotSet, unix.PROT_EXEC)),
		// Threads, not processes.
		one("clone", arg(0, seccomp.BitsSet, unix.CLONE_THREAD)),
	}
}

// policy assembles the tables. clone3 hides its flags behind a pointer: it
// "does not exist", so that its callers fall back to clone.
func policy() seccomp.Policy {
	allow := seccomp.SyscallGroup{Action: seccomp.ActionAllow, NamesWithCondtions: guarded()}
	for _, c := range calls {
		allow.Names = append(allow.Names, c.names...)
	}
	noSuchCall := seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: noSuchCall, Names: []string{"clone3"}},
			allow,
		},
	}
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
		landlock.PathAccess(sockets, root.RunQubes()),
		landlock.PathAccess(llsys.AccessFSResolveUnix, root.Vchan()),
	)
	if err != nil {
		return "", fmt.Errorf("jail: landlock: %w", err)
	}
	err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy()})
	if err != nil {
		return "", fmt.Errorf("jail: seccomp: %w", err)
	}
	return weakness, nil
}

// sockets are the rights to keep sockets and their symbolic links in a folder.
const sockets landlock.AccessFSSet = llsys.AccessFSMakeSock | llsys.AccessFSMakeSym | llsys.AccessFSRemoveFile | llsys.AccessFSResolveUnix
