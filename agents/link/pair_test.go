package link

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (*os.File, *os.File) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "router"), os.NewFile(uintptr(fds[1]), "qube")
}
