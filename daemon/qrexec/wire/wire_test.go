package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

func unhexText(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes that spec/qrexec.md §5 and §7 give.
func TestBytesOfTheSpec(t *testing.T) {
	pad := func(s string, n int) string { return s + strings.Repeat("\x00", n-len(s)) }
	for _, c := range []struct {
		name string
		got  []byte
		head string
		tail string
	}{
		{"hello", HelloMessage(4), "00030000 04000000 04000000", ""},
		{"exec", Exec{7, 513, "user:QUBESRPC t.Svc+k work"}.Message(ExecCmdline),
			"00020000 23000000 07000000 01020000", "user:QUBESRPC t.Svc+k work\x00"},
		{"connect", Connect{8, 513, "SOCKET11"}.Message(),
			"02020000 28000000 08000000 01020000", pad("SOCKET11", 32)},
		{"refuse", RefusedMessage("SOCKET11"), "03020000 20000000", pad("SOCKET11", 32)},
		{"end", Exec{Domain: 7, Port: 513}.Message(ConnectionTerminated), "11020000 08000000 07000000 01020000", ""},
		{"trigger", Trigger{Target: "mail", Service: "t.Svc+k", Ident: "SOCKET"}.Message(),
			"13020000 a8000000", pad("", 64) + pad("mail", 64) + pad("SOCKET", 32) + "t.Svc+k\x00"},
	} {
		want := append(unhexText(t, c.head), c.tail...)
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s:\n got %x\nwant %x", c.name, c.got, want)
		}
	}
}

func TestLengthsAreCheckedBeforeTheBody(t *testing.T) {
	for _, c := range []struct {
		name    string
		peer    Peer
		version Version
		head    Header
		ok      bool
	}{
		{"end of call", Agent, 4, Header{ConnectionTerminated, 8}, true},
		{"end of call, long", Agent, 4, Header{ConnectionTerminated, 9}, false},
		{"old trigger", Agent, 2, Header{TriggerService, 128}, true},
		{"old trigger from a new agent", Agent, 4, Header{TriggerService, 128}, false},
		{"trigger 3", Agent, 3, Header{TriggerService3, 97}, true},
		{"trigger 3, no service", Agent, 3, Header{TriggerService3, 96}, false},
		{"trigger 4", Agent, 4, Header{TriggerService4, 160 + 65000}, true},
		{"trigger 4 from an old agent", Agent, 3, Header{TriggerService4, 170}, false},
		{"trigger 4, long", Agent, 4, Header{TriggerService4, 160 + 65001}, false},
		{"exec from an agent", Agent, 4, Header{ExecCmdline, 20}, false},
		{"gigantic", Agent, 4, Header{TriggerService4, 0xffffffff}, false},
		{"exec", Client, 3, Header{ExecCmdline, 65535}, true},
		{"exec, long", Client, 3, Header{ExecCmdline, 65536}, false},
		{"refusal to an agent", Daemon, 4, Header{ServiceRefused, 32}, true},
		{"second hello", Daemon, 4, Header{Hello, 4}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The body is not there: a good header must run into that.
			_, _, err := ReadMessage(bytes.NewReader(c.head.AppendTo(nil)), c.peer, c.version)
			if c.ok && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("err = %v, want an unexpected end", err)
			}
			if !c.ok && !errors.Is(err, ErrProtocol) {
				t.Errorf("err = %v, want a protocol error", err)
			}
		})
	}
}

func TestIdents(t *testing.T) {
	field := func(s string) []byte { return []byte(s + strings.Repeat("\x00", IdentSize-len(s))) }
	for _, s := range []string{"SOCKET11", "", "a_b-c. d", strings.Repeat("x", 31)} {
		if id, err := ParseIdent(field(s)); err != nil || string(id) != s {
			t.Errorf("%q: got %q, %v", s, id, err)
		}
	}
	for name, b := range map[string][]byte{
		"no NUL":        bytes.Repeat([]byte("x"), 32),
		"after the NUL": append([]byte("a\x00b"), make([]byte, 29)...),
		"slash":         field("a/b"),
		"high byte":     field("a\xff"),
		"short":         []byte("abc\x00"),
	} {
		if id, err := ParseIdent(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %q, %v", name, id, err)
		}
	}
}

func TestTriggers(t *testing.T) {
	want := Trigger{Source: "s", Target: "mail", Service: "t.Svc+k", Ident: "SOCKET3"}
	got, err := ParseTrigger(TriggerService4, want.Message()[HeaderSize:])
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	old := make([]byte, 128)
	copy(old, "t.Svc")
	copy(old[64:], "mail")
	copy(old[96:], "SOCKET3")
	if got, err := ParseTrigger(TriggerService, old); err != nil || got != (Trigger{Target: "mail", Service: "t.Svc", Ident: "SOCKET3"}) {
		t.Errorf("version 2: got %+v, %v", got, err)
	}
	bad := want.Message()[HeaderSize:]
	bad[len(bad)-3] = 0 // a NUL inside the service name
	if got, err := ParseTrigger(TriggerService4, bad); !errors.Is(err, ErrProtocol) || got.Ident != "SOCKET3" {
		t.Errorf("NUL inside: got %+v, %v; want an error that still names the ident", got, err)
	}
}

func TestNames(t *testing.T) {
	if s, err := CleanService("a b/c$+x y:@"); err != nil || s != "a_b_c_+x_y__" {
		t.Errorf("service: %q, %v", s, err)
	}
	for _, s := range []string{"", "+x", strings.Repeat("x", 256), "a\x00b"} {
		if got, err := CleanService(s); err == nil {
			t.Errorf("service %q became %q", s, got)
		}
	}
	if s := CleanTarget("@dispvm:a b$+"); s != "@dispvm:a_b__" {
		t.Errorf("target: %q", s)
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Command
		rpc  RPC
	}{
		{"user:echo a:b", Command{User: "user", Line: "echo a:b"}, RPC{}},
		{"root:nogui:id", Command{User: "root", NoGUI: true, Line: "id"}, RPC{}},
		{"user:QUBESRPC t.Svc+k work", Command{User: "user"}, RPC{Service: "t.Svc", Argument: "k", HasArgument: true, Source: "work"}},
		{"user:nogui:QUBESRPC t.Svc+ work", Command{User: "user", NoGUI: true}, RPC{Service: "t.Svc", HasArgument: true, Source: "work"}},
		{"user:QUBESRPC t.Svc work keyword adminvm", Command{User: "user"}, RPC{Service: "t.Svc", Source: "work", TargetType: "keyword", Target: "adminvm"}},
		{"user:QUBESRPC t.Svc+a+b work", Command{User: "user"}, RPC{Service: "t.Svc", Argument: "a+b", HasArgument: true, Source: "work"}},
	} {
		got, err := ParseCommand(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if got.String() != c.in {
			t.Errorf("%q came back as %q", c.in, got.String())
		}
		if got.RPC != nil {
			if *got.RPC != c.rpc {
				t.Errorf("%q: %+v", c.in, *got.RPC)
			}
			got.RPC = nil
		} else if c.rpc != (RPC{}) {
			t.Errorf("%q: no service", c.in)
		}
		if got != c.want {
			t.Errorf("%q: %+v", c.in, got)
		}
	}
	for _, in := range []string{"", "echo", ":echo", "user:", "user:QUBESRPC ", "user:QUBESRPC t.Svc", "user:QUBESRPC  t.Svc work",
		"user:QUBESRPC t.Svc work ", "user:QUBESRPC +k work", "user:QUBESRPC t.Svc work name", "user:QUBESRPC t.Svc work other x",
		"user:QUBESRPC ../x work", "user:QUBESRPC " + strings.Repeat("x", 256) + " work", "user:QUBESRPC .. work"} {
		if got, err := ParseCommand(in); err == nil {
			t.Errorf("%q was taken as %+v", in, got)
		}
	}
	for in, want := range map[string]string{
		"DEFAULT:QUBESRPC qubes.VMShell dom0": "bob:QUBESRPC qubes.VMShell+ dom0",
		"DEFAULTx:id":                         "DEFAULTx:id",
		"user:nogui:QUBESRPC a+ dom0":         "user:nogui:QUBESRPC a+ dom0",
	} {
		if got, err := ForAgent(in, "bob"); err != nil || got != want {
			t.Errorf("ForAgent(%q) = %q, %v", in, got, err)
		}
	}
}

func TestArgs(t *testing.T) {
	if got := EncodeArgs([]string{"ls", "-a", "/tmp"}); got != "ls+--a+-2Ftmp" {
		t.Errorf("encoded: %q", got)
	}
	if got, err := DecodeArgs("ls+--a+-2Ftmp+"); err != nil || strings.Join(got, "|") != "ls|-a|/tmp|" {
		t.Errorf("decoded: %q, %v", got, err)
	}
	for _, s := range []string{"-", "a-2f", "a-2", "a b", "-zz", "-00", "é"} {
		if got, err := DecodeArgs(s); err == nil {
			t.Errorf("%q was decoded to %q", s, got)
		}
	}
}

func TestDataMessages(t *testing.T) {
	for _, v := range []Version{2, 3, 4} {
		var b bytes.Buffer
		w := NewDataWriter(&b, v)
		long := bytes.Repeat([]byte("0123456789"), 20000)
		if err := errors.Join(w.Send(DataStdout, long), w.EOF(DataStderr), w.EOF(DataStdout), w.ExitCode(-3)); err != nil {
			t.Fatal(err)
		}
		var got []byte
		var types []Type
		r := NewDataReader(&b, v)
		for {
			typ, body, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(body) > v.Chunk() {
				t.Fatalf("version %d: a chunk of %d bytes", v, len(body))
			}
			if typ == DataStdout && len(body) > 0 {
				got = append(got, body...)
				continue
			}
			types = append(types, typ)
			if typ == DataExitCode {
				if n, err := ExitStatus(body); n != -3 || err != nil {
					t.Errorf("status %d, %v", n, err)
				}
			}
		}
		if !bytes.Equal(got, long) || len(types) != 3 {
			t.Errorf("version %d: %d bytes, then %v", v, len(got), types)
		}
	}
}

func TestDataLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		v    Version
		h    Header
	}{
		{"long chunk, version 2", 2, Header{DataStdin, 4097}},
		{"long chunk, version 4", 4, Header{DataStdin, 65537}},
		{"gigantic", 4, Header{DataStdout, 0xffffffff}},
		{"exit code of 3 bytes", 4, Header{DataExitCode, 3}},
		{"control message", 4, Header{ExecCmdline, 8}},
	} {
		b := append(c.h.AppendTo(nil), make([]byte, 100)...)
		if _, _, err := NewDataReader(bytes.NewReader(b), c.v).Next(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: err = %v", c.name, err)
		}
	}
}

func TestEscapeFilter(t *testing.T) {
	var b bytes.Buffer
	in := "a\x1b[31mb\tc\r\n\b\a\x7f\x00\xc3\xa9"
	n, err := NewEscapeFilter(&b).Write([]byte(in))
	if want := "a_[31mb\tc\r\n\b\a____"; b.String() != want || n != len(in) || err != nil {
		t.Errorf("%q, %d, %v; want %q", b.String(), n, err, want)
	}
}
