package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/client"
)

// BenchmarkCall is one call of /bin/true in a running qube, against starting
// the same program here ("x-exec" is how many times as long it takes).
func BenchmarkCall(b *testing.B) {
	q := newSystem(b).qube(workDomain, "work").start()
	const local = 50
	begun := time.Now()
	for range local {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
	bare := time.Since(begun) / local
	for b.Loop() {
		status, err := client.Run(context.Background(), client.Call{Root: q.s.root, Target: "work", Command: "DEFAULT:QUBESRPC qubes.VMExec+-2Fbin-2Ftrue dom0"})
		if status != 0 || err != nil {
			b.Fatal(status, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(bare), "x-exec")
}

// BenchmarkThroughput is output of a qube's program to dom0 (one agent, one
// splice, one client), against a bare socket pair ("of-socket").
func BenchmarkThroughput(b *testing.B) {
	q := newSystem(b).qube(workDomain, "work").start()
	const size = 256 << 20
	bare := bareSocket(b, size)
	b.SetBytes(size)
	for b.Loop() {
		var n counter
		status, err := client.Run(context.Background(), client.Call{Root: q.s.root, Target: "work",
			Command: "DEFAULT:head -c 268435456 /dev/zero", Stdout: &n})
		if status != 0 || err != nil || n != size {
			b.Fatal(status, err, n)
		}
	}
	b.ReportMetric(float64(bare)/(float64(b.Elapsed())/float64(b.N)), "of-socket")
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// bareSocket moves size bytes from one end of a socket pair to the other.
func bareSocket(b *testing.B, size int64) time.Duration {
	b.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	var c [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if c[i], err = net.FileConn(f); err != nil {
			b.Fatal(err)
		}
		f.Close()
		defer c[i].Close()
	}
	begun := time.Now()
	go func() {
		buf := make([]byte, 64<<10)
		for n := int64(0); n < size; n += int64(len(buf)) {
			if _, err := c[0].Write(buf); err != nil {
				return
			}
		}
		c[0].Close()
	}()
	var n counter
	if _, err := io.CopyBuffer(&n, struct{ io.Reader }{c[1]}, make([]byte, 64<<10)); err != nil || int64(n) != size {
		b.Fatal(n, err)
	}
	return time.Since(begun)
}
