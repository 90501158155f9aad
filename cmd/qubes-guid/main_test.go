package main

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/vchan"
	"cubicle/guid/supervise"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

// The supervisor starts this test binary for each qube, as it starts itself
// in earnest, jail and all.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "--qube-process") {
		main()
		return
	}
	os.Exit(m.Run())
}

const regionSize = 1 << 20

// qubes is a source under the test's control: what it was told last holds for
// whoever asks again.
type qubes struct {
	change chan []supervise.Qube
	last   []supervise.Qube
}

func (q *qubes) Watch(ctx context.Context) <-chan []supervise.Qube {
	out := make(chan []supervise.Qube)
	go func() {
		defer close(out)
		for {
			select {
			case out <- q.last:
			case <-ctx.Done():
				return
			}
			select {
			case q.last = <-q.change:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// dom is what the supervisor needs of the rest of dom0: each dial makes a
// fresh channel and region, whose other ends come out of agents.
type dom struct {
	t      *testing.T
	agents chan agent
}

type agent struct {
	net.Conn
	region []byte
}

func (d *dom) dial(ctx context.Context, _ vchan.Domain) (*vchan.Channel, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "channel")
		if conns[i], err = net.FileConn(f); err != nil {
			return nil, err
		}
		f.Close()
	}
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	region := os.NewFile(uintptr(fd), "region")
	if err := region.Truncate(regionSize); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(region.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return nil, err
	}
	memory, err := unix.Mmap(fd, 0, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	select {
	case d.agents <- agent{conns[0], memory}:
		return &vchan.Channel{Conn: conns[1], Region: region}, nil
	case <-ctx.Done():
		conns[0].Close()
		conns[1].Close()
		region.Close()
		unix.Munmap(memory)
		return nil, ctx.Err()
	}
}

// next takes the next agent through its handshake and lets it draw a window
// of one colour at (50, 60).
func (d *dom) next(color uint32) agent {
	d.t.Helper()
	var a agent
	select {
	case a = <-d.agents:
	case <-time.After(10 * time.Second):
		d.t.Fatal("nobody dials")
	}
	if _, _, err := wire.AgentHandshake(a); err != nil {
		d.t.Fatal(err)
	}
	const w, h = 40, 30
	for i := range w * h {
		binary.LittleEndian.PutUint32(a.region[4*i:], color)
	}
	var b []byte
	for _, m := range []wire.Message{
		wire.Create{X: 50, Y: 60, Width: w, Height: h, OverrideRedirect: 1}, wire.Map{OverrideRedirect: 1},
		wire.WindowDump{Kind: wire.DumpRegion, Width: w, Height: h, BPP: 32, Stride: 4 * w}, wire.ShmImage{Width: w, Height: h},
	} {
		b = wire.Append(b, 7, m)
	}
	if _, err := a.Write(b); err != nil {
		d.t.Fatal(err)
	}
	return a
}

func TestOneJailedProcessForEachRunningQube(t *testing.T) {
	screen, server := x11test.StartServer(t, 300, 200)
	t.Setenv("DISPLAY", screen)
	t.Setenv("XAUTHORITY", os.DevNull)
	c := x11test.Dial(t, screen)
	at := func(x, y int) uint32 {
		b, err := c.Image(x11.Drawable(c.Root()), x, y, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint32(b) & 0xffffff
	}
	shows := func(what string, content, frame uint32) {
		t.Helper()
		x11test.Eventually(t, what, func() bool { return at(55, 65) == content && at(48, 58) == frame })
	}

	d := &dom{t, make(chan agent)}
	source := &qubes{change: make(chan []supervise.Qube)}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	s := &supervise.Supervisor{Source: source, Dial: d.dial, Run: supervise.Executable(os.Args[0], "--locker", "xscreensaver"),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	notices := make(chan supervise.Notice, 8)
	s.Notify = func(_ context.Context, n supervise.Notice) error { notices <- n; return nil }
	wait.Go(func() { s.ServeOn(ctx, func() (supervise.Screen, error) { return dialScreen(unread) }) })

	work := supervise.Qube{Domain: 0x8001, Name: "work", LabelIndex: 6, LabelColor: 0x3465a4}
	source.change <- []supervise.Qube{work}
	a := d.next(0x112233)
	shows("the window in blue", 0x112233, 0x3465a4)

	process := child(t)
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(process), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process is not jailed: no %q", want)
		}
	}

	// A process that dies is replaced; the agent sees the end of the channel.
	if err := syscall.Kill(process, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.SetReadDeadline(time.Now().Add(10 * time.Second))
	for buf := make([]byte, 4096); ; {
		if _, err := a.Read(buf); err != nil {
			if os.IsTimeout(err) {
				t.Error("the agent does not see the end")
			}
			break
		}
	}
	d.next(0x445566)
	shows("the window of the new process", 0x445566, 0x3465a4)

	// An agent that offends loses its windows and may start again.
	d2 := make(chan struct{})
	go func() {
		defer close(d2)
		work.LabelColor, work.LabelIndex = 0x73d216, 4
		source.change <- []supervise.Qube{work}
	}()
	<-d2
	bad := d.next(0x778899)
	shows("the window in green", 0x778899, 0x73d216)
	bad.Write(wire.Append(nil, 99, wire.Unmap{}))
	d.next(0xaabbcc)
	shows("the window after an offence", 0xaabbcc, 0x73d216)
	for _, why := range []string{"has crashed", "broke the rules"} {
		select {
		case n := <-notices:
			if n.Title != "The windows of work vanished" || !strings.Contains(n.Text, why) {
				t.Errorf("people hear %+v", n)
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody is told why the windows vanished")
		}
	}

	source.change <- nil
	x11test.Eventually(t, "the qube's windows vanish with it", func() bool { return at(55, 65) == 0 })

	source.change <- []supervise.Qube{work}
	d.next(0x010203)
	shows("the window again", 0x010203, 0x73d216)
	last := child(t)
	server.Kill()
	x11test.Eventually(t, "the process ends with the X server", func() bool {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(last), "stat"))
		return err != nil || strings.Contains(string(b), ") Z ")
	})

	// The server comes back, and so do the windows.
	server.Wait() // a dead server that nobody has asked for still holds its number
	x11test.StartWith(t, screen, "-screen", "0", "300x200x24")
	c = x11test.Dial(t, screen)
	d.next(0x0a0b0c)
	shows("the window on the new server", 0x0a0b0c, 0x73d216)
	if len(notices) != 0 {
		t.Errorf("people are told of what no qube did: %+v", <-notices)
	}
}

// child is the process id of the one --qube-process of this test.
func child(t *testing.T) int {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(b)) {
			line, err := os.ReadFile("/proc/" + field + "/cmdline")
			if err == nil && strings.Contains(string(line), "--qube-process") {
				pid, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
	}
	t.Fatal("there is no process for the qube")
	return 0
}
