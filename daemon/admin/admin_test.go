package admin

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

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
	sys := coretest.NewSystem(t)
	if _, err := sys.NewQube("work", "blue"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := New(sys.Core, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l, surface) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return sys, path
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

// What changes from run to run.
var (
	uuidPattern = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
	timePattern = regexp.MustCompile(`start_time default=True type=str [0-9.]+`)
)

// The golden files hold a request and its reply a section; \x00 stands for a
// zero byte, and a line's end in the file is one on the wire only where the
// wire has one, written \n.
func TestWireIsUpstreams(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			surface := Public
			if strings.Contains(file, "internal") {
				surface = Internal
			}
			_, path := serve(t, surface)
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i+1 < len(archive.Files); i += 2 {
				request, reply := &archive.Files[i], &archive.Files[i+1]
				raw := strings.NewReplacer(`\x00`, "\x00", `\n`, "\n", "\n", "").Replace(string(request.Data))
				got := string(exchange(t, path, []byte(raw)))
				got = uuidPattern.ReplaceAllString(got, "UUID")
				got = timePattern.ReplaceAllString(got, "start_time default=True type=str TIME")
				got = strings.NewReplacer("\x00", `\x00`, "\n", "\\n\n").Replace(got)
				if !strings.HasSuffix(got, "\n") {
					got += "\n"
				}
				if *update {
					reply.Data = []byte(got)
				}
				if d := cmp.Diff(string(reply.Data), got); d != "" {
					t.Errorf("%s:\n%s", request.Name, d)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestFramingErrorsGetNoReply(t *testing.T) {
	_, path := serve(t, Public)
	for name, request := range map[string][]byte{
		"empty":        nil,
		"no end":       []byte("admin.vm.List dom0 name dom0"),
		"few fields":   []byte("admin.vm.List dom0 name\x00"),
		"bad type":     []byte("admin.vm.List dom0 uuid dom0\x00"),
		"bad keyword":  []byte("admin.vm.List dom0 keyword dispvm\x00"),
		"one too long": append([]byte("admin.vm.notes.Set dom0 name work\x00"), bytes.Repeat([]byte("x"), MaxRequest-33)...),
	} {
		if got := exchange(t, path, request); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	longest := append([]byte("admin.vm.notes.Set dom0 name work\x00"), bytes.Repeat([]byte("x"), MaxRequest-34)...)
	if got := exchange(t, path, longest); string(got) != "0\x00" {
		t.Errorf("a request of %d bytes: %q", len(longest), got)
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
	expect(t, all, "1\x00work\x00property-set:memory\x00name\x00memory\x00newvalue\x00500\x00oldvalue\x00400\x00\x00")
	if err := sys.SetSystemProperty("stats_interval", "5"); err != nil {
		t.Fatal(err)
	}
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

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{"admin.vm.List dom0 name dom0\x00", "a+b+c dom0 keyword adminvm\x00payload\x00more", " \x00", "a b name c d\x00", "\x00\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRequest(raw)
		if err != nil {
			return
		}
		if strings.ContainsAny(r.Method, "+ \x00") || strings.ContainsAny(r.Source, " \x00") || strings.ContainsRune(r.Dest, 0) || len(r.Payload) > len(raw) {
			t.Errorf("%q became %+v", raw, r)
		}
	})
}
