package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/device"
)

// settle is how long changes are gathered: one plug brings many messages, and
// what the kernel tells of a new device is complete a moment later.
const settle = 200 * time.Millisecond

// Changes delivers, until the context ends, each class in which the kernel
// tells of a device that came, went or changed.
func Changes(ctx context.Context) (<-chan device.Class, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel's device messages: %w", err)
	}
	// Group 1 has the kernel's own messages, the others have udevd's.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to the kernel's device messages: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "uevents") // nonblocking: closing it wakes the reader
	context.AfterFunc(ctx, func() { socket.Close() })
	heard := make(chan device.Class, 16)
	go func() {
		defer close(heard)
		message := make([]byte, 16<<10)
		for {
			n, err := socket.Read(message)
			if c, ok := classOf(message[:max(n, 0)]); ok {
				heard <- c
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil { // messages were lost: anything may have changed
				heard <- device.Block
				heard <- device.PCI
			}
		}
	}()
	changed := make(chan device.Class)
	go gather(ctx, heard, changed)
	return changed, nil
}

// gather passes on each class at most once in a while.
func gather(ctx context.Context, heard <-chan device.Class, changed chan<- device.Class) {
	defer func() {
		for range heard { // the reader ends by itself
		}
	}()
	due := map[device.Class]bool{}
	var tick <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case c, ok := <-heard:
			if !ok {
				return
			}
			if due[c] = true; tick == nil {
				tick = time.After(settle)
			}
		case <-tick:
			for c := range due {
				select {
				case changed <- c:
				case <-ctx.Done():
					return
				}
			}
			clear(due)
			tick = nil
		}
	}
}

// classOf reads a message of the kernel: "ACTION@PATH", then KEY=VALUE, each
// ended by a zero byte.
func classOf(message []byte) (device.Class, bool) {
	for field := range bytes.SplitSeq(message, []byte{0}) {
		switch string(field) {
		case "SUBSYSTEM=block":
			return device.Block, true
		case "SUBSYSTEM=pci":
			return device.PCI, true
		}
	}
	return "", false
}
