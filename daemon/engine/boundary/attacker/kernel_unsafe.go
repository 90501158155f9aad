package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine/boundary"
)

var kernel = map[string]func(*boundary.Target) error{
	"dom0's keyring": func(t *boundary.Target) error {
		return tryEach([]int{unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_SESSION_KEYRING}, func(ring int) error {
			id, err := unix.KeyctlSearch(ring, "user", t.Key, 0)
			if err != nil {
				return err
			}
			_, err = unix.KeyctlBuffer(unix.KEYCTL_READ, id, make([]byte, 64), 0)
			return err
		})
	},
	"dom0's shared memory and queues": func(t *boundary.Target) error {
		if _, err := unix.SysvShmGet(t.SharedKey, 1, 0); err == nil {
			return nil
		}
		name, err := unix.BytePtrFromString(t.Queue)
		if err != nil {
			return err
		}
		_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_RDONLY, 0, 0, 0, 0)
		return fail(errno)
	},
	"kernel log": func(*boundary.Target) error {
		const readAll = 3
		if n, err := unix.Klogctl(readAll, make([]byte, 4096)); err == nil && n > 0 {
			return nil
		}
		return tryEach([]string{"/dev/kmsg", "/proc/kmsg"}, func(name string) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			return f.Close()
		})
	},
	"set the clock": func(*boundary.Target) error {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			return err
		}
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err == nil {
			return nil
		}
		tv := unix.NsecToTimeval(now.Nano())
		return unix.Settimeofday(&tv)
	},
	"load a module": func(*boundary.Target) error {
		return tryEach([]error{
			reached(unix.SYS_INIT_MODULE, wordsAt(), 0, 0), reached(unix.SYS_FINIT_MODULE, 0, wordsAt(), 0), reached(unix.SYS_DELETE_MODULE, wordsAt(), 0, 0),
		}, func(err error) error { return err })
	},
	"start another kernel": func(*boundary.Target) error {
		return tryEach([]error{reached(unix.SYS_KEXEC_LOAD, 0, 0, 0), reached(unix.SYS_REBOOT, 0, 0, 0)}, func(err error) error { return err })
	},
	"bpf":         func(*boundary.Target) error { return reached(unix.SYS_BPF, 0, wordsAt(), 48) },
	"perf events": func(*boundary.Target) error { return reached(unix.SYS_PERF_EVENT_OPEN, wordsAt(), 0, ^uintptr(0)) },
	"io_uring":    func(*boundary.Target) error { return reached(unix.SYS_IO_URING_SETUP, 1, wordsAt(), 0) },
	"userfaultfd": func(*boundary.Target) error { return reached(unix.SYS_USERFAULTFD, 0, 0, 0) },
	"32-bit calls": func(*boundary.Target) error {
		return tryEach([]func(*uint32) error{x32, int80}, func(start func(*uint32) error) error {
			var pid uint32
			if err := start(&pid); err != nil {
				return err
			}
			var status unix.WaitStatus
			if _, err := unix.Wait4(int(pid), &status, 0, nil); err != nil {
				return err
			}
			if !status.Exited() || status.ExitStatus() != 0 {
				return fmt.Errorf("the process ended with %#x", uint32(status))
			}
			return nil
		})
	},
}

// x32 makes a call of the machine with 64-bit registers and numbers of its
// own, in a process that may be ended for it and exits with 0 if it worked.
func x32(pid *uint32) error {
	const x32, getpid = 0x40000000, 39
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && child == 0 {
		_, _, errno = unix.RawSyscall(x32+getpid, 0, 0, 0)
		unix.RawSyscall(unix.SYS_EXIT, uintptr(min(errno, 1)), 0, 0)
	}
	*pid = uint32(child)
	return fail(errno)
}

// reached makes a call with arguments that mean nothing: any complaint about
// them shows that the kernel began to work on it.
func reached(number, a, b, c uintptr) error {
	_, _, errno := unix.Syscall6(number, a, b, c, 0, 0, 0)
	switch errno {
	case unix.EPERM, unix.ENOSYS, unix.EACCES, unix.ENODEV:
		return errno
	}
	fmt.Println("call", number, "says", errno)
	return nil
}

// int80 does the same through the door for 32-bit programs, with code that it
// writes: mov eax, 20 (getpid); int 0x80; mov [rip+1], eax; ret; the answer.
func int80(pid *uint32) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("there is no such door")
	}
	code := []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0x89, 0x05, 1, 0, 0, 0, 0xc3, 0, 0, 0, 0}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	copy(page, code)
	entry := &page[0]
	closure := &entry // a function value points to a pointer to its code
	call := *(*func())(unsafe.Pointer(&closure))
	answer := (*int32)(unsafe.Pointer(&page[len(code)-4]))
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && child == 0 {
		call()
		status := uintptr(1)
		if *answer > 0 {
			status = 0
		}
		unix.RawSyscall(unix.SYS_EXIT, status, 0, 0)
	}
	*pid = uint32(child)
	return fail(errno)
}

// words are arguments for calls that want structures: enough zeroes.
var words [64]uint64

func wordsAt() uintptr { return uintptr(unsafe.Pointer(&words[0])) }
