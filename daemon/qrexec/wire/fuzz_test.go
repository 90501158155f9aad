package wire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"cubicle/daemon/vchan"
)

func fuzzable(err error) bool {
	return err == nil || errors.Is(err, ErrProtocol) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func FuzzMessages(f *testing.F) {
	f.Add(Trigger{Target: "mail", Service: "t.Svc+k", Ident: "SOCKET"}.Message(), uint8(4))
	f.Add(Exec{Domain: 0, Port: 513}.Message(ConnectionTerminated), uint8(2))
	f.Add(Exec{0, 513, "user:QUBESRPC t.Svc+k work"}.Message(ExecCmdline), uint8(3))
	f.Add(Connect{8, 513, "SOCKET11"}.Message(), uint8(4))
	f.Add(RefusedMessage("SOCKET11"), uint8(4))
	f.Add(HelloMessage(4), uint8(4))
	f.Add(Header{TriggerService4, 0xffffffff}.AppendTo(nil), uint8(4))
	f.Fuzz(func(t *testing.T, b []byte, version uint8) {
		if _, err := ReadHello(bytes.NewReader(b)); !fuzzable(err) {
			t.Fatal(err)
		}
		for p := Agent; p <= TriggerClient; p++ {
			typ, body, err := ReadMessage(bytes.NewReader(b), p, Version(version))
			if !fuzzable(err) {
				t.Fatal(err)
			}
			if err != nil {
				continue
			}
			switch typ {
			case ExecCmdline, JustExec, ConnectionTerminated:
				e, err := ParseExec(body)
				if err == nil && e.Command != "" && !bytes.Equal(e.Message(typ)[HeaderSize:], body) {
					t.Fatalf("%x came back as %x", body, e.Message(typ))
				}
			case ServiceConnect:
				c, err := ParseConnect(body)
				if err == nil && !bytes.Equal(c.Message()[HeaderSize:], body) {
					t.Fatalf("%x came back as %x", body, c.Message())
				}
			case ServiceRefused:
				_, _ = ParseRefused(body)
			default:
				tr, err := ParseTrigger(typ, body)
				if err == nil && typ == TriggerService4 && !bytes.Equal(tr.Message()[HeaderSize:], body) {
					t.Fatalf("%x came back as %x", body, tr.Message())
				}
				if _, err := CleanService(tr.Service); !fuzzable(err) {
					t.Fatal(err)
				}
			}
		}
	})
}

func FuzzData(f *testing.F) {
	var b bytes.Buffer
	w := NewDataWriter(&b, 4)
	_ = errors.Join(w.Send(DataStdin, []byte("hello")), w.EOF(DataStdin), w.ExitCode(7))
	f.Add(b.Bytes())
	f.Add(Header{DataStdin, 0xffffffff}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewDataReader(bytes.NewReader(b), 4)
		total := 0
		for {
			_, body, err := r.Next()
			if !fuzzable(err) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			if total += HeaderSize + len(body); total > len(b) {
				t.Fatalf("%d bytes out of %d", total, len(b))
			}
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"user:nogui:QUBESRPC t.Svc+k work name x", "user:echo a:b", "DEFAULT:QUBESRPC a b", "::", "u:QUBESRPC  a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCommand(s)
		if err == nil && c.String() != s {
			t.Fatalf("%q came back as %q", s, c.String())
		}
	})
}

func FuzzArgs(f *testing.F) {
	f.Add("ls+--a+-2Ftmp")
	f.Add("-0")
	f.Fuzz(func(t *testing.T, s string) {
		argv, err := DecodeArgs(s)
		if err != nil {
			return
		}
		again, err := DecodeArgs(EncodeArgs(argv))
		if err != nil || !slices.Equal(argv, again) {
			t.Fatalf("%q → %q → %q, %v", s, argv, again, err)
		}
	})
}

// FuzzGaveUp: a name comes back unchanged, and no end of a real call is taken
// for one.
func FuzzGaveUp(f *testing.F) {
	f.Add("SOCKET11", uint32(8), uint32(513))
	f.Add("SOCKET007", uint32(0xc0000007), uint32(513))
	f.Add("SOCKET1073741824", uint32(0xffffffff), uint32(514))
	f.Fuzz(func(t *testing.T, id string, domain, port uint32) {
		if b, ok := GaveUpMessage(Ident(id)); ok {
			e, err := ParseExec(b[HeaderSize:])
			got, ok := ParseGaveUp(e)
			if err != nil || !ok || got != Ident(id) {
				t.Fatalf("%q came back as %q, %v, %v", id, got, ok, err)
			}
		}
		id2, ok := ParseGaveUp(Exec{Domain: vchan.Domain(domain), Port: vchan.Port(port)})
		if ok && (domain < 0xc0000000 || port != 513) {
			t.Fatalf("%d %d is %q", domain, port, id2)
		}
	})
}
