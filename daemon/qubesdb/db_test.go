package qubesdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/vchan"
)

const patience = 30 * time.Second

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// pair returns the two ends of a stream.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	dir := t.TempDir()
	l, err := vchan.ListenPath(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = vchan.DialOnce(filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// serving offers d on sockets and returns their folder.
func serving(t *testing.T, d *DB) string {
	t.Helper()
	dir := t.TempDir()
	rw, ro := SocketNames("")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	for name, readOnly := range map[string]bool{rw: false, ro: true} {
		l, err := vchan.ListenPath(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			d.Serve(ctx, l, readOnly, nil, slog.New(slog.DiscardHandler))
			l.Close()
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() { cancel(); <-done; <-done })
	return dir
}

func dialed(t *testing.T, dir string) *Client {
	t.Helper()
	c, err := Dial(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestWireForm: the bytes, written down from the specification.
func TestWireForm(t *testing.T) {
	want := append([]byte{1, '/', 'n', 'a', 'm', 'e'}, make([]byte, 62)...)
	want = append(want, 4, 0, 0, 0, 'w', 'o', 'r', 'k')
	m := Message{Type: Write, Path: "/name", Data: "work"}
	if diff := cmp.Diff(want, m.AppendTo(nil)); diff != "" {
		t.Error(diff)
	}
	if got, err := ReadMessage(bytes.NewReader(want)); got != m || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	// What stands behind the path's end and in the padding does not count.
	copy(want[7:], "rubbish")
	want[66] = 0xff
	if got, err := ReadMessage(bytes.NewReader(want)); got != m || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	longest := Message{Type: Write, Path: "/" + strings.Repeat("p", MaxPath-1), Data: strings.Repeat("v", MaxData)}
	if got, err := ReadMessage(bytes.NewReader(longest.AppendTo(nil))); got != longest || err != nil {
		t.Errorf("the longest: %v", err)
	}
	if err := CheckPath(longest.Path + "p"); err == nil {
		t.Error("a path of 64 bytes passes")
	}
	if err := CheckValue(longest.Data + "v"); err == nil {
		t.Error("a value of 3072 bytes passes")
	}
}

func TestLocalProtocol(t *testing.T) {
	d := NewInQube()
	dir := serving(t, d)
	c := dialed(t, dir)
	if _, err := c.Read("/name"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("read nothing: %v", err)
	}
	if err := c.Remove("/name"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("remove nothing: %v", err)
	}
	for path, value := range map[string]string{"/name": "work", "/qubes-service/a": "1", "/qubes-service/b": "0", "/qubes-servicex": "", "/long": strings.Repeat("v", MaxData)} {
		if err := c.Write(path, value); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(path); err != nil || got != value {
			t.Errorf("%s reads %q, %v", path, got, err)
		}
	}
	entries, err := c.MultiRead("/qubes-service/")
	if diff := cmp.Diff([]Entry{{"/qubes-service/a", "1"}, {"/qubes-service/b", "0"}}, entries); diff != "" || err != nil {
		t.Error(diff, err)
	}
	paths, err := c.List("/qubes-service")
	if diff := cmp.Diff([]string{"/qubes-service/a", "/qubes-service/b", "/qubes-servicex"}, paths); diff != "" || err != nil {
		t.Error(diff, err)
	}
	all, err := c.MultiRead("")
	if err != nil || len(all) != 5 || all[0].Path != "/qubes-servicex" || all[4].Path != "/long" {
		t.Errorf("the whole database does not come backwards: %v, %v", all, err)
	}
	if err := c.Remove("/qubes-service/"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"/long", "/name", "/qubes-servicex"}, slices.Sorted(maps.Keys(d.All("")))); diff != "" {
		t.Error(diff)
	}
	if err := c.Unwatch("/name"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("unwatch nothing: %v", err)
	}
}

func TestWatches(t *testing.T) {
	d := NewInQube()
	dir := serving(t, d)
	w, c := dialed(t, dir), dialed(t, dir)
	for _, path := range []string{"/vm-config/", "/name"} {
		if err := w.Watch(path); err != nil {
			t.Fatal(err)
		}
	}
	steps := []func() error{
		func() error { return c.Write("/vm-config", "no") },
		func() error { return c.Write("/vm-config/a", "1") },
		func() error { return c.Write("/namex", "no") },
		func() error { return c.Write("/name", "work") },
		func() error { return c.Write("/vm-config/a", "1") },
		func() error { return c.Remove("/vm-config/") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	// A reply and events on the same connection.
	if _, err := w.Read("/name"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, want := range []string{"/vm-config/a", "/name", "/vm-config/a", "/vm-config/a"} {
		if got, err := w.Next(ctx); err != nil || got != want {
			t.Fatalf("event %q, %v; want %q", got, err, want)
		}
	}
	if err := w.Unwatch("/name"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Write("/name", "x"), c.Write("/vm-config/b", "")); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Next(ctx); err != nil || got != "/vm-config/b" {
		t.Errorf("after unwatching came %q, %v", got, err)
	}
}

func TestReadOnlySocketRefusesChanges(t *testing.T) {
	d := NewInQube()
	dir := serving(t, d)
	_, ro := SocketNames("")
	conn, err := vchan.DialOnce(filepath.Join(dir, ro))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, m := range []Message{{Write, "/name", "x"}, {Remove, "/name", ""}} {
		if _, err := conn.Write(m.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadMessage(conn); err != nil || got.Type != Failed || got.Path != "/name" {
			t.Errorf("%+v: %+v, %v", m, got, err)
		}
	}
	if len(d.All("")) != 0 {
		t.Error("it was written")
	}
}

// TestBadLocalMessages: each is answered with an error or ends the
// connection, and others are served meanwhile.
func TestBadLocalMessages(t *testing.T) {
	d := NewInQube()
	dir := serving(t, d)
	rw, _ := SocketNames("")
	answered := []Message{
		{Type: Write, Path: "/a", Data: "x\x00y"}, {Type: Write, Path: "a"}, {Type: Write, Path: "-a"}, {Type: Write, Path: "/a/"},
		{Type: Write, Path: "/a b"}, {Type: Read, Path: ""}, {Type: Read, Path: "/a/"}, {Type: Read, Path: "/a", Data: "x"},
		{Type: 99, Path: "/a"}, {Type: MultiReadReply, Path: "/a", Data: "x"}, {Type: OK}, {Type: Watch, Path: ""},
	}
	conn, err := vchan.DialOnce(filepath.Join(dir, rw))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, m := range answered {
		if _, err := conn.Write(m.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadMessage(conn); err != nil || got.Type != Failed {
			t.Errorf("%+v: %+v, %v", m, got, err)
		}
	}
	tooLong := Message{Type: Write, Path: "/a"}.AppendTo(nil)
	copy(tooLong[lengthAt:], []byte{0, 0x0c, 0, 0}) // 3072
	if _, err := conn.Write(tooLong); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMessage(conn); err == nil {
		t.Error("a message that is too long was answered")
	}
	half, err := vchan.DialOnce(filepath.Join(dir, rw))
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := half.Write(Message{Type: Write, Path: "/a", Data: "half"}.AppendTo(nil)[:HeaderSize+1]); err != nil {
		t.Fatal(err)
	}
	c := dialed(t, dir)
	if err := c.Write("/b", "served"); err != nil {
		t.Error(err)
	}
	half.Close()
	if diff := cmp.Diff(map[string]string{"/b": "served"}, d.All("")); diff != "" {
		t.Error(diff)
	}
}

// linked connects two copies and returns a way to part them.
func linked(t *testing.T, outer, inner *DB) (part func()) {
	t.Helper()
	a, b := pair(t)
	done := make(chan error, 2)
	go func() { done <- outer.ServeQube(context.Background(), a) }()
	go func() { done <- inner.FollowDom0(context.Background(), b) }()
	return func() {
		a.Close()
		b.Close()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func equal(a, b *DB) func() bool {
	return func() bool { return maps.Equal(a.All(""), b.All("")) }
}

func TestBothSidesStayEqual(t *testing.T) {
	outer, inner := NewForQube(), NewInQube()
	if err := outer.Apply(true, []Change{{Path: "/name", Value: "work"}, {Path: "/qubes-block-devices"}}); err != nil {
		t.Fatal(err)
	}
	// Written in the qube before dom0 can be told.
	if err := inner.Write("/features-request/early", "1"); err != nil {
		t.Fatal(err)
	}
	part := linked(t, outer, inner)
	eventually(t, "what was written early arrives", func() bool { v, _ := outer.Read("/features-request/early"); return v == "1" })
	eventually(t, "equal at first", equal(outer, inner))
	select {
	case <-inner.InStep():
	default:
		t.Error("the qube's copy is not said to be in step")
	}

	for i := range 50 {
		if err := outer.Apply(false, []Change{{Path: fmt.Sprintf("/vm-config/k%d", i), Value: "v"}}); err != nil {
			t.Fatal(err)
		}
		if err := inner.Write(fmt.Sprintf("/qubes-block-devices/d%d/desc", i), "disk"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "101 writes on both sides", func() bool { return len(outer.All("")) == 103 && equal(outer, inner)() })
	if err := outer.Apply(false, []Change{{Path: "/vm-config/", Remove: true}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a subtree goes on both sides", func() bool { return len(inner.All("/vm-config/")) == 0 && equal(outer, inner)() })
	part()

	// Meanwhile both change, and qrexecd is another one, which knows nothing
	// of what the qube wrote.
	if err := inner.Write("/features-request/late", "1"); err != nil {
		t.Fatal(err)
	}
	outer = NewForQube()
	if err := outer.Apply(true, []Change{{Path: "/name", Value: "play"}}); err != nil {
		t.Fatal(err)
	}
	part = linked(t, outer, inner)
	defer part()
	eventually(t, "equal again", func() bool {
		v, _ := inner.Read("/name")
		_, gone := inner.Read("/qubes-block-devices")
		late, _ := outer.Read("/features-request/late")
		return v == "play" && !gone && late == "1" && len(outer.All("/qubes-block-devices/")) == 50 && equal(outer, inner)()
	})
}

func TestWholeUpdateRemovesWhatIsNotNamed(t *testing.T) {
	d := NewForQube()
	first := map[string]string{"/name": "work", "/vm-config/a": "1", "/vm-config/b": "2"}
	if err := d.Apply(true, Diff(nil, first)); err != nil {
		t.Fatal(err)
	}
	if err := d.Write("/own", "x"); err != nil {
		t.Fatal(err)
	}
	w := dialed(t, serving(t, d))
	if err := w.Watch("/"); err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(true, Diff(nil, map[string]string{"/name": "work", "/vm-config/b": "3"})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"/name": "work", "/vm-config/b": "3", "/own": "x"}, d.All("")); diff != "" {
		t.Error(diff)
	}
	if err := d.Write("/end", ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/vm-config/a", "/vm-config/b", "/end"} {
		if got, err := w.Next(context.Background()); err != nil || got != want {
			t.Fatalf("told of %q, %v; want %q", got, err, want)
		}
	}
}

func TestDiff(t *testing.T) {
	from := map[string]string{"/a": "1", "/b": "1", "/qubes-firewall/10.137.0.2": "", "/qubes-firewall/10.137.0.2/policy": "drop", "/qubes-firewall/10.137.0.2/0000": "action=drop", "/qubes-firewall/10.137.0.9": ""}
	to := map[string]string{"/a": "1", "/b": "2", "/c": "", "/qubes-firewall/10.137.0.2": "", "/qubes-firewall/10.137.0.2/policy": "drop", "/qubes-firewall/10.137.0.2/0001": "action=accept"}
	want := []Change{
		{Path: "/b", Value: "2"}, {Path: "/c"},
		{Path: "/qubes-firewall/10.137.0.2/", Remove: true},
		{Path: "/qubes-firewall/10.137.0.2/0001", Value: "action=accept"},
		{Path: "/qubes-firewall/10.137.0.2/policy", Value: "drop"},
		{Path: "/qubes-firewall/10.137.0.2"},
		{Path: "/qubes-firewall/10.137.0.9/", Remove: true},
		{Path: "/qubes-firewall/10.137.0.9", Remove: true},
	}
	if diff := cmp.Diff(want, Diff(from, to)); diff != "" {
		t.Error(diff)
	}
	if d := Diff(to, to); len(d) != 0 {
		t.Errorf("no change is %v", d)
	}
}

// hostile sends messages as a qube and returns dom0's replies until the end.
func hostile(t *testing.T, d *DB, send func(net.Conn)) (replies []Message, err error) {
	t.Helper()
	a, b := pair(t)
	done := make(chan error, 1)
	go func() { done <- d.ServeQube(context.Background(), a) }()
	go func() {
		send(b)
		b.(*net.UnixConn).CloseWrite()
	}()
	for {
		m, rerr := ReadMessage(b)
		if rerr != nil {
			break
		}
		replies = append(replies, m)
	}
	return replies, <-done
}

func TestQubeCannotChangeWhatIsDom0s(t *testing.T) {
	d := NewForQube()
	if err := d.Apply(true, []Change{{Path: "/name", Value: "work"}, {Path: "/qubes-usb-devices"}, {Path: "/qubes-service/x", Value: "0"}}); err != nil {
		t.Fatal(err)
	}
	fired := 0
	d.Notify(func(path string) { fired++ })
	replies, err := hostile(t, d, func(c net.Conn) {
		for _, m := range []Message{{Write, "/name", "dom0"}, {Remove, "/name", ""}, {Remove, "/qubes-service/", ""}, {Remove, "/", ""}, {Write, "/qubes-usb-devices", ""}} {
			c.Write(m.AppendTo(nil))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var types []Type
	for _, m := range replies {
		types = append(types, m.Type)
	}
	if diff := cmp.Diff([]Type{Failed, OK, OK, OK, OK}, types); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"/name": "work", "/qubes-usb-devices": "", "/qubes-service/x": "0"}, d.All("")); diff != "" {
		t.Error(diff)
	}
	if fired != 1 {
		t.Errorf("%d events, want that of the signal", fired)
	}
}

func TestQubeCannotFillDom0(t *testing.T) {
	d := NewForQube()
	value := strings.Repeat("v", MaxData)
	replies, err := hostile(t, d, func(c net.Conn) {
		for i := range 400 {
			c.Write(Message{Write, fmt.Sprintf("/x/%d", i), value}.AppendTo(nil))
		}
		// Others instead of the same are no more.
		for range 400 {
			c.Write(Message{Write, "/x/0", value}.AppendTo(nil))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, m := range replies {
		if m.Type == Failed {
			refused++
		}
	}
	entries := d.All("")
	if size := len(entries) * MaxData; size > guestLimits.Bytes || len(entries) < 50 || len(replies) != 800 || refused != 400-len(entries) {
		t.Errorf("%d entries, %d replies, %d refused", len(entries), len(replies), refused)
	}
	many := NewForQube()
	if _, err := hostile(t, many, func(c net.Conn) {
		for i := range guestLimits.Entries + 100 {
			c.Write(Message{Type: Write, Path: fmt.Sprintf("/%d", i)}.AppendTo(nil))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if n := len(many.All("")); n != guestLimits.Entries {
		t.Errorf("%d entries", n)
	}
}

func TestQubeThatBreaksTheRulesIsCutOff(t *testing.T) {
	for name, b := range map[string][]byte{
		"local command":    Message{Type: Read, Path: "/name"}.AppendTo(nil),
		"watch":            Message{Type: Watch, Path: "/name"}.AppendTo(nil),
		"list":             Message{Type: List}.AppendTo(nil),
		"unasked reply":    Message{Type: MultiReadReply, Path: "/name", Data: "x"}.AppendTo(nil),
		"unknown":          Message{Type: 200}.AppendTo(nil),
		"part of it":       Message{Type: MultiRead, Path: "/name"}.AppendTo(nil),
		"twice":            append(Message{Type: MultiRead}.AppendTo(nil), Message{Type: MultiRead}.AppendTo(nil)...),
		"bad path":         Message{Type: Write, Path: "/a b"}.AppendTo(nil),
		"too long":         append(make([]byte, lengthAt), 0xff, 0xff, 0xff, 0x7f),
		"half a message":   Message{Type: Write, Path: "/a", Data: "abc"}.AppendTo(nil)[:HeaderSize+1],
		"half a header":    {1, '/', 'a'},
		"no end of a path": append([]byte{1}, strings.Repeat("/", HeaderSize-1)...),
	} {
		d := NewForQube()
		if err := d.Apply(true, []Change{{Path: "/name", Value: "work"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := hostile(t, d, func(c net.Conn) { c.Write(b) }); err == nil {
			t.Errorf("%s: the channel was kept", name)
		}
		if len(d.All("")) != 1 {
			t.Errorf("%s: it changed the database", name)
		}
	}
}

// TestQubeThatDoesNotReadIsCutOff: dom0 neither waits for it nor keeps what
// it does not take.
func TestQubeThatDoesNotReadIsCutOff(t *testing.T) {
	d := NewForQube()
	a, b := pair(t)
	done := make(chan error, 1)
	go func() { done <- d.ServeQube(context.Background(), a) }()
	if _, err := b.Write(Message{Type: MultiRead}.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	if m, err := ReadMessage(b); err != nil || m.Type != MultiReadReply {
		t.Fatal(m, err)
	}
	value := strings.Repeat("v", MaxData)
	ended := false
	for range 2 * maxQueue / MaxData {
		if err := d.Write("/x", value); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			ended = true
		default:
		}
	}
	if !ended {
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("the channel was kept")
		}
	}
}

func TestPaceSlowsAFlood(t *testing.T) {
	p := pace{credit: 1, last: time.Now()}
	const messages = hostileRate / 10
	begun := time.Now()
	for range messages {
		p.wait()
	}
	if took := time.Since(begun); took < time.Second/20 {
		t.Errorf("%d messages took %v", messages, took)
	}
}

func TestDialTellsThatThereIsNoDatabase(t *testing.T) {
	if _, err := Dial(serving(t, NewInQube()), "nobody"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dialling nobody's: %v", err)
	}
}
