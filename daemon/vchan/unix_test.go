package vchan

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// longDir is a folder whose path alone is longer than a socket's address.
func longDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 12))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func short(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestUnixChannel(t *testing.T) {
	dir := longDir(t)
	server, client := &Unix{Dir: dir, Self: 7}, &Unix{Dir: dir, Self: 0}
	for range 3 { // a server serves one client; the next one needs a new server
		dialed := make(chan *Channel, 1)
		go func() { // before anybody listens
			ch, err := client.Dial(short(t), 7, 6000)
			if err != nil {
				t.Error(err)
			}
			dialed <- ch
		}()
		a, err := server.Listen(short(t), 0, 6000)
		if err != nil {
			t.Fatal(err)
		}
		b := <-dialed
		if _, err := a.Write([]byte("bytes as they are")); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != "bytes as they are" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := b.Write([]byte("x")); err != nil { // the other direction is open
			t.Error(err)
		}
		a.Close()
		b.Close()
		if _, err := os.Lstat(filepath.Join(dir, "vchan.7.0.6000.sock")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket of a channel in use stays: %v", err)
		}
	}
}

// TestUnixStaleSocket: a server that died leaves its file behind.
func TestUnixStaleSocket(t *testing.T) {
	dir := longDir(t)
	l, err := ListenPath(filepath.Join(dir, SocketName(7, 0, 512)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dialed := make(chan error, 1)
	go func() {
		ch, err := (&Unix{Dir: dir}).Dial(short(t), 7, 512)
		if err == nil {
			ch.Close()
		}
		dialed <- err
	}()
	time.Sleep(20 * time.Millisecond) // it is refused and tries again
	ch, err := (&Unix{Dir: dir, Self: 7}).Listen(short(t), 0, 512)
	if err != nil {
		t.Fatal(err)
	}
	ch.Close()
	if err := <-dialed; err != nil {
		t.Error(err)
	}
}

func TestUnixGivesUp(t *testing.T) {
	u := &Unix{Dir: longDir(t), Self: 7}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := u.Listen(ctx, 0, 513)
	var e *Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Op != "listen" || e.Port != 513 {
		t.Errorf("listen: %v", err)
	}
	if _, err := u.Dial(ctx, 0, 513); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial: %v", err)
	}
	if list, err := os.ReadDir(u.Dir); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, err := (&Unix{Dir: u.Dir + "/none"}).Listen(context.Background(), 0, 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

func TestFromEnv(t *testing.T) {
	for _, c := range []struct {
		dir, domain string
		want        *Unix
		bad         bool
	}{
		{"", "", nil, false},
		{"/x", "", &Unix{Dir: "/x"}, false},
		{"", "7", &Unix{Dir: "/var/run/vchan", Self: 7}, false},
		{"/x", "-1", nil, true},
	} {
		for key, v := range map[string]string{"VCHAN_SOCKET_DIR": c.dir, "VCHAN_DOMAIN": c.domain} {
			t.Setenv(key, v)
			if v == "" {
				os.Unsetenv(key)
			}
		}
		u, ok, err := FromEnv()
		if (err != nil) != c.bad || ok != (c.want != nil || c.bad) || c.want != nil && *u != *c.want {
			t.Errorf("%q, %q: %+v, %v, %v", c.dir, c.domain, u, ok, err)
		}
	}
}

func FuzzLinkFrame(f *testing.F) {
	f.Add(LinkFrame{LinkHello, LinkVersion, 0x8000, 0}.AppendTo(nil))
	f.Add(LinkFrame{LinkChannel, 1, 0, 6000}.AppendTo(nil))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseLinkFrame(b)
		if (err == nil) != (len(b) == LinkFrameSize) {
			t.Fatal(len(b), err)
		}
		if err == nil && string(frame.AppendTo(nil)) != string(b) {
			t.Fatalf("%x came back as %x", b, frame.AppendTo(nil))
		}
	})
}

// pair returns a link and the raw connection that plays qrexecd.
func pair(t *testing.T) (*Link, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(longDir(t), "link.sock")
	l, err := ListenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *net.UnixConn, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			t.Error(err)
			return
		}
		if f, _, err := ReadLinkFrame(c, false); err != nil || f.Op != LinkHello || f.Request != LinkVersion {
			t.Error(f, err)
		}
		if err := WriteLinkFrame(c, LinkFrame{LinkHello, LinkVersion, 0x8005, 0}); err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	link, err := DialLink(short(t), path)
	if err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	t.Cleanup(func() { link.Close(); c.Close(); <-link.Done() })
	return link, c
}

func TestLink(t *testing.T) {
	link, router := pair(t)
	if link.Self() != 0x8005 {
		t.Errorf("own domain %d", link.Self())
	}
	type result struct {
		ch  *Channel
		err error
	}
	ask := func(port Port) chan result {
		c := make(chan result, 1)
		go func() {
			ch, err := link.Listen(short(t), 0, port)
			c <- result{ch, err}
		}()
		return c
	}
	a := ask(6000)
	fa, _, err := ReadLinkFrame(router, false)
	if err != nil {
		t.Fatal(err)
	}
	b := ask(512)
	fb, _, err := ReadLinkFrame(router, false)
	if err != nil {
		t.Fatal(err)
	}
	if fa.Op != LinkListen || fa.Port != 6000 || fb.Port != 512 || fa.Request == fb.Request {
		t.Errorf("%+v, %+v", fa, fb)
	}
	// Answers may come in another order; unknown ids are ignored.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	sock, end := socketFiles(t)
	if err := errors.Join(
		WriteLinkFrame(router, LinkFrame{LinkChannel, 999, 0, 1}, end),
		WriteLinkFrame(router, LinkFrame{LinkRefused, fb.Request, Domain(ReasonBusy), 0}),
		WriteLinkFrame(router, LinkFrame{LinkChannel, fa.Request, 0, 6000}, end, r),
	); err != nil {
		t.Fatal(err)
	}
	end.Close()
	var refused *RefusedError
	if got := <-b; !errors.As(got.err, &refused) || refused.Reason != ReasonBusy {
		t.Errorf("%+v", got)
	}
	got := <-a
	if got.err != nil || got.ch.Region == nil {
		t.Fatalf("%+v", got)
	}
	if _, err := got.ch.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 1)
	if _, err := sock.Read(buf); err != nil || buf[0] != 'x' {
		t.Errorf("%q, %v", buf, err)
	}
	got.ch.Close()
	// Whoever gives up is told of no more, and the other side hears of it.
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan error, 1)
	go func() { _, err := link.Dial(ctx, 0, 513); c <- err }()
	fc, _, err := ReadLinkFrame(router, false)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-c; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if f, _, err := ReadLinkFrame(router, false); err != nil || f.Op != LinkCancel || f.Request != fc.Request {
		t.Errorf("%+v, %v", f, err)
	}
	// The end of the connection ends what waits.
	d := ask(6000)
	if _, _, err := ReadLinkFrame(router, false); err != nil {
		t.Fatal(err)
	}
	router.Close()
	if got := <-d; !errors.Is(got.err, ErrLinkLost) {
		t.Errorf("%+v", got)
	}
	if _, err := link.Listen(short(t), 0, 1); !errors.Is(err, ErrLinkLost) {
		t.Errorf("after the loss: %v", err)
	}
}

func socketFiles(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	u, ok := c.(*net.UnixConn)
	if !ok {
		t.Fatalf("%T", c)
	}
	f, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	return s, f
}
