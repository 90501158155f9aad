package sandbox

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// denied are the system calls that no program in a crun qube may use: with
// that engine, qube and dom0 share one kernel, and each of these is a part of
// it that was broken into before or is of no use without privileges that a
// qube does not have. gVisor does not need the list: its qubes talk to gVisor's
// kernel, whose own filter is far tighter.
var denied = []struct {
	why   string
	calls []string
}{
	{"not split into user namespaces: the kernel's keys", []string{"keyctl", "add_key", "request_key"}},
	{"programs in the kernel", []string{"bpf", "perf_event_open"}},
	{"a second way to every call, past this filter", []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}},
	{"race windows held open for exploits", []string{"userfaultfd"}},
	{"another kernel", []string{"kexec_load", "kexec_file_load", "reboot", "init_module", "finit_module", "delete_module"}},
	{"parsers of file systems", []string{"fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr", "pivot_root", "swapon", "swapoff", "quotactl", "quotactl_fd"}},
	{"file handles reach past the root folder", []string{"open_by_handle_at", "name_to_handle_at"}},
	{"new user namespaces give privileges over more of the kernel", []string{"unshare", "setns"}},
	{"dom0's clock and log", []string{"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "syslog", "acct"}},
	{"placement of dom0's memory", []string{"mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}},
	{"hardware", []string{"iopl", "ioperm", "pciconfig_read", "pciconfig_write", "modify_ldt"}},
	{"old and unused", []string{"uselib", "ustat", "sysfs", "lookup_dcookie", "nfsservctl", "vm86", "vm86old", "_sysctl"}},
	{"other processes' files and memory", []string{"kcmp", "process_madvise", "pidfd_getfd"}},
}

// systemCalls is the filter of crun's qubes.
func systemCalls() *specs.LinuxSeccomp {
	eperm, enosys := uint(unix.EPERM), uint(unix.ENOSYS)
	filter := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			// Its flags lie in memory, which no filter sees; libraries then
			// use clone.
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys},
			{Names: []string{"clone"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
				{Index: 0, Value: unix.CLONE_NEWUSER, ValueTwo: unix.CLONE_NEWUSER, Op: specs.OpMaskedEqual},
			}},
			// Binding what is mounted already is all that a qube's init does.
			{Names: []string{"mount"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
				{Index: 3, Value: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_MOVE | unix.MS_PRIVATE | unix.MS_SLAVE, ValueTwo: 0, Op: specs.OpMaskedEqual},
			}},
			// Types into somebody else's terminal.
			{Names: []string{"ioctl"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
				{Index: 1, Value: 0xffffffff, ValueTwo: unix.TIOCSTI, Op: specs.OpMaskedEqual},
			}},
			// Network protocols that a qube has no device for, beyond IP,
			// UNIX and netlink.
			{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
				{Index: 0, Value: unix.AF_NETLINK + 1, Op: specs.OpGreaterEqual},
			}},
		},
	}
	for _, group := range denied {
		filter.Syscalls = append(filter.Syscalls, specs.LinuxSyscall{Names: group.calls, Action: specs.ActErrno, ErrnoRet: &eperm})
	}
	return filter
}
