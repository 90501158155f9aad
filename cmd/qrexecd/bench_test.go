package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
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
	b.ReportMetric(q.s.routerTime()/(float64(b.N)*size/(1<<30)), "qrexecd-s/GiB")
}

// routerTime is what processor time qrexecd has taken, in seconds. It tells
// more than the clock where other programs run too.
func (s *system) routerTime() float64 {
	s.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.daemon.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, uerr := strconv.ParseFloat(fields[11], 64)
	system, serr := strconv.ParseFloat(fields[12], 64)
	if uerr != nil || serr != nil {
		s.t.Fatal(uerr, serr)
	}
	return (user + system) / 100 // clock ticks
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

// BenchmarkQubeCall is one call from qube to qube with a decision that takes no
// time, by a client in this process: what qrexecd and two agents add to the
// service, a program that does nothing.
func BenchmarkQubeCall(b *testing.B) {
	_, from, to, local := twoQubes(b)
	to.file("rpc/t.True", 0o755, "#!/bin/sh\n")
	for _, parallel := range []int{1, 16} {
		b.Run(fmt.Sprint("parallel ", parallel), func(b *testing.B) {
			b.SetParallelism(parallel)
			var lost atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if status, _, err := from.callTo(context.Background(), local, "t.True", strings.NewReader("")); status != 0 || err != nil {
						lost.Add(1)
					}
				}
			})
			b.ReportMetric(float64(lost.Load()), "lost")
			if lost.Load() > 0 {
				b.Errorf("%d calls were lost", lost.Load())
			}
		})
	}
}

// BenchmarkQubeStream is a stream from qube to qube (client, splice, agent,
// service) against a bare socket pair ("of-socket").
func BenchmarkQubeStream(b *testing.B) {
	s, from, to, local := twoQubes(b)
	to.file("rpc/t.Drop", 0o755, "#!/bin/sh\nexec cat >/dev/null\n")
	const size = 256 << 20
	bare := bareSocket(b, size)
	b.SetBytes(size)
	for b.Loop() {
		status, _, err := from.callTo(context.Background(), local, "t.Drop", io.LimitReader(zeros{}, size))
		if status != 0 || err != nil {
			b.Fatal(status, err)
		}
	}
	b.ReportMetric(float64(bare)/(float64(b.Elapsed())/float64(b.N)), "of-socket")
	b.ReportMetric(s.routerTime()/(float64(b.N)*size/(1<<30)), "qrexecd-s/GiB")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
