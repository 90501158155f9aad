package seccomp

import (
	"os"

	"golang.org/x/sys/unix"
)

// GoRuntime are the calls that this Go program makes whatever it does: memory
// that is never executed, threads but no processes, and signals to them. The
// network poller is among them, because os.File is on it.
func GoRuntime() Filter {
	return Filter{
		{Why: "the Go runtime: the network poller", Calls: []string{"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2"}},
		{Why: "the Go runtime: memory", Calls: []string{"munmap", "madvise", "mincore", "mremap", "brk"}},
		{Why: "the Go runtime: memory, but none to execute",
			Calls: []string{"mmap", "mprotect"}, When: []Cond{{Arg: 2, Op: Lacks, Value: unix.PROT_EXEC}}},
		{Why: "the Go runtime: threads, but no processes",
			Calls: []string{"clone"}, When: []Cond{{Arg: 0, Op: Has, Value: unix.CLONE_THREAD | unix.CLONE_VM}}},
		{Why: "the Go runtime: locks and the end of threads",
			Calls: []string{"futex", "sched_yield", "sched_getaffinity", "gettid", "getpid", "set_robust_list", "rseq", "exit", "exit_group", "restart_syscall"}},
		{Why: "the Go runtime: signal handlers", Calls: []string{"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"}},
		{Why: "the Go runtime: signals to its own threads",
			Calls: []string{"tgkill"}, When: []Cond{{Arg: 0, Op: Equals, Value: uint32(os.Getpid())}}},
		{Why: "the Go runtime: time and chance",
			Calls: []string{"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "getrandom"}},
	}
}
