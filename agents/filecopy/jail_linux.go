package filecopy

import (
	"errors"
	"fmt"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cubicle/daemon/seccomp"
)

// calls are the system calls of a process that unpacks, beside those of every
// Go program. Whatever is not here fails with EPERM.
var calls = seccomp.Filter{
	{Why: "the stream and the answer, which are open", Calls: []string{"read", "write", "close", "fcntl"}},
	{Why: "files, within what landlock leaves",
		Calls: []string{"openat", "mkdirat", "symlinkat", "linkat", "unlinkat", "fchmod", "utimensat", "newfstatat", "fstat", "syncfs", "sync"}},
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
	err := slices.Concat(calls, seccomp.GoRuntime()).Load()
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}
