package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait, far above what a loaded machine needs.
const patience = 90 * time.Second

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

const anyQuestion = "policy.Ask dom0 name dom0\x00" + `{"source": "work", "service": "q.S", "argument": "+", "targets": ["vault", "web"], "default_target": ""}`

// serve runs a server until the test ends and returns its socket.
func serveTest(t *testing.T, s *Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Log = quiet()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is left behind")
		}
	})
	return path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends all there is to say.
func say(t *testing.T, c *net.UnixConn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func callOnce(t *testing.T, path, text string) string {
	t.Helper()
	c := dial(t, path)
	say(t, c, text)
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestOnlyWhatWasOfferedIsAnswered(t *testing.T) {
	says := ""
	path := serveTest(t, &Server{Ask: func(_ context.Context, r Request) string { return says }})
	for _, c := range []struct{ says, want string }{
		{"vault", "allow:vault"}, {"web", "allow:web"}, {"", "deny"}, {"work", "deny"}, {"dom0", "deny"}, {"vault\n", "deny"},
	} {
		says = c.says
		if got := callOnce(t, path, anyQuestion); got != c.want {
			t.Errorf("said %q, answered %q, want %q", c.says, got, c.want)
		}
	}
}

func TestNewsAreTold(t *testing.T) {
	news := make(chan News, 1)
	path := serveTest(t, &Server{Tell: func(n News) { news <- n }})
	got := callOnce(t, path, "policy.Notify dom0\x00"+`{"resolution": "fail", "service": "q.S", "argument": "+", "source": "work", "target": "vault"}`)
	if n := <-news; got != "" || n != (News{Failed, "q.S", "", "work", "vault", ""}) {
		t.Errorf("answered %q to %+v", got, n)
	}
}

func TestNobodyIsAskedWhatIsNoQuestion(t *testing.T) {
	path := serveTest(t, &Server{
		Ask:  func(_ context.Context, r Request) string { t.Errorf("asked %+v", r); return "vault" },
		Tell: func(n News) { t.Errorf("told %+v", n) },
	})
	_, body, _ := strings.Cut(anyQuestion, "\x00")
	for text, want := range map[string]string{
		"":                                           "",
		"policy.Ask dom0 name dom0":                  "",
		"policy.Ask work name dom0\x00" + body:       "", // not dom0's
		"policy.Other dom0\x00" + body:               "",
		"policy.Ask\x00" + body:                      "",
		"policy.Ask dom0\x00" + body[1:]:             "deny",
		"policy.Ask dom0\x00":                        "deny",
		"policy.Notify dom0\x00{}":                   "",
		strings.Repeat("x", maxHeader) + anyQuestion: "",
	} {
		if got := callOnce(t, path, text); got != want {
			t.Errorf("%.60q was answered %q, want %q", text, got, want)
		}
	}
}

// Half of the connection is closed by every caller; all of it by one that has
// given up.
func TestWhoHangsUpIsAskedForNoMore(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan struct{})
	path := serveTest(t, &Server{Ask: func(ctx context.Context, _ Request) string {
		asked <- struct{}{}
		<-ctx.Done()
		close(ended)
		return "vault"
	}})
	c := dial(t, path)
	say(t, c, anyQuestion)
	<-asked
	select {
	case <-ended:
		t.Fatal("a half-closed connection ended the question")
	case <-time.After(50 * time.Millisecond):
	}
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the question stands though the caller is gone")
	}
}

func TestStrangersAreRefused(t *testing.T) {
	s := &Server{Users: []uint32{1000}}
	for uid, want := range map[uint32]bool{0: true, 1000: true, 1001: false, 65534: false} {
		if s.admits(uid) != want {
			t.Errorf("user %d: admitted %v", uid, !want)
		}
	}
}

func TestAnAgentThatRunsIsNotReplaced(t *testing.T) {
	path := serveTest(t, &Server{})
	if l, err := Listen(path); err == nil {
		l.Close()
		t.Error("there are two agents")
	}
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	link := filepath.Join(t.TempDir(), "link.sock")
	if err := os.Symlink(stale, link); err != nil {
		t.Fatal(err)
	}
	l, err = Listen(link)
	if err != nil {
		t.Fatalf("the socket of a killed agent stands in the way: %v", err)
	}
	defer l.Close()
	if info, err := os.Stat(stale); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
