package router

import (
	"context"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

func TestDatabaseIsSaidWholeAndThenWhatChanges(t *testing.T) {
	r, path := listen(t, os.Getuid())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	keys := map[string]string{"/name": "work", "/vm-config/a": "1"}
	r.Describe(func(q control.Qube) { r.Say(q.Domain, keys) })
	r.Say(0, map[string]string{"/name": "dom0"})
	c, s := qrexecd(t, path)
	if m := expect(t, c, control.Update); m.Domain != 0 || !m.Whole {
		t.Errorf("dom0's own: %+v", m)
	}
	expect(t, c, control.Synced)

	up := make(chan error, 1)
	go func() { up <- r.Up(ctx, control.Qube{Domain: 0x8001, Name: "work"}) }()
	expect(t, c, control.Up)
	// Before the machine may start, which Listening allows.
	m := expect(t, c, control.Update)
	if diff := cmp.Diff([]qubesdb.Change{{Path: "/name", Value: "work"}, {Path: "/vm-config/a", Value: "1"}}, m.Changes); diff != "" || !m.Whole {
		t.Errorf("whole %v: %s", m.Whole, diff)
	}
	c.Send(control.Message{Kind: control.Listening, Domain: 0x8001})
	if err := <-up; err != nil {
		t.Fatal(err)
	}
	r.Say(0x8001, keys) // no news
	r.Say(0x8002, keys) // nobody
	next := maps.Clone(keys)
	delete(next, "/vm-config/a")
	next["/vm-config/b"] = "2"
	r.Say(0x8001, next)
	m = expect(t, c, control.Update)
	if diff := cmp.Diff([]qubesdb.Change{{Path: "/vm-config/a", Remove: true}, {Path: "/vm-config/b", Value: "2"}}, m.Changes); diff != "" || m.Whole {
		t.Errorf("whole %v: %s", m.Whole, diff)
	}
	s.Close()

	// Another qrexecd knows nothing.
	c, s = qrexecd(t, path)
	defer s.Close()
	whole := map[vchan.Domain]int{}
	for m := (control.Message{}); m.Kind != control.Synced; {
		var err error
		if m, err = c.Receive(); err != nil {
			t.Fatal(err)
		}
		if m.Kind == control.Update && m.Whole {
			whole[m.Domain] = len(m.Changes)
		}
	}
	if diff := cmp.Diff(map[vchan.Domain]int{0: 1, 0x8001: 2}, whole); diff != "" {
		t.Error(diff)
	}
}

func TestEntriesAreAskedFor(t *testing.T) {
	r, path := listen(t, os.Getuid())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := r.Entries(ctx, 0x8001, "/"); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("without qrexecd: %v", err)
	}
	wrote := make(chan string, 1)
	r.OnWrite(func(d vchan.Domain, path string) { wrote <- path })
	c, s := qrexecd(t, path)
	expect(t, c, control.Synced)
	type result struct {
		entries map[string]string
		err     error
	}
	results := make(chan result, 1)
	ask := func(ctx context.Context) {
		go func() {
			entries, err := r.Entries(ctx, 0x8001, "/features-request/")
			results <- result{entries, err}
		}()
	}
	ask(ctx)
	m := expect(t, c, control.Query)
	if m.Domain != 0x8001 || m.Path != "/features-request/" {
		t.Errorf("%+v", m)
	}
	c.Send(control.Message{Kind: control.Answer, Query: m.Query + 1}) // another's
	c.Send(control.Message{Kind: control.Answer, Query: m.Query, Entries: map[string][]byte{"/features-request/x": []byte("\xff1")}})
	if got := <-results; got.err != nil || got.entries["/features-request/x"] != "\xff1" {
		t.Errorf("%+v", got)
	}
	ask(ctx)
	m = expect(t, c, control.Query)
	c.Send(control.Message{Kind: control.Answer, Query: m.Query, Error: "there is no domain 32769"})
	if got := <-results; got.err == nil || !strings.Contains(got.err.Error(), "no domain") {
		t.Errorf("%+v", got)
	}
	impatient, give := context.WithCancel(ctx)
	ask(impatient)
	expect(t, c, control.Query)
	give()
	if got := <-results; got.err == nil {
		t.Error("who gave up got an answer")
	}
	ask(ctx)
	expect(t, c, control.Query)
	s.Close()
	if got := <-results; got.err == nil || !strings.Contains(got.err.Error(), "gone") {
		t.Errorf("after qrexecd's end: %+v", got)
	}
	select {
	case path := <-wrote:
		t.Errorf("heard of %s", path)
	default:
	}
}
