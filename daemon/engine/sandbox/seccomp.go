package sandbox

import (
	"math/bits"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The filter of crun's qubes: with that engine, qube and dom0 share one
// kernel, and each call that a qube may make is a part of that kernel which
// hostile programs reach. So only what programs need is let through (allowed,
// and rules below where it depends on arguments). What is known and kept away
// stands in denied, with the reason; it fails with EPERM. A call that neither
// table knows fails with ENOSYS, as on a kernel that is older than the call,
// which programs are prepared for.
//
// The filter knows the machine's own calls alone: 32-bit programs, which come
// in by another door with another table of calls, are ended by the kernel.
//
// gVisor does not need the filter: its qubes talk to gVisor's kernel, whose
// own filter is far tighter.

// calls is a row of a table.
type calls struct {
	why   string
	names []string
}

// allowed are the system calls that any program in the qube may make, root's
// included: the kernel judges them by the qube's user namespace.
var allowed = []calls{
	{"files: open and close", []string{"open", "openat", "openat2", "creat", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "flock", "umask"}},
	{"files: read and write", []string{"read", "write", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2", "lseek", "sendfile", "copy_file_range", "readahead", "fadvise64"}},
	{"files: size and durability", []string{"truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync"}},
	{"files: look at", []string{"stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents", "getdents64", "getcwd", "cachestat"}},
	{"files: change names and folders", []string{"rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chdir", "fchdir", "chroot"}},
	{"files: change owner, mode and times", []string{"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat", "utimensat"}},
	{"files: extended attributes", []string{"setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "removexattr", "lremovexattr", "fremovexattr", "setxattrat", "getxattrat", "listxattrat", "removexattrat"}},
	{"files: named pipes; a device file opens nothing in a user namespace", []string{"mknod", "mknodat"}},
	{"files: what changed in a folder", []string{"inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch"}},
	{"pipes, and data from one to the other", []string{"pipe", "pipe2", "splice", "tee", "vmsplice"}},
	{"waiting for descriptors", []string{"poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "signalfd", "signalfd4"}},
	{"the older way to read and write in the background, which databases use", []string{"io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents"}},
	{"sockets, of the families that the rules allow", []string{"bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg"}},
	{"memory", []string{"brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "mlock", "mlock2", "munlock", "mlockall", "munlockall", "remap_file_pages", "membarrier", "mseal", "pkey_alloc", "pkey_free", "pkey_mprotect", "memfd_create", "map_shadow_stack", "get_mempolicy"}},
	{"shared memory, semaphores and queues of the qube's own IPC namespace", []string{"shmget", "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"}},
	{"processes: start and end", []string{"fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "pidfd_open", "pidfd_send_signal"}},
	{"processes: who am I", []string{"getpid", "getppid", "gettid", "getpgid", "getpgrp", "getsid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "capget", "uname", "getcpu", "sysinfo", "times", "getrusage"}},
	{"processes: become another user of the qube", []string{"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset", "setsid", "setpgid"}},
	{"processes: signals", []string{"kill", "tkill", "tgkill", "pause", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack", "restart_syscall"}},
	{"processes: limits and priority, never above what dom0 gave", []string{"getrlimit", "setrlimit", "prlimit64", "getpriority", "setpriority", "ioprio_get", "ioprio_set", "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_setparam", "sched_getscheduler", "sched_setscheduler", "sched_getattr", "sched_setattr", "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval"}},
	{"threads", []string{"futex", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue", "set_robust_list", "get_robust_list", "set_tid_address", "rseq", "arch_prctl", "prctl"}},
	{"time, to read and to wait for", []string{"time", "gettimeofday", "clock_gettime", "clock_getres", "nanosleep", "clock_nanosleep", "alarm", "getitimer", "setitimer", "timer_create", "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete", "timerfd_create", "timerfd_settime", "timerfd_gettime"}},
	{"chance", []string{"getrandom"}},
	{"a debugger in the qube", []string{"ptrace", "process_vm_readv", "process_vm_writev"}},
	{"programs that lock themselves in further", []string{"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}},
	{"the names of the qube, in its own namespace", []string{"sethostname", "setdomainname"}},
}

// denied are the system calls that no program in the qube may make.
var denied = []calls{
	{"not split into user namespaces: the kernel's keys", []string{"keyctl", "add_key", "request_key"}},
	{"programs in the kernel, and its counters", []string{"bpf", "perf_event_open", "uretprobe"}},
	{"a second way to every call, past this filter", []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}},
	{"race windows held open for exploits", []string{"userfaultfd"}},
	{"another kernel, or parts of it", []string{"kexec_load", "kexec_file_load", "reboot", "create_module", "init_module", "finit_module", "delete_module", "get_kernel_syms", "query_module"}},
	{"parsers of file systems, and mounts past the rules", []string{"fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "open_tree_attr", "move_mount", "mount_setattr", "pivot_root", "swapon", "swapoff", "quotactl", "quotactl_fd"}},
	{"takes away the masks over parts of /proc and /sys; init makes volumes read-only instead at the end", []string{"umount2"}},
	{"file handles reach past the root folder", []string{"open_by_handle_at", "name_to_handle_at"}},
	{"other namespaces", []string{"setns"}},
	{"dom0's clock and log", []string{"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "syslog", "acct"}},
	{"placement of dom0's memory", []string{"mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}},
	{"memory that dom0 cannot look into or write out", []string{"memfd_secret"}},
	{"hardware, and code of 16 bits", []string{"iopl", "ioperm", "modify_ldt", "set_thread_area", "get_thread_area"}},
	{"dom0's consoles", []string{"vhangup"}},
	{"watching whole file systems", []string{"fanotify_init", "fanotify_mark"}},
	{"other processes' files and memory, beyond a debugger's", []string{"kcmp", "process_madvise", "process_mrelease", "pidfd_getfd"}},
	{"dom0's security modules", []string{"lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules"}},
	{"old and unused", []string{"uselib", "ustat", "sysfs", "lookup_dcookie", "nfsservctl", "_sysctl", "getpmsg", "putpmsg", "afs_syscall", "tuxcall", "security", "vserver", "epoll_ctl_old", "epoll_wait_old"}},
}

// absent are calls that must look as if the kernel were too old for them: who
// is told EPERM gives up instead of taking the older way.
var absent = []calls{
	{"its flags lie in memory, which no filter sees; libraries then use clone", []string{"clone3"}},
	{"lists of mounts; /proc/self/mountinfo has them", []string{"statmount", "listmount"}},
}

// Namespaces that a qube's program may not make: each gives it more of the
// kernel to talk to. Those of processes and networks are left to browsers,
// which lock their own processes into them.
const (
	keptNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	allNamespaces  = keptNamespaces | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME
)

// Protocols of the internet that a qube may speak; the kernel loads modules
// for others at the mere wish.
var protocols = []uint64{0, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6}

// systemCalls is the filter of crun's qubes.
func systemCalls() *specs.LinuxSeccomp {
	noSuchCall := uint(unix.ENOSYS)
	f := filter{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &noSuchCall}}
	for _, row := range allowed {
		f.allow(row.names)
	}
	for _, row := range denied {
		f.refuse(unix.EPERM, row.names)
	}
	for _, row := range absent {
		f.refuse(unix.ENOSYS, row.names)
	}
	f.flags("clone", 0, keptNamespaces)
	f.flags("unshare", 0, allNamespaces)
	f.mounts()
	f.sockets()
	// Types into somebody else's terminal. The kernel looks at the low half
	// of the number alone, so each of its bits is compared: a number that
	// differs in one is another request.
	f.refuse(unix.EPERM, []string{"ioctl"}, masked(1, 0xffffffff, unix.TIOCSTI))
	for bit := range 32 {
		f.allow([]string{"ioctl"}, masked(1, 1<<bit, ^uint64(unix.TIOCSTI)))
	}
	// The ways to run that only old or foreign programs want have known
	// weaknesses; debuggers switch the random addresses off.
	const noRandomAddresses, query = 0x0040000, 0xffffffff
	for _, persona := range []uint64{0, noRandomAddresses, query} {
		f.allow([]string{"personality"}, equal(0, persona))
	}
	return f.LinuxSeccomp
}

// filter is a filter that is being written. Rules of one call exclude each
// other, so that their order does not matter.
type filter struct{ *specs.LinuxSeccomp }

func (f filter) allow(names []string, args ...specs.LinuxSeccompArg) {
	f.Syscalls = append(f.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args})
}

func (f filter) refuse(errno unix.Errno, names []string, args ...specs.LinuxSeccompArg) {
	number := uint(errno)
	f.Syscalls = append(f.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: &number, Args: args})
}

// flags allows a call unless one of the bits is set in its argument.
func (f filter) flags(name string, arg uint, forbidden uint64) {
	f.allow([]string{name}, masked(arg, forbidden, 0))
	for rest := forbidden; rest != 0; rest &= rest - 1 {
		bit := uint64(1) << bits.TrailingZeros64(rest)
		// Bits below it are clear, so that one rule alone fits.
		f.refuse(unix.EPERM, []string{name}, masked(arg, forbidden&(bit|(bit-1)), bit))
	}
}

// mounts lets init show at another place what is mounted already, with all
// that is mounted below, which includes the masks over parts of /proc, and
// make it read-only: no file system is made, no device is read.
func (f filter) mounts() {
	name := []string{"mount"}
	const bind, all, remount, readOnly = unix.MS_BIND, unix.MS_REC, unix.MS_REMOUNT, unix.MS_RDONLY
	f.allow(name, masked(3, bind|remount|all, bind|all))
	f.allow(name, masked(3, bind|remount|readOnly, bind|remount|readOnly))
	f.refuse(unix.EPERM, name, masked(3, bind, 0))
	f.refuse(unix.EPERM, name, masked(3, bind|remount|all, bind))
	f.refuse(unix.EPERM, name, masked(3, bind|remount|readOnly, bind|remount))
}

// sockets lets through the families that programs expect on any machine.
func (f filter) sockets() {
	name := []string{"socket"}
	f.allow([]string{"socketpair"}, equal(0, unix.AF_UNIX))
	f.allow(name, equal(0, unix.AF_UNIX))
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range protocols {
			f.allow(name, equal(0, family), equal(2, protocol))
		}
	}
	f.allow(name, equal(0, unix.AF_NETLINK), equal(2, unix.NETLINK_ROUTE))          // what network there is
	f.allow(name, equal(0, unix.AF_NETLINK), equal(2, unix.NETLINK_KOBJECT_UEVENT)) // an X server looks for devices
	// sudo takes this for a kernel without audit.
	f.refuse(unix.EPROTONOSUPPORT, name, equal(0, unix.AF_NETLINK), equal(2, unix.NETLINK_AUDIT))
	for family := range uint64(unix.AF_NETLINK) {
		switch family {
		case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6:
		default:
			f.refuse(unix.EAFNOSUPPORT, name, equal(0, family))
		}
	}
	f.refuse(unix.EAFNOSUPPORT, name, specs.LinuxSeccompArg{Index: 0, Value: unix.AF_NETLINK + 1, Op: specs.OpGreaterEqual})
}

func equal(arg uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: arg, Value: value, Op: specs.OpEqualTo}
}

// masked holds when the argument's bits under the mask are those of value.
func masked(arg uint, mask, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: arg, Value: mask, ValueTwo: value & mask, Op: specs.OpMaskedEqual}
}
