package admin

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
)

// dial connects and sends a request without its end.
func dial(t *testing.T, path string, request string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(90 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

// isServed fails the test when an honest client gets no answer.
func isServed(t *testing.T, path string) {
	t.Helper()
	if got := exchange(t, path, []byte("admin.label.Get+red dom0 name dom0\x00")); string(got) != "0\x000xcc0000" {
		t.Errorf("an honest client got %q", got)
	}
}

// isHungUpOn waits until the server has closed the connection without a word.
func isHungUpOn(t *testing.T, conn net.Conn) {
	t.Helper()
	got, err := io.ReadAll(conn)
	if len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBadRequestsGetAnExceptionOrNothing(t *testing.T) {
	_, path := serve(t, Public)
	long := strings.Repeat("x", 60000)
	for name, c := range map[string]struct{ request, want string }{
		"method of control bytes":   {"\x01\x02\x7f dom0 name dom0\x00", "2\x00ProtocolError\x00\x00unknown method ___\x00"},
		"method that is not ASCII":  {"admin.vm.Lißt dom0 name dom0\x00", "2\x00ProtocolError\x00\x00unknown method admin.vm.Li_t\x00"},
		"no method":                 {" dom0 name dom0\x00", "2\x00ProtocolError\x00\x00unknown method \x00"},
		"a very long method":        {long + " dom0 name dom0\x00", "2\x00ProtocolError\x00\x00unknown method " + long[:64] + "...\x00"},
		"a very long argument":      {"admin.label.Get+" + long + " dom0 name dom0\x00", "2\x00QubesLabelNotFoundError\x00\x00there is no label " + long[:64] + "...\x00"},
		"a very long source":        {"admin.vm.List " + long + " name dom0\x00", "2\x00QubesValueError\x00\x00\"" + long[:64] + "…\" is not a valid qube name: longer than 31 characters\x00"},
		"a line's end in the name":  {"admin.vm.List dom0 name work\n\x00", "2\x00QubesValueError\x00\x00\"work\\n\" is not a valid qube name: only letters, digits, '_', '.' and '-' are allowed\x00"},
		"spaces in the name":        {"admin.vm.List dom0 name work work\x00", "2\x00QubesValueError\x00\x00\"work work\" is not a valid qube name: only letters, digits, '_', '.' and '-' are allowed\x00"},
		"%s in the name":            {"admin.vm.List dom0 name %s\x00", "2\x00QubesValueError\x00\x00\"%%s\" is not a valid qube name: must begin with a letter\x00"},
		"%s in the method":          {"%s%d dom0 name dom0\x00", "2\x00ProtocolError\x00\x00unknown method %%s%%d\x00"},
		"not UTF-8 in the argument": {"admin.vm.feature.Get+\xff\xfe dom0 name work\x00", "2\x00QubesFeatureNotFoundError\x00\x00work has no feature \"__\"\x00"},
		"upper case uuid":           {"admin.vm.List dom0 name uuid:AAAAAAAA-AAAA-4AAA-AAAA-AAAAAAAAAAAA\x00", "2\x00QubesVMInvalidUUIDError\x00\x00\"AAAAAAAA-AAAA-4AAA-AAAA-AAAAAAAAAAAA\" is not a uuid in lower case\x00"},
		"zero bytes in the payload": {"admin.vm.tag.Set+a dom0 name work\x00\x00\x00", "2\x00ProtocolError\x00\x00admin.vm.tag.Set does not take a payload\x00"},
		"a method of another class": {"admin.vm.notes.Set dom0 name dom0\x00x", "2\x00ProtocolError\x00\x00admin.vm.notes.Set is not for dom0\x00"},
		"an internal method":        {"internal.GetSystemInfo dom0 name dom0\x00", "2\x00ProtocolError\x00\x00unknown method internal.GetSystemInfo\x00"},
		"a method of the misc":      {"qubes.NotifyUpdates dom0 name dom0\x001", "2\x00ProtocolError\x00\x00unknown method qubes.NotifyUpdates\x00"},
		"notes that are not UTF-8":  {"admin.vm.notes.Set dom0 name work\x00\xff", "2\x00QubesValueError\x00\x00notes are UTF-8 of at most 256000 bytes\x00"},
		"no source":                 {"admin.vm.List  name dom0\x00", "2\x00QubesValueError\x00\x00a name is needed\x00"},
		"keyword in capitals":       {"admin.vm.List dom0 KEYWORD adminvm\x00", ""},
		"an http request":           {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		"an endless header":         {strings.Repeat("a", 2*MaxRequest), ""},
		"an endless payload":        {"admin.vm.firewall.Set dom0 name work\x00" + strings.Repeat("a", 2*MaxRequest), ""},
		"an endless line of a size": {"admin.vm.volume.ImportWithSize+private dom0 name work\x00" + strings.Repeat("1", 100), "2\x00ProtocolError\x00\x00the payload begins with a line that has the size in bytes\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(exchange(t, path, []byte(c.request))); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	isServed(t, path)
}

// A client that never ends its request is hung up on, whatever it has sent.
func TestAClientThatNeverHalfCloses(t *testing.T) {
	_, path, _ := serveAs(t, Public, func(s *Server) { s.RequestTime = 200 * time.Millisecond })
	var conns []net.Conn
	for _, request := range []string{"", "admin.vm.Li", "admin.vm.List dom0 name dom0\x00"} {
		conns = append(conns, dial(t, path, request))
	}
	// One that sends a byte now and then has no more time than others.
	slow := dial(t, path, "")
	for {
		if _, err := io.WriteString(slow, "a"); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, conn := range conns {
		isHungUpOn(t, conn)
	}
}

func TestIdleClientsKeepNobodyOut(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const idle, more = maxIdle, 20
	if limit.Cur < 2*(idle+more)+100 {
		t.Skipf("this process may open only %d files", limit.Cur)
	}
	_, path := serve(t, Public)
	var conns []net.Conn
	for range idle {
		conns = append(conns, dial(t, path, "admin.vm.List dom0"))
	}
	isServed(t, path) // itself one more: the oldest is hung up on
	isHungUpOn(t, conns[0])
	for range more {
		conns = append(conns, dial(t, path, ""))
	}
	isServed(t, path)
	for _, conn := range conns[:more] {
		isHungUpOn(t, conn)
	}
	// The youngest can still ask.
	last := conns[len(conns)-1].(*net.UnixConn)
	if _, err := io.WriteString(last, "admin.label.Get+red dom0 name dom0\x00"); err != nil {
		t.Fatal(err)
	}
	if err := last.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, last, "0\x000xcc0000")
}

// A client that asks, and goes before it has the answer, changes nothing for
// others.
func TestAClientThatGoesEarly(t *testing.T) {
	_, path := serve(t, Public)
	for range 50 {
		conn := dial(t, path, "admin.vm.property.GetAll dom0 name work\x00")
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	isServed(t, path)
}

// The contents of a volume stop in the middle: the volume is what it was.
func TestAnImportThatIsCutOff(t *testing.T) {
	sys, path := serve(t, Public)
	conn := dial(t, path, "admin.vm.volume.ImportWithSize+private dom0 name work\x001048576\n"+strings.Repeat("x", 70000))
	conn.Close()
	id := mustFind(t, sys, "work")
	// The import has ended once another may begin.
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := exchange(t, path, []byte("admin.vm.volume.ImportWithSize+private dom0 name work\x003\nab"))
		if bytes.Contains(got, []byte("not enough data: 2 bytes")) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%q", got)
		}
	}
	info, err := sys.VolumeInfo(t.Context(), id, "private")
	if err != nil || info.Size != 2<<30 || info.Spec.Foreign {
		t.Errorf("%+v, %v", info, err)
	}
	// The cut one may have begun after the other.
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left, err := os.ReadDir(sys.Dir + "/import")
		if err != nil || len(left) > 0 && time.Now().After(end) {
			t.Fatalf("%v, %v", left, err)
		}
		if len(left) == 0 {
			break
		}
	}
}

// A reader of events that takes none is dropped, and nobody waits for it.
func TestASlowReaderOfEventsIsDropped(t *testing.T) {
	sys, path, server := serveAs(t, Public, func(s *Server) { s.ReplyTime = 50 * time.Millisecond })
	slow := dial(t, path, "admin.Events dom0 name dom0\x00")
	if err := slow.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, slow, "1\x00\x00connection-established\x00\x00")
	id := mustFind(t, sys, "work")
	// It never reads again; far more happens than a socket holds.
	filler := strings.Repeat("x", 4096)
	for i := range 500 {
		sys.Announce(id, fmt.Sprintf("domain-feature-set:%d-%s", i, filler))
	}
	if err := sys.SetTag(id, "quick"); err != nil {
		t.Error(err)
	}
	open := func() int {
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.conns)
	}
	for end := time.Now().Add(90 * time.Second); open() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still there")
		}
	}
	isServed(t, path)
}
