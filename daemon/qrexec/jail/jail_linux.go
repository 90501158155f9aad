// Package jail locks qrexecd in before it reads the first byte of a qube:
// the calls that it needs (the table below says what for), UNIX sockets as
// the only kind of socket, its own run folders as the only files, no new
// privileges, no new programs, no core dumps and no debugger.
package jail

import (
	"errors"
	"fmt"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/seccomp"
)

// calls are the system calls of the jailed process, beside those of every Go
// program. Whatever is not here fails with EPERM.
var calls = seccomp.Filter{
	{Why: "move bytes and descriptors on sockets",
		Calls: []string{"read", "write", "readv", "writev", "recvmsg", "sendmsg", "recvfrom", "sendto", "splice", "pipe2", "shutdown", "close"}},
	{Why: "sockets, but no network: neither AF_INET nor netlink, packets or vsock",
		Calls: []string{"socket", "socketpair"}, When: []seccomp.Cond{{Arg: 0, Op: seccomp.Equals, Value: unix.AF_UNIX}}},
	{Why: "accept and dial UNIX sockets, and ask who is there",
		Calls: []string{"bind", "listen", "accept4", "connect", "getsockname", "getpeername", "getsockopt", "setsockopt"}},
	{Why: "non-blocking mode, close-on-exec, seals and pipe sizes", Calls: []string{"fcntl"}},
	{Why: "the pixel region", Calls: []string{"memfd_create", "ftruncate"}},
	{Why: "the sockets' files, within what landlock leaves",
		Calls: []string{"openat", "newfstatat", "fstat", "unlinkat", "unlink", "symlinkat", "renameat", "renameat2", "readlinkat", "fchmodat", "fchmodat2", "fchmod"}},
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
	if err := slices.Concat(calls, seccomp.GoRuntime()).Load(); err != nil {
		return "", fmt.Errorf("jail: %w", err)
	}
	return weakness, nil
}

// sockets are the rights to keep sockets and their symbolic links in a folder.
const sockets landlock.AccessFSSet = llsys.AccessFSMakeSock | llsys.AccessFSMakeSym | llsys.AccessFSRemoveFile | llsys.AccessFSResolveUnix
