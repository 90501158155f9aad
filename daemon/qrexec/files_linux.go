package qrexec

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"cubicle/daemon/vchan"
)

// fileConn makes a connection of a file, which it takes.
func fileConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f) // duplicates
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errNotUnix
	}
	return u, nil
}

// pairFiles returns the two ends of a stream as files to be sent away.
func pairFiles() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// newRegion makes the pixel region of one pairing: memory of a fixed size
// that nobody can shrink, grow, execute or unseal. Writing stays allowed on
// both sides; dom0 reads it as hostile.
func newRegion() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("cubicle-region", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("cubicle-region", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("pixel region: %w", err)
	}
	f := os.NewFile(uintptr(fd), "region")
	if err := f.Truncate(vchan.RegionSize); err != nil {
		f.Close()
		return nil, fmt.Errorf("pixel region: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal the pixel region: %w", err)
	}
	return f, nil
}

// dup returns another descriptor of f.
func dup(f *os.File) (*os.File, error) {
	var fd int
	err := sysConn(f, func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
