package qrexec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

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

// TestNeverAnswers: a side that does not come for its end, and one that is not
// told of.
func TestNeverAnswers(t *testing.T) {
	p := newPair(t)
	p.router.mu.Lock()
	p.router.patience = 50 * time.Millisecond
	p.router.mu.Unlock()
	p.trigger(p.workAgent, "t.Svc", "SOCKET1")
	e, c := p.execOf(p.mailAgent), p.connectOf(p.workAgent)
	caller, err := p.work.Listen(p.short(), c.Domain, c.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if _, err := caller.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the caller read %v", err)
	}
	if end := p.ended(); end.Error == "" {
		t.Error("no error is told")
	}
	if _, err := p.mail.Dial(p.short(), e.Domain, e.Port); reasonOf(err) != vchan.ReasonGone {
		t.Errorf("too late: %v", err)
	}
	// As long as the agents do not say that it is over, its port is busy.
	p.trigger(p.workAgent, "t.Svc", "SOCKET2")
	if e := p.execOf(p.mailAgent); e.Port != 515 {
		t.Errorf("port %d", e.Port)
	}
}

// TestPace: a flood of calls waits, a burst does not.
func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPace(now)
	for i := range callBurst {
		if wait := p.take(now); wait > 0 {
			t.Fatalf("call %d waits for %v", i, wait)
		}
	}
	for i := range 10 {
		if wait := p.take(now); wait != time.Duration(i+1)*callEvery {
			t.Errorf("call %d after the burst waits for %v", i, wait)
		}
	}
	now = now.Add(time.Hour)
	for i := range callBurst { // no more than a burst is saved up
		if wait := p.take(now); wait > 0 {
			t.Fatalf("call %d waits for %v", i, wait)
		}
	}
	if p.take(now) == 0 {
		t.Error("an hour of silence allows more than a burst")
	}
}

// TestCallFlood: calls that are all refused, from an agent that reads: it is
// slowed, and its neighbour's call is made meanwhile.
func TestCallFlood(t *testing.T) {
	p := newPair(t)
	p.decide(func(c control.Call) *control.Verdict {
		if c.Source == work {
			return deny(c)
		}
		return allow(work)(c)
	})
	const calls = callBurst + 400
	outstanding := make(chan struct{}, maxWaiting) // as many as an agent has
	go func() {
		for i := range calls {
			outstanding <- struct{}{}
			if _, err := p.workAgent.Write(wire.Trigger{Service: "t.Flood", Ident: wire.Ident(fmt.Sprintf("SOCKET%d", i))}.Message()); err != nil {
				return
			}
		}
	}()
	for i := range calls {
		if i == callBurst/2 {
			p.trigger(p.mailAgent, "t.Svc", "SOCKET1")
		}
		typ, _, err := wire.ReadMessage(p.workAgent, wire.Daemon, 4)
		if typ == wire.ExecCmdline {
			typ, _, err = wire.ReadMessage(p.workAgent, wire.Daemon, 4)
		}
		if err != nil || typ != wire.ServiceRefused {
			t.Fatalf("call %d: %v, %v", i, typ, err)
		}
		<-outstanding
	}
	p.connectOf(p.mailAgent)
}

// TestClaimsAnotherSource: who calls is known by the channel; the field for
// relays is passed on as what it is, a claim.
func TestClaimsAnotherSource(t *testing.T) {
	p := newPair(t)
	p.decide(deny)
	if _, err := p.workAgent.Write(wire.Trigger{Source: "dom0", Target: "mail", Service: "t.Svc", Ident: "SOCKET1"}.Message()); err != nil {
		t.Fatal(err)
	}
	p.refusedOf(p.workAgent)
	if call := p.expect(control.Asked, 0).Call; call.Source != work || *call.RequestedSource != "dom0" {
		t.Errorf("%+v", call)
	}
}

// TestStolenChannels: a qube gets no channel to another qube but those of its
// own calls, and each once.
func TestStolenChannels(t *testing.T) {
	p := newPair(t)
	_, _, port := p.call("t.Svc", "SOCKET1")
	for _, c := range []struct {
		name string
		ask  func() (*vchan.Channel, error)
		want vchan.Reason
	}{
		{"the caller again", func() (*vchan.Channel, error) { return p.work.Listen(p.short(), mail, port) }, vchan.ReasonBusy},
		{"the service again", func() (*vchan.Channel, error) { return p.mail.Dial(p.short(), work, port) }, vchan.ReasonBusy},
		{"the caller as service", func() (*vchan.Channel, error) { return p.work.Dial(p.short(), mail, port) }, vchan.ReasonNotAllowed},
		{"the service as caller", func() (*vchan.Channel, error) { return p.mail.Listen(p.short(), work, port) }, vchan.ReasonNotAllowed},
		{"another port", func() (*vchan.Channel, error) { return p.work.Listen(p.short(), mail, port+2) }, vchan.ReasonNotAllowed},
		{"dom0's port", func() (*vchan.Channel, error) { return p.work.Listen(p.short(), dom0, port) }, vchan.ReasonNotAllowed},
		{"a qube that is not there", func() (*vchan.Channel, error) { return p.work.Listen(p.short(), 0x9999, port) }, vchan.ReasonNotAllowed},
		{"itself", func() (*vchan.Channel, error) { return p.work.Listen(p.short(), work, port) }, vchan.ReasonNotAllowed},
		{"no data port", func() (*vchan.Channel, error) { return p.work.Listen(p.short(), mail, 6000) }, vchan.ReasonNotAllowed},
	} {
		ch, err := c.ask()
		if err == nil {
			ch.Close()
		}
		if reasonOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestSendsAfterClose: what a service sends after its agent has said that the
// call is over goes nowhere, and stops at once.
func TestSendsAfterClose(t *testing.T) {
	p := newPair(t)
	caller, serves, port := p.call("t.Svc", "SOCKET1")
	sameStream(t, caller, serves)
	p.terminate(p.mailAgent, work, port)
	if _, err := caller.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	for {
		if _, err := serves.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, unix.EPIPE) {
				t.Error(err)
			}
			break
		}
	}
}

// TestStalledQube stops only its own call: what it does not read stays where
// it was, and is bounded.
func TestStalledQube(t *testing.T) {
	p := newPair(t)
	_, serves, _ := p.call("t.Svc", "SOCKET1")
	if err := serves.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(serves, endlessZeros{})
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	if n > 4<<20 {
		t.Errorf("%d bytes were taken of a call that nobody reads", n)
	}
	a, b, _ := p.call("t.Svc", "SOCKET2")
	sameStream(t, a, b)
}

type endlessZeros struct{}

func (endlessZeros) Read(p []byte) (int, error) { return len(p), nil }

// TestNamesAreCleaned before anybody sees them (spec/qrexec.md §9).
func TestNamesAreCleaned(t *testing.T) {
	p := newPair(t)
	p.decide(deny)
	for _, c := range []struct {
		tr                      wire.Trigger
		service, target, source string // empty service: refused unasked
	}{
		{wire.Trigger{Source: "a b/c", Target: "../dom0\x01", Service: "t.Svc/../../x\n+a\x7fé"}, "t.Svc_.._.._x_+a___", ".._dom0_", "a_b_c"},
		{wire.Trigger{Target: "@dispvm:b c", Service: "t.Svc+"}, "t.Svc+", "@dispvm:b_c", ""},
		{wire.Trigger{Service: "+x"}, "", "", ""},
		{wire.Trigger{Service: strings.Repeat("n", 256)}, "", "", ""},
	} {
		c.tr.Ident = "SOCKET1"
		if _, err := p.workAgent.Write(c.tr.Message()); err != nil {
			t.Fatal(err)
		}
		p.refusedOf(p.workAgent)
		if c.service == "" {
			continue
		}
		call := p.expect(control.Asked, 0).Call
		if call.Service != c.service || call.Target != c.target || *call.RequestedSource != c.source || call.Source != work {
			t.Errorf("asked %+v", call)
		}
	}
}

// TestDescriptorsBetweenQubes: a call carries bytes and nothing else.
func TestDescriptorsBetweenQubes(t *testing.T) {
	p := newPair(t)
	caller, serves, _ := p.call("t.Svc", "SOCKET1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, _, err := caller.Conn.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := serves.Conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if n != 1 || oobn != 0 || err != nil {
		t.Errorf("%d bytes and %d of control came, %v", n, oobn, err)
	}
	if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF { // the last copy is gone
		t.Errorf("somebody still holds the descriptor: %v", err)
	}
}
