package qrexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	work   vchan.Domain = 0x8001
	mail   vchan.Domain = 0x8002
	manual vchan.Domain = 0x8003 // comes over upstream's sockets
)

func TestBrokerPairsTheGUI(t *testing.T) {
	h := newHouse(t)
	qube, guid := h.link(work), h.link(dom0)
	for _, first := range []string{"qube", "guid"} {
		var q, g <-chan asked
		askQube := func() {
			q = later(func() (*vchan.Channel, error) { return qube.Listen(h.short(), dom0, vchan.PortGUI) })
		}
		askGuid := func() { g = later(func() (*vchan.Channel, error) { return guid.Dial(h.short(), work, vchan.PortGUI) }) }
		if first == "qube" {
			askQube()
			time.Sleep(20 * time.Millisecond)
			askGuid()
		} else {
			askGuid()
			time.Sleep(20 * time.Millisecond)
			askQube()
		}
		a, b := <-q, <-g
		if a.err != nil || b.err != nil {
			t.Fatal(a.err, b.err)
		}
		sameStream(t, a.ch, b.ch)
		checkRegions(t, a.ch.Region, b.ch.Region)
		a.ch.Close()
		if _, err := b.ch.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the qube's end was closed: %v", err)
		}
		b.ch.Close()
	}
}

// checkRegions: both ends have the same sealed memory.
func checkRegions(t *testing.T, a, b *os.File) {
	t.Helper()
	if a == nil || b == nil {
		t.Fatal("no region")
	}
	for _, f := range []*os.File{a, b} {
		seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
		if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL; err != nil || seals&want != want {
			t.Errorf("seals %#x, %v", seals, err)
		}
		if fi, err := f.Stat(); err != nil || fi.Size() != vchan.RegionSize {
			t.Errorf("region: %v, %v", fi, err)
		}
		if err := f.Truncate(4096); err == nil {
			t.Error("the region can be shrunk")
		}
	}
	if _, err := a.WriteAt([]byte("pixel"), 12345); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := b.ReadAt(got, 12345); err != nil || string(got) != "pixel" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBrokerOtherPorts: dom0 may also be the server, and such a channel has no
// region.
func TestBrokerOtherPorts(t *testing.T) {
	h := newHouse(t)
	qube, db := h.link(work), h.link(dom0)
	const port = 7000
	q := later(func() (*vchan.Channel, error) { return qube.Dial(h.short(), dom0, port) })
	ch, err := db.Listen(h.short(), work, port)
	if err != nil {
		t.Fatal(err)
	}
	a := <-q
	if a.err != nil || a.ch.Region != nil || ch.Region != nil {
		t.Fatal(a.err, a.ch, ch)
	}
	sameStream(t, a.ch, ch)
	a.ch.Close()
	ch.Close()
}

func TestRefusals(t *testing.T) {
	h := newHouse(t)
	qube, host := h.link(work), h.link(dom0)
	for _, c := range []struct {
		name string
		ask  func() (*vchan.Channel, error)
		want vchan.Reason
	}{
		{"qube dials a qube", func() (*vchan.Channel, error) { return qube.Dial(h.short(), mail, 6000) }, vchan.ReasonNotAllowed},
		{"qube listens for a qube", func() (*vchan.Channel, error) { return qube.Listen(h.short(), mail, 513) }, vchan.ReasonNotAllowed},
		{"qube dials a data port without a call", func() (*vchan.Channel, error) { return qube.Dial(h.short(), dom0, 513) }, vchan.ReasonNotAllowed},
		{"qube listens on a data port", func() (*vchan.Channel, error) { return qube.Listen(h.short(), dom0, 513) }, vchan.ReasonNotAllowed},
		{"dom0 takes the control port", func() (*vchan.Channel, error) { return host.Dial(h.short(), work, vchan.PortQrexec) }, vchan.ReasonNotAllowed},
		{"dom0 takes a data port", func() (*vchan.Channel, error) { return host.Listen(h.short(), work, 600) }, vchan.ReasonNotAllowed},
		{"dom0 takes the database's port", func() (*vchan.Channel, error) { return host.Listen(h.short(), work, vchan.PortQubesDB) }, vchan.ReasonNotAllowed},
		{"dom0 dials itself", func() (*vchan.Channel, error) { return host.Dial(h.short(), dom0, 6000) }, vchan.ReasonNotAllowed},
		{"dom0 dials a qube that is not there", func() (*vchan.Channel, error) { return host.Dial(h.short(), 0x9999, 6000) }, vchan.ReasonGone},
	} {
		ch, err := c.ask()
		if err == nil {
			ch.Close()
		}
		if reasonOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// A second request for the same channel.
	ctx, cancel := context.WithCancel(h.ctx)
	first := later(func() (*vchan.Channel, error) { return qube.Listen(ctx, dom0, 6000) })
	time.Sleep(20 * time.Millisecond)
	if _, err := qube.Listen(h.short(), dom0, 6000); reasonOf(err) != vchan.ReasonBusy {
		t.Errorf("second request: %v", err)
	}
	// A cancelled one makes room again.
	cancel()
	if a := <-first; !errors.Is(a.err, context.Canceled) {
		t.Error(a.err)
	}
	again := later(func() (*vchan.Channel, error) { return qube.Listen(h.short(), dom0, 6000) })
	time.Sleep(20 * time.Millisecond) // or dom0's request crosses the cancellation
	ch, err := host.Dial(h.short(), work, 6000)
	if err != nil {
		t.Fatal(err)
	}
	ch.Close()
	if a := <-again; a.err != nil {
		t.Error(a.err)
	} else {
		a.ch.Close()
	}
}

func TestDownRefusesWaitingRequests(t *testing.T) {
	h := newHouse(t)
	host, qube := h.link(dom0), h.link(work)
	wait := later(func() (*vchan.Channel, error) { return host.Dial(h.short(), work, vchan.PortGUI) })
	time.Sleep(20 * time.Millisecond)
	h.send(control.Message{Kind: control.Down, Domain: work})
	if a := <-wait; reasonOf(a.err) != vchan.ReasonGone {
		t.Error(a.err)
	}
	select {
	case <-qube.Done():
	case <-time.After(5 * time.Second):
		t.Error("the qube's link is still up")
	}
}

// TestNewLinkReplacesTheOld: an agent that was restarted is not kept out by
// what its predecessor left.
func TestNewLinkReplacesTheOld(t *testing.T) {
	h := newHouse(t)
	old := h.link(work)
	wait := later(func() (*vchan.Channel, error) { return old.Listen(h.short(), dom0, vchan.PortGUI) })
	time.Sleep(20 * time.Millisecond)
	silent := h.raw(work) // connects and says nothing
	fresh := h.link(work)
	if a := <-wait; !errors.Is(a.err, vchan.ErrLinkLost) {
		t.Errorf("on the old link: %v", a.err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection got an answer")
	}
	q := later(func() (*vchan.Channel, error) { return fresh.Listen(h.short(), dom0, vchan.PortGUI) })
	ch, err := h.link(dom0).Dial(h.short(), work, vchan.PortGUI)
	if err != nil {
		t.Fatal(err)
	}
	ch.Close()
	if a := <-q; a.err != nil {
		t.Error(a.err)
	} else {
		a.ch.Close()
	}
}

// TestCallsOutAreDenied: where qubesd allows nothing.
func TestCallsOutAreDenied(t *testing.T) {
	h := newHouse(t)
	ch := h.agent(h.link(work))
	for _, tr := range []wire.Trigger{
		{Target: "mail", Service: "qubes.Filecopy", Ident: "SOCKET1"},
		{Target: "", Service: "+", Ident: "SOCKET2"},
		{Source: "x", Target: "@dispvm", Service: strings.Repeat("s", 64000), Ident: "SOCKET3"},
	} {
		if _, err := ch.Write(tr.Message()); err != nil {
			t.Fatal(err)
		}
		typ, body, err := wire.ReadMessage(ch, wire.Daemon, 4)
		if err != nil || typ != wire.ServiceRefused {
			t.Fatalf("%v, %v", typ, err)
		}
		if id, err := wire.ParseRefused(body); id != tr.Ident || err != nil {
			t.Errorf("refused %q, %v", id, err)
		}
	}
}

func (h *house) local(name string) *net.UnixConn {
	h.t.Helper()
	c, err := vchan.DialPath(h.short(), filepath.Join(h.root.RunQubes(), "qrexec."+name))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if v, err := wire.ReadHello(c); v != wire.ClientVersion || err != nil {
		h.t.Fatalf("hello %d, %v", v, err)
	}
	if _, err := c.Write(wire.HelloMessage(wire.ClientVersion)); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// TestPorts follows the bytes of calls: the lowest free port, busy until the
// agent ends the call, whose end the client sees.
func TestPorts(t *testing.T) {
	h := newHouse(t)
	agent := h.agent(h.link(work))
	call := func() (*net.UnixConn, vchan.Port) {
		t.Helper()
		c := h.local("work")
		if _, err := c.Write(wire.Exec{Command: "DEFAULT:QUBESRPC t.Svc dom0"}.Message(wire.ExecCmdline)); err != nil {
			t.Fatal(err)
		}
		typ, body, err := wire.ReadMessage(c, wire.DaemonAnswer, 3)
		if err != nil || typ != wire.ExecCmdline {
			t.Fatal(typ, err)
		}
		answer, err := wire.ParseExec(body)
		if err != nil || answer.Domain != work {
			t.Fatal(answer, err)
		}
		typ, body, err = wire.ReadMessage(agent, wire.Daemon, 4)
		if err != nil || typ != wire.ExecCmdline {
			t.Fatal(typ, err)
		}
		e, err := wire.ParseExec(body)
		if want := (wire.Exec{Domain: 0, Port: answer.Port, Command: "user:QUBESRPC t.Svc+ dom0"}); err != nil || e != want {
			t.Fatalf("%+v, %v", e, err)
		}
		return c, answer.Port
	}
	end := func(d vchan.Domain, p vchan.Port) {
		t.Helper()
		if _, err := agent.Write(wire.Exec{Domain: d, Port: p}.Message(wire.ConnectionTerminated)); err != nil {
			t.Fatal(err)
		}
	}
	a, pa := call()
	b, pb := call()
	if pa != 513 || pb != 514 {
		t.Errorf("ports %d, %d", pa, pb)
	}
	end(7, 513)    // another domain's call: nothing to us
	end(0, 999999) // nonsense
	end(0, 513)
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client of the ended call read %v", err)
	}
	if _, p := call(); p != 513 {
		t.Errorf("port %d after 513 was freed", p)
	}
	// A client that goes away does not free its port.
	b.Close()
	if _, p := call(); p != 515 {
		t.Errorf("port %d, want 515", p)
	}
}

// TestForeignAgent: an agent over upstream's sockets, without a link.
func TestForeignAgent(t *testing.T) {
	h := newHouse(t)
	own := vchan.Unix{Dir: h.root.Vchan(), Self: manual}
	ch, err := own.Listen(h.short(), dom0, vchan.PortQrexec)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	if _, err := ch.Write(wire.HelloMessage(3)); err != nil {
		t.Fatal(err)
	}
	if v, err := wire.ReadHello(ch); v != 3 || err != nil {
		t.Fatal(v, err)
	}
	if m := h.expect(control.Ready, manual); m.Version != 3 {
		t.Errorf("version %d", m.Version)
	}
	var out bytes.Buffer
	status := make(chan int, 1)
	go func() {
		n, err := client.Run(h.short(), client.Call{Root: h.root, Target: "manual", Command: "DEFAULT:greet", Stdout: &out})
		if err != nil {
			t.Error(err)
		}
		status <- n
	}()
	_, body, err := wire.ReadMessage(ch, wire.Daemon, 3)
	if err != nil {
		t.Fatal(err)
	}
	e, err := wire.ParseExec(body)
	if err != nil {
		t.Fatal(err)
	}
	data, err := own.Dial(h.short(), e.Domain, e.Port) // straight to dom0's program
	if err != nil {
		t.Fatal(err)
	}
	_, w, err := wire.OpenData(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Send(wire.DataStdout, []byte("hello")), w.ExitCode(4)); err != nil {
		t.Fatal(err)
	}
	if n := <-status; n != 4 || out.String() != "hello" {
		t.Errorf("status %d, %q", n, &out)
	}
	data.Close()
	// dom0's programs need not know that it is foreign: the broker dials.
	g := later(func() (*vchan.Channel, error) { return h.link(dom0).Dial(h.short(), manual, vchan.PortGUI) })
	gui, err := own.Listen(h.short(), dom0, vchan.PortGUI)
	if err != nil {
		t.Fatal(err)
	}
	defer gui.Close()
	a := <-g
	if a.err != nil || a.ch.Region != nil {
		t.Fatal(a)
	}
	sameStream(t, gui, a.ch)
	a.ch.Close()
}
