package qrexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
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

// house is a router in this process, with a qubesd of its own.
type house struct {
	t      testing.TB
	root   paths.Root
	ctx    context.Context
	router *Router
	conn   *control.Conn
	news   chan control.Message
}

// newHouse starts a router and tells it of qubes work and mail.
func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, root: paths.Root(filepath.Join(t.TempDir(), strings.Repeat("long-", 20))), news: make(chan control.Message, 10000)}
	for _, dir := range []string{h.root.RunQubes(), h.root.Links(), h.root.Vchan()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := vchan.ListenPath(h.root.Router())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	h.router = New(Options{Root: h.root})
	ended := make(chan error, 1)
	go func() { ended <- h.router.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	h.conn = control.NewConn(raw)
	go func() {
		defer raw.Close()
		for {
			m, err := h.conn.Receive()
			if err != nil {
				return
			}
			h.news <- m
		}
	}()
	for d, name := range map[vchan.Domain]string{work: "work", mail: "mail", manual: "manual"} {
		dir := ""
		if d != manual {
			dir = filepath.Join(h.root.Links(), strconv.Itoa(int(d)))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		h.send(control.Message{Kind: control.Up, Qube: &control.Qube{Domain: d, Name: name, DefaultUser: "user", LinkDir: dir}})
		h.expect(control.Listening, d)
	}
	h.send(control.Message{Kind: control.Synced})
	return h
}

func (h *house) send(m control.Message) {
	h.t.Helper()
	if err := h.conn.Send(m); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) expect(k control.Kind, d vchan.Domain) control.Message {
	h.t.Helper()
	for {
		select {
		case m := <-h.news:
			if m.Kind == k && m.Domain == d {
				return m
			}
		case <-time.After(5 * time.Second):
			h.t.Fatalf("no %s of %d", k, d)
		}
	}
}

func (h *house) short() context.Context {
	ctx, cancel := context.WithTimeout(h.ctx, 5*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *house) linkPath(d vchan.Domain) string {
	return filepath.Join(h.root.Links(), strconv.Itoa(int(d)), paths.LinkSocket)
}

// raw connects to a qube's link without a hello.
func (h *house) raw(d vchan.Domain) *net.UnixConn {
	h.t.Helper()
	c, err := vchan.DialPath(h.short(), h.linkPath(d))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// link is a qube's link, or at domain 0 a program's at the broker.
func (h *house) link(d vchan.Domain) *vchan.Link {
	h.t.Helper()
	path := h.root.Broker()
	if d != dom0 {
		path = h.linkPath(d)
	}
	l, err := vchan.DialLink(h.short(), path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { l.Close() })
	if l.Self() != d {
		h.t.Fatalf("own domain %d, want %d", l.Self(), d)
	}
	return l
}

// agent is the control channel of a qube whose agent has said hello.
func (h *house) agent(l *vchan.Link) *vchan.Channel {
	h.t.Helper()
	ch, err := l.Listen(h.short(), dom0, vchan.PortQrexec)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { ch.Close() })
	if err := ch.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := ch.Write(wire.HelloMessage(4)); err != nil {
		h.t.Fatal(err)
	}
	if v, err := wire.ReadHello(ch); v != 4 || err != nil {
		h.t.Fatalf("hello %d, %v", v, err)
	}
	h.expect(control.Ready, l.Self())
	return ch
}

type asked struct {
	ch  *vchan.Channel
	err error
}

// later asks in the background.
func later(ask func() (*vchan.Channel, error)) <-chan asked {
	c := make(chan asked, 1)
	go func() {
		ch, err := ask()
		c <- asked{ch, err}
	}()
	return c
}

func reasonOf(err error) vchan.Reason {
	var r *vchan.RefusedError
	if errors.As(err, &r) {
		return r.Reason
	}
	return 0
}

// sameStream sends a word each way.
func sameStream(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := p[0].Write([]byte("word")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if _, err := io.ReadFull(p[1], buf); err != nil || string(buf) != "word" {
			t.Fatalf("%q, %v", buf, err)
		}
	}
}

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

// TestBrokerOtherPorts: dom0 may also be the server (QubesDB), and such a
// channel has no region.
func TestBrokerOtherPorts(t *testing.T) {
	h := newHouse(t)
	qube, db := h.link(work), h.link(dom0)
	q := later(func() (*vchan.Channel, error) { return qube.Dial(h.short(), dom0, vchan.PortQubesDB) })
	ch, err := db.Listen(h.short(), work, vchan.PortQubesDB)
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

// TestHostileLinks: a bad frame closes the qube's link, and no other's.
func TestHostileLinks(t *testing.T) {
	h := newHouse(t)
	hello := vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion}.AppendTo(nil)
	frame := func(f vchan.LinkFrame) []byte { return append(bytes.Clone(hello), f.AppendTo(nil)...) }
	listen := vchan.LinkFrame{Op: vchan.LinkListen, Request: 1, Port: 6000}
	neighbour := h.link(mail)
	for name, b := range map[string][]byte{
		"noise":               bytes.Repeat([]byte{0xff}, 64),
		"another version":     vchan.LinkFrame{Op: vchan.LinkHello, Request: 99}.AppendTo(nil),
		"no hello":            listen.AppendTo(nil),
		"second hello":        frame(vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion}),
		"unknown frame":       frame(vchan.LinkFrame{Op: 77}),
		"our own frame":       frame(vchan.LinkFrame{Op: vchan.LinkChannel, Request: 1}),
		"a used id":           append(frame(listen), listen.AppendTo(nil)...),
		"an answer to itself": frame(vchan.LinkFrame{Op: vchan.LinkRefused, Request: 1, Domain: 1}),
	} {
		c := h.raw(work)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: not closed: %v", name, err)
		}
		if len(rest) > vchan.LinkFrameSize {
			t.Errorf("%s: answered with %d bytes", name, len(rest))
		}
		c.Close()
	}
	// Half a frame, then the end.
	c := h.raw(work)
	if _, err := c.Write(hello[:7]); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case <-neighbour.Done():
		t.Error("the neighbour lost its link")
	default:
	}
	h.agent(h.link(work)) // the qube itself can come back
}

// TestAskFlood: requests are bounded, and a peer that reads no answers loses
// its link.
func TestAskFlood(t *testing.T) {
	h := newHouse(t)
	c := h.raw(work)
	b := vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion}.AppendTo(nil)
	for i := range uint32(maxAsks + 10) {
		b = vchan.LinkFrame{Op: vchan.LinkListen, Request: i, Port: vchan.Port(10000 + i)}.AppendTo(b)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	if f, _, err := vchan.ReadLinkFrame(c, false); err != nil || f.Op != vchan.LinkHello {
		t.Fatal(f, err)
	}
	for i := range uint32(10) {
		f, _, err := vchan.ReadLinkFrame(c, false)
		if err != nil || f.Op != vchan.LinkRefused || f.Request != maxAsks+i || vchan.Reason(f.Domain) != vchan.ReasonTooMany {
			t.Fatalf("answer %d: %+v, %v", i, f, err)
		}
	}
	flood := vchan.LinkFrame{Op: vchan.LinkDial, Request: 1 << 20, Domain: mail, Port: 1}.AppendTo(nil)
	for {
		if _, err := c.Write(flood); err != nil {
			if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the flood ended with %v", err)
			}
			break
		}
	}
	h.agent(h.link(work))
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

// TestDescriptorsFromAQube are never taken: this process has no more of them
// afterwards.
func TestDescriptorsFromAQube(t *testing.T) {
	h := newHouse(t)
	l := h.link(work)
	ch := h.agent(l)
	ctrl, ok := ch.Conn.(*net.UnixConn)
	if !ok {
		t.Fatalf("%T", ch.Conn)
	}
	before := openFiles(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	rights := unix.UnixRights(int(w.Fd()))
	c := h.raw(mail)
	hello := vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion}.AppendTo(nil)
	if _, _, err := c.WriteMsgUnix(hello, rights, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ctrl.WriteMsgUnix(wire.Exec{Port: 600}.Message(wire.ConnectionTerminated), rights, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := vchan.ReadLinkFrame(c, false); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF { // the last copy is gone
		t.Errorf("somebody still holds the descriptor: %v", err)
	}
	r.Close()
	if after := openFiles(t); after > before+2 { // the connection of mail: both ends are in this process
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestHostileAgents: nonsense on the control channel loses that channel, and
// the qube may open it again.
func TestHostileAgents(t *testing.T) {
	h := newHouse(t)
	hello := wire.HelloMessage(4)
	after := func(b []byte) []byte { return append(bytes.Clone(hello), b...) }
	badIdent := wire.Trigger{Target: "mail", Service: "t.Svc"}.Message()
	badIdent[wire.HeaderSize+128] = '/'
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"noise", bytes.Repeat([]byte{0xff}, 100)},
		{"old version", wire.HelloMessage(1)},
		{"long hello", wire.Message(wire.Hello, make([]byte, 8))},
		{"message before hello", wire.Exec{}.Message(wire.ConnectionTerminated)},
		{"exec from an agent", after(wire.Exec{Port: 513, Command: "user:id"}.Message(wire.ExecCmdline))},
		{"data on the control channel", after(wire.Message(wire.DataStdin, []byte("x")))},
		{"gigantic length", after(wire.Header{Type: wire.TriggerService4, Length: 0xffffffff}.AppendTo(nil))},
		{"old trigger", after(wire.Message(wire.TriggerService, make([]byte, 128)))},
		{"bad ident", after(badIdent)},
		{"end of a call with a command", after(wire.Exec{Port: 513, Command: "x"}.Message(wire.ConnectionTerminated))},
	} {
		l := h.link(work)
		ch, err := l.Listen(h.short(), dom0, vchan.PortQrexec)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := ch.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := ch.Write(c.bytes); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(ch); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: not closed: %v (%x)", c.name, err, rest)
		}
		ch.Close()
		l.Close()
	}
	h.agent(h.link(work))
}

// TestCallsOutAreDenied: without a policy nothing is allowed.
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

// TestRefusalFlood: an agent that asks without reading loses its control
// channel, while its neighbour's calls go on.
func TestRefusalFlood(t *testing.T) {
	h := newHouse(t)
	flooder := h.agent(h.link(work))
	neighbour := h.agent(h.link(mail))
	msg := wire.Trigger{Target: "mail", Service: "t.Svc", Ident: "S"}.Message()
	for {
		if _, err := flooder.Write(msg); err != nil {
			if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the flood ended with %v", err)
			}
			break
		}
	}
	h.expect(control.Lost, work)
	if _, err := neighbour.Write(msg); err != nil {
		t.Fatal(err)
	}
	if typ, _, err := wire.ReadMessage(neighbour, wire.Daemon, 4); err != nil || typ != wire.ServiceRefused {
		t.Errorf("the neighbour got %v, %v", typ, err)
	}
}

// local connects to a qube's local socket and says hello.
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

// TestHostileClients: dom0's programs too must keep to the protocol.
func TestHostileClients(t *testing.T) {
	h := newHouse(t)
	h.agent(h.link(work))
	for name, b := range map[string][]byte{
		"noise":            bytes.Repeat([]byte{0xff}, 64),
		"no user":          wire.Exec{Command: "id"}.Message(wire.ExecCmdline),
		"no command":       wire.Exec{}.Message(wire.ExecCmdline),
		"service connect":  wire.Connect{Ident: "SOCKET1"}.Message(),
		"bad service":      wire.Exec{Command: "user:QUBESRPC  x y"}.Message(wire.ExecCmdline),
		"after a command":  append(wire.Exec{Command: "user:id"}.Message(wire.ExecCmdline), 'x'),
		"a gigantic frame": wire.Header{Type: wire.ExecCmdline, Length: 1 << 31}.AppendTo(nil),
	} {
		c := h.local("work")
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: not closed: %v", name, err)
		}
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

// TestRelayKeepsHalfCloses and passes all bytes.
func TestRelayKeepsHalfCloses(t *testing.T) {
	pair := func() (*net.UnixConn, *net.UnixConn) {
		t.Helper()
		a, b, err := pairFiles()
		if err != nil {
			t.Fatal(err)
		}
		x, err := fileConn(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := fileConn(b)
		if err != nil {
			t.Fatal(err)
		}
		return x, y
	}
	a, guest := pair()
	host, b := pair()
	ended := make(chan struct{})
	go func() { relay(guest, host); close(ended) }()
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = a.Write(long)
		_ = a.CloseWrite()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, long) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := b.Write([]byte("the other way is open")); err != nil { // after the half-close
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "the other way is open" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	a.Close()
	<-ended
}

// TestRelayDeliversBeforeTheEnd: what a side sent before it closed arrives,
// even when it left input unread (which resets a UNIX stream).
func TestRelayDeliversBeforeTheEnd(t *testing.T) {
	for range 50 {
		af, gf, err := pairFiles()
		if err != nil {
			t.Fatal(err)
		}
		hf, bf, err := pairFiles()
		if err != nil {
			t.Fatal(err)
		}
		var c [4]*net.UnixConn
		for i, f := range []*os.File{af, gf, hf, bf} {
			if c[i], err = fileConn(f); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan struct{})
		go func() { relay(c[1], c[2]); close(ended) }()
		if _, err := c[3].Write(make([]byte, 100000)); err != nil {
			t.Fatal(err)
		}
		if _, err := c[0].Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		c[0].Close()
		if got, err := io.ReadAll(c[3]); string(got) != "last words" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		c[3].Close()
		<-ended
	}
}
