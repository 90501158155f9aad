package sandbox

import (
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Somebody has decided about each call that the kernel is known to have.
func TestEveryCallIsDecided(t *testing.T) {
	decided := map[string]int{}
	for _, table := range [][]calls{allowed, denied, absent} {
		for _, row := range table {
			if row.why == "" {
				t.Errorf("%v: no reason", row.names)
			}
			for _, name := range row.names {
				decided[name]++
			}
		}
	}
	for _, name := range []string{"clone", "unshare", "mount", "socket", "socketpair", "ioctl", "personality"} {
		decided[name]++ // by its arguments
	}
	for _, number := range arch.X86_64.SyscallNumbers {
		if decided[number] != 1 {
			t.Errorf("%s is decided %d times", number, decided[number])
		}
	}
	if decided["init_module"] != 1 {
		t.Error("the test does not count")
	}
}

// verdict is what the filter answers to a call: the runtime makes one program
// of the rules, and the rules of a call must not contradict each other.
func verdict(t *testing.T, f *specs.LinuxSeccomp, name string, args ...uint64) string {
	t.Helper()
	var found []string
	for _, rule := range f.Syscalls {
		if !slices.Contains(rule.Names, name) {
			continue
		}
		fits := true
		for _, c := range rule.Args {
			var arg uint64
			if int(c.Index) < len(args) {
				arg = args[c.Index]
			}
			switch c.Op {
			case specs.OpEqualTo:
				fits = fits && arg == c.Value
			case specs.OpMaskedEqual:
				fits = fits && arg&c.Value == c.ValueTwo
			case specs.OpGreaterEqual:
				fits = fits && arg >= c.Value
			default:
				t.Fatalf("%s: comparison %s", name, c.Op)
			}
		}
		if !fits {
			continue
		}
		word := "allowed"
		if rule.Action == specs.ActErrno {
			word = unix.ErrnoName(unix.Errno(*rule.ErrnoRet))
		}
		if !slices.Contains(found, word) {
			found = append(found, word)
		}
	}
	switch len(found) {
	case 0:
		return unix.ErrnoName(unix.Errno(*f.DefaultErrnoRet))
	case 1:
		return found[0]
	}
	t.Errorf("%s%x: rules contradict each other: %v", name, args, found)
	return ""
}

func TestFilter(t *testing.T) {
	f := systemCalls()
	if f.DefaultAction != specs.ActErrno {
		t.Errorf("what no rule knows is %s", f.DefaultAction)
	}
	const junk = 1 << 32 // the kernel does not look at it
	for _, test := range []struct {
		want string
		name string
		args []uint64
	}{
		{"allowed", "read", nil},
		{"EPERM", "keyctl", nil},
		{"ENOSYS", "clone3", nil},
		{"ENOSYS", "a call of tomorrow", nil},
		{"allowed", "clone", []uint64{uint64(unix.SIGCHLD)}},
		{"allowed", "clone", []uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}},
		{"allowed", "clone", []uint64{unix.CLONE_NEWPID | unix.CLONE_NEWNET}},
		{"EPERM", "clone", []uint64{unix.CLONE_NEWUSER}},
		{"EPERM", "clone", []uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNS | junk}},
		{"EPERM", "clone", []uint64{unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID}},
		{"allowed", "unshare", []uint64{unix.CLONE_FILES | unix.CLONE_FS}},
		{"EPERM", "unshare", []uint64{unix.CLONE_NEWPID}},
		{"EPERM", "unshare", []uint64{unix.CLONE_NEWTIME | junk}},
		{"allowed", "mount", []uint64{0, 0, 0, unix.MS_BIND | unix.MS_REC}},
		{"allowed", "mount", []uint64{0, 0, 0, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY}},
		{"EPERM", "mount", []uint64{0, 0, 0, unix.MS_BIND}},
		{"EPERM", "mount", []uint64{0, 0, 0, unix.MS_BIND | unix.MS_REMOUNT}},
		{"EPERM", "umount2", nil},
		{"EPERM", "mount", []uint64{0, 0, 0, 0}},
		{"EPERM", "mount", []uint64{0, 0, 0, unix.MS_REMOUNT}},
		{"EPERM", "mount", []uint64{0, 0, 0, unix.MS_MOVE}},
		{"allowed", "socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}},
		{"allowed", "socket", []uint64{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}},
		{"ENOSYS", "socket", []uint64{unix.AF_INET, unix.SOCK_SEQPACKET, 132}}, // SCTP
		{"ENOSYS", "socket", []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM}},
		{"EPROTONOSUPPORT", "socket", []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}},
		{"EAFNOSUPPORT", "socket", []uint64{unix.AF_VSOCK, unix.SOCK_STREAM, 0}},
		{"EAFNOSUPPORT", "socket", []uint64{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}},
		{"EAFNOSUPPORT", "socket", []uint64{unix.AF_X25, unix.SOCK_SEQPACKET, 0}},
		{"EAFNOSUPPORT", "socket", []uint64{unix.AF_UNIX | junk, unix.SOCK_STREAM, 0}},
		{"ENOSYS", "socketpair", []uint64{30}}, // TIPC
		{"allowed", "ioctl", []uint64{0, unix.TCGETS}},
		{"allowed", "ioctl", []uint64{0, 0xffffffff_80045430}}, // as some libraries extend it
		{"EPERM", "ioctl", []uint64{0, unix.TIOCSTI}},
		{"EPERM", "ioctl", []uint64{0, unix.TIOCSTI | junk}},
		{"allowed", "personality", []uint64{0xffffffff}},
		{"ENOSYS", "personality", []uint64{0x0400000}}, // READ_IMPLIES_EXEC
	} {
		if got := verdict(t, f, test.name, test.args...); got != test.want {
			t.Errorf("%s%x: %s, want %s", test.name, test.args, got, test.want)
		}
	}
}
