package core

import (
	"errors"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/storage"
)

// advised is an error with what a person can do about it.
type advised struct {
	err    error
	advice string
}

func (a *advised) Error() string { return a.err.Error() + " — " + a.advice }
func (a *advised) Unwrap() error { return a.err }

// advise adds the mend to what the machine lacks. Errors that it has seen
// already, and all others, stay as they are.
func advise(err error) error {
	if _, done := errors.AsType[*advised](err); err == nil || done {
		return err
	}
	for _, c := range []struct {
		causes []error
		advice string
	}{
		{[]error{storage.ErrNoSpace, unix.ENOSPC, unix.EDQUOT},
			"the disk is full: remove qubes or files that are not needed, and try again"},
		{[]error{unix.EROFS},
			"the disk is read-only: the kernel's log (dmesg) may tell why; make it writable with mount -o remount,rw, and try again"},
		{[]error{unix.EIO},
			"the disk cannot be read or written: the kernel's log (dmesg) tells more; save what you need from it"},
		{[]error{engine.ErrNoMemory},
			"give the qube more memory (its property memory), and try again"},
		{[]error{unix.ENOMEM, unix.EAGAIN},
			"the machine is out of memory or processes: shut qubes down or close programs, and try again"},
		{[]error{unix.EMFILE, unix.ENFILE},
			"too many files are open: shut qubes down, and try again"},
	} {
		for _, cause := range c.causes {
			if errors.Is(err, cause) {
				return &advised{err, c.advice}
			}
		}
	}
	return err
}
