package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine/boundary"
)

var processes = map[string]func(*boundary.Target) error{
	"see dom0's processes":         func(t *boundary.Target) error { return seeProcess(t.ProcessName) },
	"see another qube's processes": func(t *boundary.Target) error { return seeProcess(t.Marker) },
	"signal dom0's process": func(t *boundary.Target) error {
		return errors.Join(isDom0s(t), unix.Kill(t.Process, 0))
	},
	"ptrace dom0's process": func(t *boundary.Target) error {
		if err := isDom0s(t); err != nil {
			return err
		}
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(t.Process), 0, 0, 0, 0)
		return fail(errno)
	},
	"pidfd of dom0's process": func(t *boundary.Target) error {
		fd, err := unix.PidfdOpen(t.Process, 0)
		if err != nil {
			return err
		}
		return errors.Join(isDom0s(t), unix.Close(fd))
	},
}

func fail(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func seeProcess(word string) error {
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	self := fmt.Sprint(os.Getpid())
	for _, list := range lists {
		line, err := os.ReadFile(list)
		if err == nil && !strings.Contains(list, self) && strings.Contains(string(line), word) {
			return nil
		}
	}
	return errors.New("no such process in sight")
}

// isDom0s tells our own process of the same number from dom0's.
func isDom0s(t *boundary.Target) error {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", t.Process))
	if err != nil {
		return err
	}
	if !strings.Contains(string(line), t.ProcessName) {
		return errors.New("the number is our own process's")
	}
	return nil
}

var privileges = map[string]func(*boundary.Target) error{
	"new user namespace": func(*boundary.Target) error {
		if err := unix.Unshare(unix.CLONE_NEWUSER); err == nil {
			return nil
		}
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		return fail(errno)
	},
	"mount a file system": func(*boundary.Target) error {
		dir, err := os.MkdirTemp("", "mount")
		if err != nil {
			return err
		}
		if fd, err := unix.Fsopen("tmpfs", 0); err == nil {
			return unix.Close(fd)
		}
		return tryEach([]string{"tmpfs", "proc", "sysfs", "overlay", "ext4", "fuse", "ramfs", "devpts"}, func(kind string) error {
			return unix.Mount("none", dir, kind, 0, "")
		})
	},
	"capabilities beyond the bundle's": func(*boundary.Target) error {
		const forbidden = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_TIME |
			1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_BOOT | 1<<unix.CAP_SYS_TTY_CONFIG | 1<<unix.CAP_MKNOD | 1<<unix.CAP_IPC_OWNER |
			1<<unix.CAP_SYSLOG | 1<<unix.CAP_MAC_ADMIN | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_CHECKPOINT_RESTORE
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Permitted, data[0].Effective = 0xffffffff, 0xffffffff
		if err := unix.Capset(&header, &data[0]); err == nil {
			return nil
		}
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			var bits uint64
			if n, _ := fmt.Sscanf(line, "CapBnd: %x", &bits); n == 1 {
				if bits&forbidden != 0 {
					return nil
				}
				return fmt.Errorf("the bound is %x", bits)
			}
		}
		return errors.New("the kernel does not tell")
	},
	"raise the limits": func(*boundary.Target) error {
		return tryEach([]int{unix.RLIMIT_NPROC, unix.RLIMIT_NOFILE, unix.RLIMIT_CORE}, func(what int) error {
			var now unix.Rlimit
			if err := unix.Getrlimit(what, &now); err != nil {
				return err
			}
			if now.Max == unix.RLIM_INFINITY {
				return nil
			}
			return unix.Prlimit(0, what, &unix.Rlimit{Cur: now.Max + 1, Max: now.Max + 1}, nil)
		})
	},
}
