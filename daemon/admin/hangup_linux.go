package admin

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hangupEvery is how often a stream's peer is looked for while nothing is sent.
const hangupEvery = time.Second

// watchHangup closes the returned channel when the peer has closed its whole
// socket. It has half-closed long ago, so that reading tells nothing.
func watchHangup(ctx context.Context, conn net.Conn) <-chan struct{} {
	gone := make(chan struct{})
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return gone
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return gone
	}
	go func() {
		defer close(gone)
		for {
			hung := false
			err := raw.Control(func(fd uintptr) {
				p := []unix.PollFd{{Fd: int32(fd)}}
				_, err := unix.Poll(p, 0)
				hung = err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
			})
			if err != nil || hung {
				return
			}
			select {
			case <-time.After(hangupEvery):
			case <-ctx.Done():
				return
			}
		}
	}()
	return gone
}
