package router

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cubicle/daemon/core"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

func listen(t *testing.T, uids ...int) (*Router, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "r")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	r := Listen(l, uids, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { r.Close() })
	r.Running(nil)
	return r, path
}

func qrexecd(t *testing.T, path string) (*control.Conn, net.Conn) {
	t.Helper()
	s, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := control.NewConn(s)
	if err := c.Send(control.Message{Kind: control.Hello}); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func expect(t *testing.T, c *control.Conn, want control.Kind) control.Message {
	t.Helper()
	m, err := c.Receive()
	if err != nil || m.Kind != want {
		t.Fatalf("%+v, %v; want %s", m, err, want)
	}
	return m
}

func TestQrexecdHearsEverythingAgainAfterItsRestart(t *testing.T) {
	defer goleak.VerifyNone(t)
	r, path := listen(t, os.Getuid())
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	up := make(chan error, 1)
	go func() { up <- r.Up(ctx, control.Qube{Domain: 0x8001, Name: "work"}) }() // before qrexecd is there

	c, s := qrexecd(t, path)
	for m := (control.Message{}); m.Kind != control.Up; {
		var err error
		if m, err = c.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	c.Send(control.Message{Kind: control.Listening, Domain: 0x8001})
	if err := <-up; err != nil {
		t.Fatal(err)
	}
	c.Send(control.Message{Kind: control.Ready, Domain: 0x8001})
	if e := <-r.Agents(); e != (core.AgentEvent{Domain: 0x8001, Ready: true}) {
		t.Errorf("%+v", e)
	}
	s.Close()

	c, s = qrexecd(t, path)
	defer s.Close()
	if m := expect(t, c, control.Up); m.Qube.Name != "work" {
		t.Errorf("%+v", m.Qube)
	}
	expect(t, c, control.Synced)
	r.Down(0x8001)
	if m := expect(t, c, control.Down); m.Domain != 0x8001 {
		t.Errorf("%+v", m)
	}
	c.Send(control.Message{Kind: control.Ready, Domain: 0x8001}) // late
	go func() { up <- r.Up(ctx, control.Qube{Domain: 0x8002, Name: "personal"}) }()
	expect(t, c, control.Up)
	c.Send(control.Message{Kind: control.Listening, Domain: 0x8002, Error: "no room"})
	if err := <-up; err == nil || err.Error() != "qrexecd: no room" {
		t.Errorf("%v", err)
	}
	select {
	case e := <-r.Agents():
		t.Errorf("heard of a qube that is down: %+v", e)
	default:
	}
}

func TestUpEndsWithItsContext(t *testing.T) {
	r, _ := listen(t, os.Getuid())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := r.Up(ctx, control.Qube{Domain: 0x8001}); err != context.DeadlineExceeded {
		t.Error(err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	_, path := listen(t, os.Getuid()+1)
	s, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := control.NewConn(s)
	_ = c.Send(control.Message{Kind: control.Hello}) // it may have hung up already
	if m, err := c.Receive(); err == nil {
		t.Errorf("a stranger was told %+v", m)
	}
}

// A qubesd that has just begun does not know all qubes yet: until it does,
// qrexecd must not think that the others are gone.
func TestSyncedComesAfterAllThatRan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	r := Listen(l, []int{os.Getuid()}, slog.New(slog.DiscardHandler))
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up := func(q control.Qube) { go func() { _ = r.Up(ctx, q) }() }
	c, _ := qrexecd(t, path)
	up(control.Qube{Domain: 0x8001, Name: "work"})
	expect(t, c, control.Up)
	r.Running([]vchan.Domain{0x8001, 0x8002, 0x8003})
	up(control.Qube{Domain: 0x8004, Name: "new"})
	expect(t, c, control.Up)
	r.Down(0x8003) // it ended meanwhile
	up(control.Qube{Domain: 0x8002, Name: "mail"})
	expect(t, c, control.Up)
	expect(t, c, control.Synced)
	// Another qrexecd hears all of them at once.
	c, _ = qrexecd(t, path)
	for range 3 {
		expect(t, c, control.Up)
	}
	expect(t, c, control.Synced)
}
