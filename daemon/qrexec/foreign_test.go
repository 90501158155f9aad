package qrexec

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// The tests of this file play agents and programs by hand, byte by byte, on
// upstream's sockets, with the numbers of spec/qrexec.md §7: qube 7 is "work",
// qube 8 "mail".
const (
	seven vchan.Domain = 7
	eight vchan.Domain = 8
)

// octets reads a script: bytes in hex, 'texts', and 00*24 for a repetition.
func octets(t testing.TB, script string) []byte {
	t.Helper()
	var b []byte
	for i, part := range strings.Split(script, "'") {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		for word := range strings.FieldsSeq(part) {
			digits, times, _ := strings.Cut(word, "*")
			n := 1
			if times != "" {
				if _, err := fmt.Sscan(times, &n); err != nil {
					t.Fatal(err)
				}
			}
			piece, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatalf("%q: %v", word, err)
			}
			b = append(b, bytes.Repeat(piece, n)...)
		}
	}
	return b
}

// peer is one end of a conversation.
type peer struct {
	t testing.TB
	net.Conn
}

func (p peer) say(script string) {
	p.t.Helper()
	if _, err := p.Write(octets(p.t, script)); err != nil {
		p.t.Fatal(err)
	}
}

func (p peer) hear(script string) {
	p.t.Helper()
	want := octets(p.t, script)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, want) {
		p.t.Fatalf("heard %x, %v\nwant  %x", got[:n], err, want)
	}
}

func (p peer) hearEnd() {
	p.t.Helper()
	if n, err := p.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		p.t.Fatalf("heard %d bytes, %v instead of the end", n, err)
	}
}

// foreignHouse has the qubes 7 and 8, whose agents speak version v.
func foreignHouse(t testing.TB, v int) (h *house, work, mail peer) {
	t.Helper()
	h = newHouse(t)
	h.send(control.Message{Kind: control.Up, Qube: &control.Qube{Domain: seven, Name: "seven", UUID: "u-7", DefaultUser: "user"}})
	h.send(control.Message{Kind: control.Up, Qube: &control.Qube{Domain: eight, Name: "eight", DefaultUser: "user"}})
	h.decide(func(c control.Call) *control.Verdict {
		return &control.Verdict{Allowed: true, Target: eight, Command: "user:QUBESRPC " + c.Service + " work"}
	})
	return h, h.foreignAgent(seven, v), h.foreignAgent(eight, v)
}

func (h *house) foreignAgent(d vchan.Domain, v int) peer {
	h.t.Helper()
	own := vchan.Unix{Dir: h.root.Vchan(), Self: d}
	ch, err := own.Listen(h.short(), dom0, vchan.PortQrexec)
	if err != nil {
		h.t.Fatal(err)
	}
	p := h.peer(ch.Conn)
	p.say(fmt.Sprintf("00030000 04000000 %02x000000", v))
	p.hear(fmt.Sprintf("00030000 04000000 %02x000000", min(v, 4)))
	if m := h.expect(control.Ready, d); m.Version != uint32(min(v, 4)) {
		h.t.Errorf("version %d", m.Version)
	}
	return p
}

func (h *house) peer(conn net.Conn) peer {
	h.t.Helper()
	h.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	return peer{h.t, conn}
}

// program is a program of dom0 at a qube's local socket, after the hellos.
func (h *house) program(name string) peer {
	h.t.Helper()
	conn, err := vchan.DialPath(h.short(), filepath.Join(h.root.RunQubes(), "qrexec."+name))
	if err != nil {
		h.t.Fatal(err)
	}
	p := h.peer(conn)
	p.hear("00030000 04000000 03000000")
	p.say("00030000 04000000 03000000")
	return p
}

// channel joins a server and a client on upstream's sockets.
func (h *house) channel(server, client vchan.Domain, port vchan.Port) (s, c peer) {
	h.t.Helper()
	ch := later(func() (*vchan.Channel, error) {
		return (&vchan.Unix{Dir: h.root.Vchan(), Self: server}).Listen(h.short(), client, port)
	})
	other, err := (&vchan.Unix{Dir: h.root.Vchan(), Self: client}).Dial(h.short(), server, port)
	if err != nil {
		h.t.Fatal(err)
	}
	got := <-ch
	if got.err != nil {
		h.t.Fatal(got.err)
	}
	return h.peer(got.ch.Conn), h.peer(other.Conn)
}

// triggers are the requests of each version for t.Svc+k of the target mail.
var triggers = map[int]string{
	2: "10020000 80000000 't.Svc+k' 00*57 'mail' 00*28 'SOCKET11' 00*24",
	3: "12020000 68000000 'mail' 00*60 'SOCKET11' 00*24 't.Svc+k' 00",
	4: "13020000 a8000000 00*64 'mail' 00*60 'SOCKET11' 00*24 't.Svc+k' 00",
}

func eachVersion(t *testing.T, do func(t *testing.T, v int)) {
	for _, v := range []int{2, 3, 4, 5} {
		t.Run(fmt.Sprint("version ", v), func(t *testing.T) { do(t, v) })
	}
}

// TestForeignQubeToQube is spec/qrexec.md §7.4.
func TestForeignQubeToQube(t *testing.T) {
	eachVersion(t, func(t *testing.T, v int) {
		h, work, mail := foreignHouse(t, v)
		for range 2 { // the second finds the port free
			work.say(triggers[min(v, 4)])
			mail.hear("00020000 23000000 07000000 01020000 'user:QUBESRPC t.Svc+k work' 00")
			work.hear("02020000 28000000 08000000 01020000 'SOCKET11' 00*24")
			call := h.expect(control.Asked, 0).Call
			if call.Source != seven || call.Service != "t.Svc+k" || call.Target != "mail" || (call.RequestedSource != nil) != (v >= 4) {
				t.Errorf("asked %+v", call)
			}
			server, client := h.channel(seven, eight, 513)
			server.say("01")
			client.hear("01")
			mail.say("11020000 08000000 07000000 01020000")
			if end := h.ended(); end.Error != "" || end.Number != call.Number {
				t.Errorf("end %+v", end)
			}
			work.say("11020000 08000000 08000000 01020000")
		}
		h.decide(deny)
		work.say(triggers[min(v, 4)])
		work.hear("03020000 20000000 'SOCKET11' 00*24")
	})
}

// TestForeignWithLinked: one qube on upstream's sockets, the other on a link.
func TestForeignWithLinked(t *testing.T) {
	eachVersion(t, func(t *testing.T, v int) {
		h, seventh, _ := foreignHouse(t, v)
		link := h.link(mail)
		agent := peer{t, h.agent(link)}
		h.decide(func(c control.Call) *control.Verdict {
			return &control.Verdict{Allowed: true, Target: mail, Command: "user:QUBESRPC t.Svc+k seven"}
		})
		seventh.say(triggers[min(v, 4)])
		agent.hear("00020000 24000000 07000000 01020000 'user:QUBESRPC t.Svc+k seven' 00")
		seventh.hear("02020000 28000000 02800000 01020000 'SOCKET11' 00*24")
		serves := later(func() (*vchan.Channel, error) { return link.Dial(h.short(), seven, 513) })
		ch, err := (&vchan.Unix{Dir: h.root.Vchan(), Self: seven}).Listen(h.short(), mail, 513)
		if err != nil {
			t.Fatal(err)
		}
		caller := h.peer(ch.Conn)
		got := <-serves
		if got.err != nil {
			t.Fatal(got.err)
		}
		sameStream(t, caller, got.ch)
		got.ch.Close()
		caller.hearEnd()
		agent.say("11020000 08000000 07000000 01020000")
		seventh.say("11020000 08000000 02800000 01020000")
		if end := h.ended(); end.Error != "" || end.Connect <= 0 {
			t.Errorf("end %+v", end)
		}

		// The other way: the daemon of 7 chooses, and takes even ports.
		h.decide(func(c control.Call) *control.Verdict {
			return &control.Verdict{Allowed: true, Target: seven, Command: "user:QUBESRPC t.Svc+k mail"}
		})
		agent.say(triggers[4])
		seventh.hear("00020000 23000000 02800000 02020000 'user:QUBESRPC t.Svc+k mail' 00")
		agent.hear("02020000 28000000 07000000 02020000 'SOCKET11' 00*24")
		listens := later(func() (*vchan.Channel, error) { return link.Listen(h.short(), seven, 514) })
		ch, err = (&vchan.Unix{Dir: h.root.Vchan(), Self: seven}).Dial(h.short(), mail, 514)
		if err != nil {
			t.Fatal(err)
		}
		served := h.peer(ch.Conn)
		if got = <-listens; got.err != nil {
			t.Fatal(got.err)
		}
		sameStream(t, got.ch, served)
		served.Close()
		if _, err := got.ch.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		got.ch.Close()
	})
}

// TestForeignToDom0 is spec/qrexec.md §7.3, with dom0's service runner.
func TestForeignToDom0(t *testing.T) {
	eachVersion(t, func(t *testing.T, v int) {
		h, work, _ := foreignHouse(t, v)
		l, err := vchan.ListenPath(h.root.Services())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		h.decide(func(control.Call) *control.Verdict {
			return &control.Verdict{Allowed: true, Command: "QUBESRPC t.Svc+k work keyword adminvm"}
		})
		for range 2 {
			work.say(triggers[min(v, 4)])
			work.hear("02020000 28000000 00000000 01020000 'SOCKET11' 00*24")
			ch, err := (&vchan.Unix{Dir: h.root.Vchan(), Self: seven}).Listen(h.short(), dom0, 513)
			if err != nil {
				t.Fatal(err)
			}
			caller := h.peer(ch.Conn)
			conn, err := l.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			ho, file, err := control.ReceiveHandover(conn)
			if err != nil || ho.Command != "QUBESRPC t.Svc+k work keyword adminvm" || ho.Source != "seven" {
				t.Fatal(ho, err)
			}
			data, err := fileConn(file)
			if err != nil {
				t.Fatal(err)
			}
			caller.say("00030000 04000000 04000000")
			service := h.peer(data)
			service.hear("00030000 04000000 04000000")
			service.say("93010000 04000000 00000000")
			caller.hear("93010000 04000000 00000000")
			data.Close()
			conn.Close() // the service is over
			caller.hearEnd()
			caller.Close()
			work.say("11020000 08000000 00000000 01020000")
			if end := h.ended(); end.Error != "" || end.Connect <= 0 {
				t.Errorf("end %+v", end)
			}
		}
	})
}

// TestForeignFromDom0 is spec/qrexec.md §7.1.
func TestForeignFromDom0(t *testing.T) {
	eachVersion(t, func(t *testing.T, v int) {
		h, work, _ := foreignHouse(t, v)
		for _, typ := range []string{"00", "01"} { // EXEC_CMDLINE, JUST_EXEC
			c := h.program("seven")
			c.say(typ + "020000 24000000 00000000 00000000 'DEFAULT:QUBESRPC t.Svc dom0' 00")
			c.hear(typ + "020000 08000000 07000000 01020000")
			work.hear(typ + "020000 22000000 00000000 01020000 'user:QUBESRPC t.Svc+ dom0' 00")
			server, client := h.channel(dom0, seven, 513)
			client.say("93010000 04000000 03000000")
			server.hear("93010000 04000000 03000000")
			work.say("11020000 08000000 00000000 01020000")
			c.hearEnd()
		}
	})
}

// TestProgramServes: a program of dom0 takes a waiting call (spec/qrexec.md
// §7.3, step 4), of a qube on upstream's sockets and of one on a link.
func TestProgramServes(t *testing.T) {
	h, work, _ := foreignHouse(t, 4)
	h.decide(func(control.Call) *control.Verdict { return nil })
	work.say(triggers[4])
	asked := h.expect(control.Asked, 0).Call.Number
	c := h.program("uuid:u-7")
	c.say("02020000 28000000 00000000 00000000 'SOCKET11' 00*24")
	c.hear("02020000 08000000 07000000 01020000")
	work.hear("02020000 28000000 00000000 01020000 'SOCKET11' 00*24")
	if end := h.ended(); end.Number != asked {
		t.Errorf("end %+v", end) // qubesd need not decide any more
	}
	server, client := h.channel(seven, dom0, 513)
	server.say("01")
	client.hear("01")
	work.say("11020000 08000000 00000000 01020000")
	c.hearEnd()

	link := h.link(mail)
	agent := peer{t, h.agent(link)}
	agent.say(triggers[4])
	h.expect(control.Asked, 0)
	c = h.program("mail")
	c.say("02020000 28000000 00000000 00000000 'SOCKET11' 00*24")
	c.hear("02020000 08000000 02800000 01020000")
	agent.hear("02020000 28000000 00000000 01020000 'SOCKET11' 00*24")
	caller := later(func() (*vchan.Channel, error) { return link.Listen(h.short(), dom0, 513) })
	data, err := (&vchan.Unix{Dir: h.root.Vchan(), Self: dom0}).Dial(h.short(), mail, 513)
	if err != nil {
		t.Fatal(err)
	}
	got := <-caller
	if got.err != nil {
		t.Fatal(got.err)
	}
	sameStream(t, got.ch, data)
	got.ch.Close()
	data.Close()
	agent.say("11020000 08000000 00000000 01020000")
	c.hearEnd()

	// Idents that do not wait.
	for _, ident := range []string{"'SOCKET11' 00*24", "'SOCKET12' 00*24", "'x/y' 00*29"} {
		c := h.program("mail")
		c.say("02020000 28000000 00000000 00000000 " + ident)
		c.hearEnd()
	}
}

// TestProgramConnectsQubes as upstream's child of the daemon does (spec/qrexec.md
// §7.4, steps 5 and 6).
func TestProgramConnectsQubes(t *testing.T) {
	h, work, mail := foreignHouse(t, 4)
	h.decide(func(control.Call) *control.Verdict { return nil })
	work.say(triggers[4])
	h.expect(control.Asked, 0)
	c := h.program("eight")
	c.say("00020000 26000000 07000000 00000000 'DEFAULT:QUBESRPC t.Svc+k work' 00")
	c.hear("00020000 08000000 08000000 01020000")
	mail.hear("00020000 23000000 07000000 01020000 'user:QUBESRPC t.Svc+k work' 00")
	s := h.program("seven")
	s.say("02020000 28000000 08000000 01020000 'SOCKET11' 00*24")
	work.hear("02020000 28000000 08000000 01020000 'SOCKET11' 00*24")
	s.Close()
	mail.say("11020000 08000000 07000000 01020000")
	c.hearEnd() // which is how the child knows that the call is over

	for name, script := range map[string]string{
		"no such caller": "00020000 0c000000 63000000 00000000 'u:x' 00",
		"itself":         "00020000 0c000000 08000000 00000000 'u:x' 00",
	} {
		c := h.program("eight")
		c.say(script)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A channel that nobody has begun.
	work.say(triggers[4])
	h.expect(control.Asked, 0)
	s = h.program("seven")
	s.say("02020000 28000000 08000000 03020000 'SOCKET11' 00*24")
	s.hearEnd()
}

// TestForeignAgentDies is spec/qrexec.md §7.7: programs of dom0 hear of it, and
// a port that stays busy is found again when its data channel has gone.
func TestForeignAgentDies(t *testing.T) {
	h, work, _ := foreignHouse(t, 4)
	c := h.program("seven")
	exec := "00020000 10000000 00000000 00000000 'user:id' 00"
	c.say(exec)
	c.hear("00020000 08000000 07000000 01020000")
	work.Close()
	c.hearEnd()
	h.expect(control.Lost, seven)
	h.foreignAgent(seven, 4)
	c2 := h.program("seven")
	c2.say(exec)
	c2.hear("00020000 08000000 07000000 02020000") // 513 is busy
	c.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		h.router.mu.Lock()
		busy := len(h.router.qubes[seven].legs)
		h.router.mu.Unlock()
		if busy == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d ports are busy", busy)
		}
	}
	c3 := h.program("seven")
	c3.say(exec)
	c3.hear("00020000 08000000 07000000 01020000")
}
