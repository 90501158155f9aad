package control

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

func TestHandover(t *testing.T) {
	a, b := pair(t)
	for _, want := range []Handover{
		{Command: "QUBESRPC t.Svc+ work keyword adminvm", Source: "work"},
		{Command: "QUBESRPC t.Svc+" + strings.Repeat("x", 65000) + " work", Source: "work"}, // in more than one piece
	} {
		data, other := pair(t)
		sent := make(chan error, 1)
		go func() { sent <- SendHandover(a, want, data) }()
		got, file, err := ReceiveHandover(b)
		if err != nil || got != want {
			t.Fatalf("%.50v, %v", got, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if _, err := data.Write([]byte("x")); err != nil { // it is still open here
			t.Error(err)
		}
		data.Close()
		if _, err := file.Write([]byte("yz")); err != nil {
			t.Error(err)
		}
		file.Close()
		if text, err := io.ReadAll(other); err != nil || string(text) != "xyz" {
			t.Errorf("%q, %v", text, err)
		}
	}
}

func TestBadHandovers(t *testing.T) {
	for name, send := range map[string]func(*net.UnixConn){
		"nothing":       func(c *net.UnixConn) {},
		"no descriptor": func(c *net.UnixConn) { _, _ = c.Write([]byte("{}\n")) },
		"no line":       func(c *net.UnixConn) { sendWith(c, "{}") },
		"no JSON":       func(c *net.UnixConn) { sendWith(c, "x\n") },
		"endless":       func(c *net.UnixConn) { sendWith(c, strings.Repeat(" ", MaxHandover+1)) },
	} {
		a, b := pair(t)
		go func() {
			send(a)
			a.Close()
		}()
		if h, file, err := ReceiveHandover(b); err == nil || file != nil {
			t.Errorf("%s: %+v, %v, %v", name, h, file, err)
		}
	}
}

// sendWith sends text with a descriptor.
func sendWith(c *net.UnixConn, text string) {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	defer w.Close()
	n, _, err := c.WriteMsgUnix([]byte(text), unix.UnixRights(int(r.Fd())), nil)
	if err == nil {
		_, _ = c.Write([]byte(text[n:]))
	}
}

// FuzzHandover: any bytes after the descriptor are a handover or an error, and
// take bounded memory.
func FuzzHandover(f *testing.F) {
	for _, seed := range []string{"{\"command\":\"QUBESRPC a b\",\"source\":\"b\"}\n", "{}\n", "\n", "null\n{}\n", "{\"command\":1}\n", "x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		r := bytes.NewReader(b[1:])
		h, err := readHandover(r, b[:1:1])
		if err == nil && len(h.Command)+len(h.Source) > 3*MaxHandover {
			t.Errorf("%d bytes", len(h.Command)+len(h.Source))
		}
	})
}
