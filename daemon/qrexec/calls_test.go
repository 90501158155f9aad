package qrexec

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// pair is two qubes whose agents have said hello.
type pair struct {
	*house
	work, mail           *vchan.Link
	workAgent, mailAgent *vchan.Channel
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{house: newHouse(t)}
	p.work, p.mail = p.link(work), p.link(mail)
	p.workAgent, p.mailAgent = p.agent(p.work), p.agent(p.mail)
	p.decide(allow(mail))
	return p
}

// trigger asks for a service.
func (h *house) trigger(agent net.Conn, service string, id wire.Ident) {
	h.t.Helper()
	if _, err := agent.Write(wire.Trigger{Target: "mail", Service: service, Ident: id}.Message()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) execOf(agent net.Conn) wire.Exec {
	h.t.Helper()
	typ, body, err := wire.ReadMessage(agent, wire.Daemon, 4)
	if err != nil || typ != wire.ExecCmdline {
		h.t.Fatalf("%v, %v instead of EXEC_CMDLINE", typ, err)
	}
	e, err := wire.ParseExec(body)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *house) connectOf(agent net.Conn) wire.Connect {
	h.t.Helper()
	typ, body, err := wire.ReadMessage(agent, wire.Daemon, 4)
	if err != nil || typ != wire.ServiceConnect {
		h.t.Fatalf("%v, %v instead of SERVICE_CONNECT", typ, err)
	}
	c, err := wire.ParseConnect(body)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *house) refusedOf(agent net.Conn) wire.Ident {
	h.t.Helper()
	typ, body, err := wire.ReadMessage(agent, wire.Daemon, 4)
	if err != nil || typ != wire.ServiceRefused {
		h.t.Fatalf("%v, %v instead of SERVICE_REFUSED", typ, err)
	}
	id, err := wire.ParseRefused(body)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *house) terminate(agent net.Conn, d vchan.Domain, p vchan.Port) {
	h.t.Helper()
	if _, err := agent.Write(wire.Exec{Domain: d, Port: p}.Message(wire.ConnectionTerminated)); err != nil {
		h.t.Fatal(err)
	}
}

// ended waits for the end of the call that was asked last.
func (h *house) ended() control.End {
	h.t.Helper()
	m := h.expect(control.Ended, 0)
	return *m.End
}

// call makes a call from work to mail and returns both ends.
func (p *pair) call(service string, id wire.Ident) (caller, serves *vchan.Channel, port vchan.Port) {
	p.t.Helper()
	p.trigger(p.workAgent, service, id)
	e, c := p.execOf(p.mailAgent), p.connectOf(p.workAgent)
	if e.Port != c.Port || e.Domain != work || c.Domain != mail || c.Ident != id {
		p.t.Fatalf("mail was told %+v, work %+v", e, c)
	}
	a := later(func() (*vchan.Channel, error) { return p.work.Listen(p.short(), c.Domain, c.Port) })
	serves, err := p.mail.Dial(p.short(), e.Domain, e.Port)
	if err != nil {
		p.t.Fatal(err)
	}
	got := <-a
	if got.err != nil {
		p.t.Fatal(got.err)
	}
	for _, ch := range []*vchan.Channel{got.ch, serves} {
		p.t.Cleanup(func() { ch.Close() })
		if err := ch.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
	}
	return got.ch, serves, c.Port
}

// TestQubeToQube is a whole call: ports, streams of their own, half-closes,
// the ports' release and what qubesd is told.
func TestQubeToQube(t *testing.T) {
	p := newPair(t)
	caller, serves, port := p.call("t.Svc", "SOCKET11")
	if port != 513 { // work's domain is the smaller one
		t.Errorf("port %d", port)
	}
	asked := p.expect(control.Asked, 0).Call
	if asked.Source != work || asked.Service != "t.Svc" || asked.Target != "mail" || asked.RequestedSource == nil || *asked.RequestedSource != "" {
		t.Errorf("asked %+v", asked)
	}
	sameStream(t, caller, serves)
	if err := caller.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := serves.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the caller's half-close: %v", err)
	}
	if _, err := serves.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	serves.Close()
	p.terminate(p.mailAgent, work, 513)
	if got, err := io.ReadAll(caller); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
	end := p.ended()
	if end.Number != asked.Number || end.Error != "" || end.Connect <= 0 || end.Service <= 0 {
		t.Errorf("end %+v", end)
	}
	// Work has not said that it is over: the number would be ambiguous.
	if _, _, port := p.call("t.Svc", "SOCKET12"); port != 515 {
		t.Errorf("the second call has port %d", port)
	}
	caller.Close()
	p.terminate(p.workAgent, mail, 513)
	p.terminate(p.workAgent, mail, 513) // twice is nothing
	p.terminate(p.workAgent, dom0, 515) // another peer's
	if _, _, port := p.call("t.Svc", "SOCKET13"); port != 513 {
		t.Errorf("the third call has port %d", port)
	}
	// The other way the even ports are used.
	p.decide(allow(work))
	p.trigger(p.mailAgent, "t.Svc", "SOCKET1")
	if e, c := p.execOf(p.workAgent), p.connectOf(p.mailAgent); e.Port != 514 || c.Port != 514 || e.Domain != mail || c.Domain != work {
		t.Errorf("%+v, %+v", e, c)
	}
}

// TestSeenBytes compares a call's messages with upstream's (spec/qrexec.md
// §7), but for the numbers of domains.
func TestSeenBytes(t *testing.T) {
	p := newPair(t)
	p.decide(func(control.Call) *control.Verdict {
		return &control.Verdict{Allowed: true, Target: mail, Command: "user:QUBESRPC t.Svc+k work"}
	})
	p.trigger(p.workAgent, "t.Svc+k", "SOCKET11")
	read := func(agent net.Conn, want string) {
		t.Helper()
		b, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(b))
		if _, err := io.ReadFull(agent, got); err != nil || !bytes.Equal(got, b) {
			t.Errorf("got  %x, %v\nwant %x", got, err, b)
		}
	}
	read(p.mailAgent, "00020000 23000000 01800000 01020000"+hex.EncodeToString([]byte("user:QUBESRPC t.Svc+k work\x00")))
	read(p.workAgent, "02020000 28000000 02800000 01020000"+hex.EncodeToString([]byte("SOCKET11"))+strings.Repeat("00", 24))
	p.decide(deny)
	p.trigger(p.workAgent, "t.Svc+k", "SOCKET12")
	read(p.workAgent, "03020000 20000000"+hex.EncodeToString([]byte("SOCKET12"))+strings.Repeat("00", 24))
}

// TestServiceFirst: a service that was done before the caller came for its
// end has not spoken in vain.
func TestServiceFirst(t *testing.T) {
	p := newPair(t)
	p.trigger(p.workAgent, "t.Svc", "SOCKET1")
	e, c := p.execOf(p.mailAgent), p.connectOf(p.workAgent)
	serves, err := p.mail.Dial(p.short(), e.Domain, e.Port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serves.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	serves.Close()
	p.terminate(p.mailAgent, e.Domain, e.Port)
	p.trigger(p.mailAgent, "", "SOCKET2") // what was sent before is read now
	p.refusedOf(p.mailAgent)
	caller, err := p.work.Listen(p.short(), c.Domain, c.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if got, err := io.ReadAll(caller); err != nil || string(got) != "early" {
		t.Errorf("%q, %v", got, err)
	}
	if end := p.ended(); end.Error != "" {
		t.Error(end.Error)
	}
}

// TestCallEndsBeforeItBegins: whoever waits on the other side hears of it.
func TestCallEndsBeforeItBegins(t *testing.T) {
	p := newPair(t)
	p.trigger(p.workAgent, "t.Svc", "SOCKET1")
	e, c := p.execOf(p.mailAgent), p.connectOf(p.workAgent)
	caller, err := p.work.Listen(p.short(), c.Domain, c.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	p.terminate(p.mailAgent, e.Domain, e.Port)
	if _, err := caller.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the caller read %v", err)
	}
	if end := p.ended(); end.Error == "" {
		t.Error("no error is told")
	}
	p.terminate(p.workAgent, c.Domain, c.Port)

	// The caller is gone when the verdict comes: its agent says so.
	p.trigger(p.workAgent, "t.Svc", "SOCKET2")
	e, c = p.execOf(p.mailAgent), p.connectOf(p.workAgent)
	p.terminate(p.workAgent, c.Domain, c.Port)
	if end := p.ended(); end.Error == "" {
		t.Error("no error is told")
	}
	if _, err := p.mail.Dial(p.short(), e.Domain, e.Port); reasonOf(err) != vchan.ReasonGone {
		t.Errorf("the service got %v", err)
	}
}

// TestGivingUp: qubesd hears that nobody waits any more, and a verdict that
// comes then does nothing.
func TestGivingUp(t *testing.T) {
	p := newPair(t)
	p.decide(func(control.Call) *control.Verdict { return nil })
	gaveUp, ok := wire.GaveUpMessage("SOCKET7")
	if !ok {
		t.Fatal("no such message")
	}
	p.trigger(p.workAgent, "t.Svc", "SOCKET7")
	number := p.expect(control.Asked, 0).Call.Number
	for range 2 { // twice is nothing
		if _, err := p.workAgent.Write(gaveUp); err != nil {
			t.Fatal(err)
		}
	}
	if end := p.ended(); end.Number != number || end.Error == "" {
		t.Errorf("%+v", end)
	}
	p.send(control.Message{Kind: control.Decided, Verdict: &control.Verdict{Number: number, Allowed: true, Target: mail, Command: "user:QUBESRPC t.Svc+ work"}})

	// Upstream's agent says nothing, but gives the name to the next.
	p.trigger(p.workAgent, "t.Svc", "SOCKET8")
	number = p.expect(control.Asked, 0).Call.Number
	p.decide(deny)
	p.trigger(p.workAgent, "t.Svc", "SOCKET8")
	if end := p.ended(); end.Number != number {
		t.Errorf("%+v", end)
	}
	if id := p.refusedOf(p.workAgent); id != "SOCKET8" {
		t.Errorf("refused %q", id)
	}
	p.expect(control.Asked, 0) // the second

	// The agent is lost.
	p.decide(func(control.Call) *control.Verdict { return nil })
	p.trigger(p.workAgent, "t.Svc", "SOCKET9")
	number = p.expect(control.Asked, 0).Call.Number
	p.workAgent.Close()
	if end := p.ended(); end.Number != number {
		t.Errorf("%+v", end)
	}
}

// TestWaitingIsBounded: calls without a verdict, by number and by size.
func TestWaitingIsBounded(t *testing.T) {
	p := newPair(t)
	p.decide(func(control.Call) *control.Verdict { return nil })
	go func() { // answers come while we ask
		for i := range maxWaiting + 1 {
			id := wire.Ident("S" + strings.Repeat("x", i%20) + string(rune('a'+i/20)))
			if _, err := p.workAgent.Write(wire.Trigger{Service: "t.Svc", Ident: id}.Message()); err != nil {
				return
			}
		}
	}()
	p.refusedOf(p.workAgent)
	go func() {
		for i := range maxWaitingBytes/64000 + 1 {
			if _, err := p.mailAgent.Write(wire.Trigger{Service: "t." + strings.Repeat("y", 200) + "+" + strings.Repeat("s", 64000), Ident: wire.Ident("S" + string(rune('a'+i)))}.Message()); err != nil {
				return
			}
		}
	}()
	p.refusedOf(p.mailAgent)
}

// TestLostQubesd: what it was asked is refused, what it allowed goes on and is
// named to the next.
func TestLostQubesd(t *testing.T) {
	p := newPair(t)
	caller, serves, _ := p.call("t.Svc", "SOCKET1")
	number := p.expect(control.Asked, 0).Call.Number
	p.decide(func(control.Call) *control.Verdict { return nil })
	p.trigger(p.workAgent, "t.Svc", "SOCKET2")
	p.expect(control.Asked, 0)
	hello := p.newQubesd()
	if id := p.refusedOf(p.workAgent); id != "SOCKET2" {
		t.Errorf("refused %q", id)
	}
	if len(hello.Running) != 1 || hello.Running[0] != (control.Running{Number: number, Source: work, Service: "t.Svc", Target: mail}) {
		t.Errorf("running: %+v", hello.Running)
	}
	sameStream(t, caller, serves)
	caller.Close()
	serves.Close()
	if end := p.ended(); end.Number != number || end.Error != "" {
		t.Errorf("%+v", end)
	}
}

// TestVerdictsThatCannotBe: the caller is refused, and qubesd told why.
func TestVerdictsThatCannotBe(t *testing.T) {
	p := newPair(t)
	for name, v := range map[string]control.Verdict{
		"no such domain":   {Target: 0x9999, Command: "user:QUBESRPC t.Svc+ work"},
		"no agent":         {Target: manual, Command: "user:QUBESRPC t.Svc+ work"},
		"the caller":       {Target: work, Command: "user:QUBESRPC t.Svc+ work"},
		"no user":          {Target: mail, Command: "QUBESRPC t.Svc+ work"},
		"no command":       {Target: mail},
		"too long":         {Target: mail, Command: "user:" + strings.Repeat("x", wire.MaxExecBody)},
		"dom0, no command": {Target: dom0},
	} {
		v.Allowed = true
		p.decide(func(control.Call) *control.Verdict { return &v })
		p.trigger(p.workAgent, "t.Svc", "SOCKET1")
		if id := p.refusedOf(p.workAgent); id != "SOCKET1" {
			t.Errorf("%s: refused %q", name, id)
		}
		if end := p.ended(); end.Error == "" {
			t.Errorf("%s: no error is told", name)
		}
	}
}

// TestQubeGoesDown: its peer reads what came before, and then the end.
func TestQubeGoesDown(t *testing.T) {
	p := newPair(t)
	caller, serves, _ := p.call("t.Svc", "SOCKET1")
	if _, err := serves.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	p.send(control.Message{Kind: control.Down, Domain: mail})
	if got, err := io.ReadAll(caller); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
	caller.Close()
	if end := p.ended(); end.Error != "" {
		t.Error(end.Error)
	}
}

// free waits until a port of a qube is.
func (p *pair) free(d vchan.Domain, port vchan.Port) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		busy := false
		p.router.mu.Lock()
		for _, l := range p.router.qubes[d].legs {
			busy = busy || l.port == port
		}
		p.router.mu.Unlock()
		if !busy {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("port %d of domain %d stays busy", port, d)
		}
	}
}

// TestLostAgentKeepsItsChannel: the port is busy as long as the data channel
// lives, and is found again after that.
func TestLostAgentKeepsItsChannel(t *testing.T) {
	p := newPair(t)
	caller, serves, port := p.call("t.Svc", "SOCKET1")
	p.mailAgent.Close()
	p.expect(control.Lost, mail)
	p.mailAgent = p.agent(p.mail)
	sameStream(t, caller, serves)
	other, _, port2 := p.call("t.Svc", "SOCKET2")
	if port2 == port {
		t.Errorf("port %d twice", port)
	}
	other.Close()
	caller.Close()
	serves.Close()
	p.terminate(p.workAgent, mail, port)
	p.terminate(p.workAgent, mail, port2)
	p.ended()
	p.free(mail, port)
	if _, _, again := p.call("t.Svc", "SOCKET3"); again != port {
		t.Errorf("port %d, want %d", again, port)
	}
}

// TestLostAgentOfAnEndedCall: what an agent did not say in its life it never
// will, and its port is free again.
func TestLostAgentOfAnEndedCall(t *testing.T) {
	p := newPair(t)
	caller, serves, port := p.call("t.Svc", "SOCKET1")
	caller.Close()
	serves.Close()
	p.ended()
	p.terminate(p.workAgent, mail, port)
	p.mailAgent.Close()
	p.expect(control.Lost, mail)
	p.mailAgent = p.agent(p.mail)
	p.free(mail, port)
	if _, _, again := p.call("t.Svc", "SOCKET2"); again != port {
		t.Errorf("port %d, want %d", again, port)
	}
}
