package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loopDevice is a loop device that holds one image and frees itself when it is
// closed and no longer mounted.
type loopDevice struct {
	Number int    `json:"number"`
	Image  string `json:"image"`

	dev *os.File
}

func (l loopDevice) path() string { return fmt.Sprintf("/dev/loop%d", l.Number) }

// loopTries bounds how often another process may snatch the device that the
// kernel just offered.
const loopTries = 64

// attach puts the image into a loop device of its own; devices are never
// shared with what somebody else attached.
func attach(image string, readOnly bool) (*loopDevice, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	file, err := os.OpenFile(image, flags, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, unusable("this machine has no loop devices, which volumes are mounted through: load the module with `modprobe loop` (in a container: give it /dev/loop-control and /dev/loop*)")
		}
		return nil, unusable("loop devices: %w", err)
	}
	defer control.Close()
	for range loopTries {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, unusable("no free loop device: %w", err)
		}
		l := &loopDevice{Number: number, Image: image}
		err = l.configure(file, readOnly)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: %w", image, err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("loop device for %s: %w", image, unix.EBUSY)
}

func (l *loopDevice) configure(file *os.File, readOnly bool) error {
	const major = 7
	dev, err := os.OpenFile(l.path(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) { // a /dev that nobody fills
		if err := unix.Mknod(l.path(), unix.S_IFBLK|0o600, int(unix.Mkdev(major, uint32(l.Number)))); err != nil && !errors.Is(err, unix.EEXIST) {
			return unusable("make %s: %w", l.path(), err)
		}
		dev, err = os.OpenFile(l.path(), os.O_RDWR, 0)
	}
	if err != nil {
		return err
	}
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(config.Info.File_name[:], l.Image)
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		dev.Close()
		return err
	}
	l.dev = dev
	return nil
}

func (l *loopDevice) close() { l.dev.Close() }

// free tells whether the device no longer holds the image.
func (l loopDevice) free() bool {
	name, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", l.Number))
	if err != nil {
		return true
	}
	return strings.TrimSuffix(strings.TrimSpace(string(name)), " (deleted)") != l.Image
}

// awaitFree waits until the kernel has written back and let go of the images,
// which it does some time after the last mount of them went.
func awaitFree(loops []loopDevice, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, l := range loops {
		for wait := time.Millisecond; !l.free(); wait = min(2*wait, 50*time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s still holds %s", l.path(), l.Image)
			}
			time.Sleep(wait)
		}
	}
	return nil
}
