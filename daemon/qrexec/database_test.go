package qrexec

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

func (h *house) fill(d vchan.Domain, keys map[string]string) {
	h.t.Helper()
	h.send(control.Message{Kind: control.Update, Domain: d, Whole: true, Changes: qubesdb.Diff(nil, keys)})
}

// eventually waits until f holds.
func (h *house) eventually(what string, f func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	h.t.Fatalf("never: %s", what)
}

// follow runs a qube's own copy of its database over the transport.
func (h *house) follow(t vchan.Transport) (db *qubesdb.DB, stop func()) {
	h.t.Helper()
	db = qubesdb.NewInQube()
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan error, 1)
	go func() {
		ch, err := t.Dial(ctx, dom0, vchan.PortQubesDB)
		if err == nil {
			err = db.FollowDom0(ctx, ch)
			ch.Close()
		}
		done <- err
	}()
	return db, func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			h.t.Error(err)
		}
	}
}

func TestDatabase(t *testing.T) {
	h := newHouse(t)
	for _, q := range []struct {
		name   string
		domain vchan.Domain
		via    vchan.Transport
	}{
		{"work", work, h.link(work)},
		{"manual", manual, &vchan.Unix{Dir: h.root.Vchan(), Self: manual}},
	} {
		inner, stop := h.follow(q.via)
		if _, err := qubesdb.Dial(h.root.RunQubes(), q.name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the database of %s is offered before it is filled: %v", q.name, err)
		}
		keys := map[string]string{"/name": q.name, "/qubes-block-devices": ""}
		h.fill(q.domain, keys)
		h.eventually("the qube has its keys", func() bool { return maps.Equal(inner.All(""), keys) })

		// A program of dom0 sees what the qube writes, and the reverse.
		var c *qubesdb.Client
		h.eventually("the socket is there", func() bool {
			var err error
			c, err = qubesdb.Dial(h.root.RunQubes(), q.name)
			return err == nil
		})
		defer c.Close()
		if err := c.Watch("/features-request/"); err != nil {
			t.Fatal(err)
		}
		if err := inner.Write("/features-request/gui", "1"); err != nil {
			t.Fatal(err)
		}
		if path, err := c.Next(h.short()); path != "/features-request/gui" || err != nil {
			t.Fatalf("event %q, %v", path, err)
		}
		if v, err := c.Read("/features-request/gui"); v != "1" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		h.send(control.Message{Kind: control.Update, Domain: q.domain, Changes: []qubesdb.Change{{Path: "/vm-config/X", Value: "1"}}})
		h.eventually("a change arrives", func() bool { v, _ := inner.Read("/vm-config/X"); return v == "1" })

		// qubesd hears of what it waits for, and asks.
		if err := errors.Join(inner.Write("/qubes-block-devices/sda/desc", "d\xefsk"), inner.Write("/qubes-block-devices", "")); err != nil {
			t.Fatal(err)
		}
		if m := h.expect(control.Wrote, q.domain); m.Path != "/qubes-block-devices" {
			t.Errorf("heard of %q", m.Path)
		}
		h.send(control.Message{Kind: control.Query, Domain: q.domain, Query: 7, Path: "/qubes-block-devices/"})
		m := h.expect(control.Answer, 0)
		if m.Query != 7 || len(m.Entries) != 1 || !bytes.Equal(m.Entries["/qubes-block-devices/sda/desc"], []byte("d\xefsk")) {
			t.Errorf("%+v", m)
		}
		stop()

		// A qube that comes again has its own entries still, and the news.
		h.send(control.Message{Kind: control.Update, Domain: q.domain, Changes: []qubesdb.Change{{Path: "/vm-config/X", Remove: true}}})
		again, stop := h.follow(q.via)
		h.eventually("the next one is in step", func() bool {
			_, old := again.Read("/vm-config/X")
			v, _ := again.Read("/features-request/gui")
			return v == "1" && !old
		})
		stop()

		h.send(control.Message{Kind: control.Down, Domain: q.domain})
		h.eventually("the sockets go", func() bool {
			rest, err := filepath.Glob(filepath.Join(h.root.RunQubes(), "qubesdb."+q.name+".*"))
			return err == nil && len(rest) == 0
		})
	}
	h.send(control.Message{Kind: control.Query, Domain: work, Query: 8})
	if m := h.expect(control.Answer, 0); m.Query != 8 || m.Error == "" {
		t.Errorf("%+v", m)
	}
}

// TestOwnDatabase: programs of dom0 that name no qube find dom0's own.
func TestOwnDatabase(t *testing.T) {
	h := newHouse(t)
	h.fill(dom0, map[string]string{"/name": "dom0"})
	for _, name := range []string{"", "dom0"} {
		h.eventually("dom0's database is there", func() bool {
			c, err := qubesdb.Dial(h.root.RunQubes(), name)
			if err != nil {
				return false
			}
			defer c.Close()
			v, err := c.Read("/name")
			return v == "dom0" && err == nil
		})
	}
}

// TestHostileDatabase: a qube that breaks the rules loses its channel, and
// gets another; its neighbour is served meanwhile. What it writes in a loop
// qubesd hears of now and then.
func TestHostileDatabase(t *testing.T) {
	h := newHouse(t)
	h.fill(work, map[string]string{"/name": "work"})
	h.fill(mail, map[string]string{"/name": "mail"})
	inner, stop := h.follow(h.link(mail))
	defer stop()
	l := h.link(work)
	for range 3 {
		ch, err := l.Dial(h.short(), dom0, vchan.PortQubesDB)
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := ch.Write(qubesdb.Message{Type: qubesdb.Read, Path: "/name"}.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		if m, err := qubesdb.ReadMessage(ch); err == nil {
			t.Errorf("answered with %+v", m)
		}
		ch.Close()
	}
	ch, err := l.Dial(h.short(), dom0, vchan.PortQubesDB)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	const floods = 1000
	go func() {
		for range floods {
			if _, err := ch.Write(qubesdb.Message{Type: qubesdb.Write, Path: "/qubes-usb-devices"}.AppendTo(nil)); err != nil {
				return
			}
		}
	}()
	for range floods {
		if m, err := qubesdb.ReadMessage(ch); err != nil || m.Type != qubesdb.OK {
			t.Fatal(m, err)
		}
	}
	h.send(control.Message{Kind: control.Query, Domain: work, Query: 1})
	heard := 0
	for m := range h.news {
		if m.Kind == control.Wrote {
			heard++
		}
		if m.Kind == control.Answer {
			break
		}
	}
	if heard == 0 || heard > floods/10 {
		t.Errorf("qubesd heard %d times of %d writes", heard, floods)
	}
	h.eventually("the neighbour is served", func() bool { v, _ := inner.Read("/name"); return v == "mail" })
}
