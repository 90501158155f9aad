package admin

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
)

var update = flag.Bool("update", false, "write the golden files anew")

// serve returns a system with the qube work, and the path of a socket of its
// Admin API.
func serve(t *testing.T, surface Surface) (*coretest.System, string) {
	t.Helper()
	sys, path, _ := serveAs(t, surface, func(*Server) {})
	return sys, path
}

// serveAs is serve with a server that is set up otherwise.
func serveAs(t *testing.T, surface Surface, setUp func(*Server)) (*coretest.System, string, *Server) {
	t.Helper()
	sys := coretest.NewSystem(t)
	if _, err := sys.NewQube("work", "blue"); err != nil {
		t.Fatal(err)
	}
	s := New(sys.Core, quiet())
	setUp(s)
	return sys, listen(t, s, surface), s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serveCore returns the path of a socket of a core's Admin API.
func serveCore(t *testing.T, c *core.Core, surface Surface) string {
	t.Helper()
	return listen(t, New(c, quiet()), surface)
}

func listen(t *testing.T, s *Server, surface Surface) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l, surface) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func mustFind(t *testing.T, sys *coretest.System, name qube.Name) qube.UUID {
	t.Helper()
	q, ok := sys.View().Named(name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return q.UUID()
}

// exchange sends exact bytes, half-closes, and returns the whole reply.
func exchange(t *testing.T, path string, request []byte) []byte {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	// A server that refuses may hang up before all was written.
	_, _ = conn.Write(request)
	_ = conn.(*net.UnixConn).CloseWrite()
	reply, err := io.ReadAll(conn)
	if err != nil && len(reply) == 0 && len(request) <= MaxRequest {
		t.Fatal(err)
	}
	return reply
}

func TestFramingErrorsGetNoReply(t *testing.T) {
	_, path := serve(t, Public)
	for name, request := range map[string][]byte{
		"empty":        nil,
		"no end":       []byte("admin.vm.List dom0 name dom0"),
		"few fields":   []byte("admin.vm.List dom0 name\x00"),
		"bad type":     []byte("admin.vm.List dom0 uuid dom0\x00"),
		"bad keyword":  []byte("admin.vm.List dom0 keyword dispvm\x00"),
		"one too long": append([]byte("admin.vm.feature.Set+a dom0 name work\x00"), bytes.Repeat([]byte("x"), MaxRequest-37)...),
	} {
		if got := exchange(t, path, request); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	longest := append([]byte("admin.vm.feature.Set+a dom0 name work\x00"), bytes.Repeat([]byte("x"), MaxRequest-38)...)
	if got := exchange(t, path, longest); string(got) != "0\x00" {
		t.Errorf("a request of %d bytes: %q", len(longest), got)
	}
	for n, want := range map[int]string{maxNotes: "0\x00", maxNotes + 1: "2\x00QubesValueError\x00\x00notes are UTF-8 of at most 256000 bytes\x00", 0: "2\x00ProtocolError\x00\x00admin.vm.notes.Set needs a payload\x00"} {
		if got := exchange(t, path, append([]byte("admin.vm.notes.Set dom0 name work\x00"), bytes.Repeat([]byte("x"), n)...)); string(got) != want {
			t.Errorf("notes of %d bytes: %q", n, got)
		}
	}
}

func TestEventsAreStreamedUntilTheClientGoes(t *testing.T) {
	sys, path := serve(t, Public)
	q, _ := sys.View().Named("work")
	open := func(dest string) net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "admin.Events dom0 name %s\x00", dest)
		conn.(*net.UnixConn).CloseWrite()
		expect(t, conn, "1\x00\x00connection-established\x00\x00")
		return conn
	}
	all, template := open("dom0"), open("debian-12")
	if err := sys.SetProperty(q.UUID(), "memory", "500"); err != nil {
		t.Fatal(err)
	}
	expect(t, all, "1\x00work\x00property-pre-set:memory\x00name\x00memory\x00newvalue\x00500\x00oldvalue\x00400\x00\x00")
	expect(t, all, "1\x00work\x00property-set:memory\x00name\x00memory\x00newvalue\x00500\x00oldvalue\x00400\x00\x00")
	if err := sys.SetSystemProperty("stats_interval", "5"); err != nil {
		t.Fatal(err)
	}
	expect(t, all, "1\x00\x00property-pre-set:stats_interval\x00name\x00stats_interval\x00newvalue\x005\x00oldvalue\x003\x00\x00")
	expect(t, all, "1\x00\x00property-set:stats_interval\x00name\x00stats_interval\x00newvalue\x005\x00oldvalue\x003\x00\x00")
	d, _ := sys.View().Named("debian-12")
	if err := sys.SetTag(d.UUID(), "mine"); err != nil {
		t.Fatal(err)
	}
	expect(t, template, "1\x00debian-12\x00domain-tag-add:mine\x00tag\x00mine\x00\x00")
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%q (%v), want %q", got[:n], err, want)
	}
}

// The client understands what the server says.
func TestClientAndServer(t *testing.T) {
	sys, path := serve(t, Public)
	c := &client.Client{Socket: path}
	ctx := context.Background()
	list, err := c.List(ctx)
	if err != nil || len(list) != 3 || list[0].Name != "dom0" || list[2].Class != "AppVM" || list[2].State != "Halted" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := c.Call(ctx, "work", "admin.vm.Start", "", nil); err != nil {
		t.Error(err)
	}
	if q, _ := sys.View().Named("work"); q.State() != qube.Running {
		t.Errorf("work is %s", q.State())
	}
	p, err := c.Property(ctx, "work", "memory")
	if err != nil || p != (client.Property{Name: "memory", Default: true, Type: "int", Value: "400"}) {
		t.Errorf("%+v, %v", p, err)
	}
	if err := c.SetProperty(ctx, "work", "default_user", "50%s"); !client.Is(err, "QubesPropertyValueError") || !strings.Contains(err.Error(), `"50%s"`) {
		t.Errorf("%v", err)
	}
	if _, err := c.Call(ctx, "gone", "admin.vm.Start", "", nil); !client.Is(err, string(core.NotFound)) {
		t.Errorf("%v", err)
	}
	missing := &client.Client{Socket: path + "x"}
	if _, err := missing.List(ctx); !client.Is(err, "QubesDaemonCommunicationError") {
		t.Errorf("%v", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"admin.vm.List dom0 name dom0\x00", "a+b+c dom0 keyword adminvm\x00payload\x00more", " \x00", "a b name c d\x00", "\x00\x00",
		"admin.vm.volume.Import+private dom0 name work\x00contents", "admin.vm.List dom0 name uuid:11111111-1111-1111-1111-111111111111",
	} {
		f.Add([]byte(s))
	}
	s, methods := New(nil, slog.New(slog.DiscardHandler)), table(Public)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := s.receive(bufio.NewReader(bytes.NewReader(raw)), methods)
		if err != nil {
			return
		}
		if strings.ContainsAny(r.Method, "+ \x00") || strings.ContainsAny(r.Source, " \x00") || strings.ContainsRune(r.Dest, 0) || len(r.Payload) > len(raw) || len(raw) > MaxRequest {
			t.Errorf("%q became %+v", raw, r)
		}
	})
}
