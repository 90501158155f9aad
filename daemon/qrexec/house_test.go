package qrexec

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// house is a router in this process, with a qubesd of its own.
type house struct {
	t       testing.TB
	root    paths.Root
	ctx     context.Context
	router  *Router
	l       *net.UnixListener
	stream  net.Conn
	conn    *control.Conn
	news    chan control.Message
	verdict atomic.Pointer[func(control.Call) *control.Verdict] // nil: nothing is allowed
}

// decide has calls decided; nil for a call is no verdict.
func (h *house) decide(f func(control.Call) *control.Verdict) { h.verdict.Store(&f) }

func deny(control.Call) *control.Verdict { return &control.Verdict{Reason: "nothing is allowed"} }

// allow allows every call, with a command that qubesd would make.
func allow(target vchan.Domain) func(control.Call) *control.Verdict {
	return func(c control.Call) *control.Verdict {
		command := "QUBESRPC " + c.Service + "+ work"
		if target != dom0 {
			command = "user:" + command
		}
		return &control.Verdict{Allowed: true, Target: target, Command: command}
	}
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
	var err error
	if h.l, err = vchan.ListenPath(h.root.Router()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	h.router = New(Options{Root: h.root})
	h.decide(deny)
	ended := make(chan error, 1)
	go func() { ended <- h.router.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		h.l.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	h.accept()
	h.tellAll()
	return h
}

// accept is qubesd that comes up; it returns qrexecd's hello.
func (h *house) accept() control.Message {
	h.t.Helper()
	raw, err := h.l.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	h.stream = raw
	conn := control.NewConn(raw)
	h.conn = conn
	hello, err := conn.Receive()
	if err != nil || hello.Kind != control.Hello {
		h.t.Fatalf("%+v, %v", hello, err)
	}
	go func() {
		defer raw.Close()
		for {
			m, err := conn.Receive()
			if err != nil {
				return
			}
			if m.Kind == control.Asked {
				if v := (*h.verdict.Load())(*m.Call); v != nil {
					answer := *v
					answer.Number = m.Call.Number
					if conn.Send(control.Message{Kind: control.Decided, Verdict: &answer}) != nil {
						return
					}
				}
			}
			h.news <- m
		}
	}()
	return hello
}

// newQubesd is a restart of qubesd.
func (h *house) newQubesd() control.Message {
	h.t.Helper()
	h.stream.Close()
	hello := h.accept()
	h.tellAll()
	return hello
}

// tellAll tells qrexecd of all qubes.
func (h *house) tellAll() {
	h.t.Helper()
	for d, name := range map[vchan.Domain]string{work: "work", mail: "mail", manual: "manual"} {
		dir := ""
		if d != manual {
			dir = filepath.Join(h.root.Links(), strconv.Itoa(int(d)))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				h.t.Fatal(err)
			}
		}
		h.send(control.Message{Kind: control.Up, Qube: &control.Qube{Domain: d, Name: name, DefaultUser: "user", LinkDir: dir}})
		h.expect(control.Listening, d)
	}
	h.send(control.Message{Kind: control.Synced})
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
