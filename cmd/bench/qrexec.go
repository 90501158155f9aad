package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/client"
)

// callResult is about calls from dom0 into a qube.
type callResult struct {
	call, exec   samples // /bin/true in the qube, and in dom0
	stream, bare samples // of streamSize bytes: from the qube, and through a socket pair
}

// What is moved, and in which blocks it is written on both sides: under gVisor
// a program's own calls would else be what is measured.
const (
	streamSize = 256 << 20
	blockSize  = 64 << 10
)

func (b *bench) qrexec(ctx context.Context, s *system, r *engineResult) error {
	q, err := s.named(ctx, "bench")
	if err != nil {
		return err
	}
	if err := s.boot(ctx, q.UUID); err != nil {
		return err
	}
	out := &r.calls
	for i := range b.count.calls + 5 {
		began := time.Now()
		if err := exec.CommandContext(ctx, "/bin/true").Run(); err != nil {
			return err
		}
		bare := time.Since(began)
		began = time.Now()
		if err := call(ctx, client.Call{Root: s.root, Target: q.Name, Command: client.Service("", "qubes.VMExec+-2Fbin-2Ftrue")}); err != nil {
			return err
		}
		if i >= 5 {
			out.call, out.exec = append(out.call, time.Since(began)), append(out.exec, bare)
		}
	}
	for range 5 {
		bare, err := socketPair()
		if err != nil {
			return err
		}
		var n counter
		began := time.Now()
		err = call(ctx, client.Call{Root: s.root, Target: q.Name, Command: client.Shell("", fmt.Sprintf("dd if=/dev/zero bs=%d count=%d status=none", blockSize, streamSize/blockSize)), Stdout: &n})
		if err != nil {
			return err
		}
		if n != streamSize {
			return fmt.Errorf("%d bytes came of %d", n, streamSize)
		}
		out.stream, out.bare = append(out.stream, time.Since(began)), append(out.bare, bare)
	}
	return s.halt(ctx, q.UUID)
}

func call(ctx context.Context, c client.Call) error {
	status, err := client.Run(ctx, c)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s in %s: status %d", c.Command, c.Target, status)
	}
	return err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// socketPair moves streamSize bytes from one end of a socket pair to the other.
func socketPair() (time.Duration, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			return 0, err
		}
		defer ends[i].Close()
	}
	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		buf := make([]byte, blockSize)
		for n := 0; n < streamSize; n += len(buf) {
			if _, err := ends[0].Write(buf); err != nil {
				sent <- err
				return
			}
		}
		sent <- ends[0].Close()
	}()
	var n counter
	if _, err := io.CopyBuffer(&n, struct{ io.Reader }{ends[1]}, make([]byte, blockSize)); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if err := <-sent; err != nil {
		return 0, err
	}
	if n != streamSize {
		return 0, fmt.Errorf("%d bytes came of %d", n, streamSize)
	}
	return took, nil
}
