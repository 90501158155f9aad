package link

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cubicle/daemon/vchan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// router plays qrexecd for one connection at a time: it answers each Listen
// with one end of a socket pair and a region, keeps the other end, refuses
// every Dial, and reports what was cancelled.
type router struct {
	l         *net.UnixListener
	ends      chan *os.File
	cancelled chan uint32
	conns     chan *net.UnixConn
}

func newRouter(t *testing.T, path string) *router {
	l, err := vchan.ListenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &router{l, make(chan *os.File, 8), make(chan uint32, 8), make(chan *net.UnixConn, 8)}
	done := make(chan struct{})
	go func() { defer close(done); r.run(t) }()
	t.Cleanup(func() { l.Close(); <-done })
	return r
}

func (r *router) run(t *testing.T) {
	for {
		conn, err := r.l.AcceptUnix()
		if err != nil {
			return
		}
		r.conns <- conn
		for {
			f, _, err := vchan.ReadLinkFrame(conn, false)
			if err != nil {
				break
			}
			switch f.Op {
			case vchan.LinkHello:
				vchan.WriteLinkFrame(conn, vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion, Domain: 0x8001})
			case vchan.LinkListen:
				if f.Port == 7 { // the port that is never answered
					continue
				}
				ours, theirs := pair(t)
				region, err := os.CreateTemp(t.TempDir(), "region")
				if err != nil {
					t.Error(err)
				}
				region.WriteString("pixels")
				f.Op = vchan.LinkChannel
				vchan.WriteLinkFrame(conn, f, theirs, region)
				theirs.Close()
				region.Close()
				r.ends <- ours
			case vchan.LinkDial:
				vchan.WriteLinkFrame(conn, vchan.LinkFrame{Op: vchan.LinkRefused, Request: f.Request, Domain: vchan.Domain(vchan.ReasonNotAllowed)})
			case vchan.LinkCancel:
				r.cancelled <- f.Request
			}
		}
		conn.Close()
	}
}

// agents is what the qube's agents have: the relay's socket.
type agents struct {
	*Transport
	relay *Relay
}

func start(t *testing.T) (*router, *agents, context.Context) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	up, local := filepath.Join(dir, "up.sock"), filepath.Join(dir, "local.sock")
	relay := &Relay{Link: &Transport{Path: up}, Local: local, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	done := make(chan struct{})
	go func() { defer close(done); relay.Run(ctx) }()
	tr := &agents{&Transport{Path: local}, relay}
	router := newRouter(t, up)
	t.Cleanup(func() { tr.Close(); cancel(); <-done })
	return router, tr, ctx
}

func TestRelayHandsChannelAndRegionToTheAgent(t *testing.T) {
	router, tr, ctx := start(t)
	ch, err := tr.Listen(ctx, 0, vchan.PortGUI)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	if ch.Region == nil {
		t.Fatal("no region")
	}
	b := make([]byte, 6)
	if _, err := ch.Region.ReadAt(b, 0); err != nil || string(b) != "pixels" {
		t.Fatalf("region holds %q, %v", b, err)
	}
	far := <-router.ends
	defer far.Close()
	go ch.Write([]byte("hello"))
	b = make([]byte, 5)
	if _, err := io.ReadFull(far, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
	self, err := tr.Self(ctx)
	if err != nil || self != 0x8001 {
		t.Fatalf("own domain %#x, %v", self, err)
	}
}

func TestTheRelaysOwnProcessUsesTheSameLink(t *testing.T) {
	router, tr, ctx := start(t)
	if _, err := tr.Self(ctx); err != nil {
		t.Fatal(err)
	}
	ch, err := tr.relay.Link.Listen(ctx, 0, vchan.PortQrexec)
	if err != nil {
		t.Fatal(err)
	}
	ch.Close()
	(<-router.ends).Close()
	if <-router.conns; len(router.conns) != 0 {
		t.Error("there is a second link")
	}
}

func TestRefusalReachesTheAgent(t *testing.T) {
	_, tr, ctx := start(t)
	_, err := tr.Dial(ctx, 0, 600)
	if want := (&vchan.Error{Op: "dial", Port: 600, Err: &vchan.RefusedError{Reason: vchan.ReasonNotAllowed}}).Error(); err == nil || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
}

func TestCancelReachesQrexecd(t *testing.T) {
	router, tr, ctx := start(t)
	if _, err := tr.Self(ctx); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := tr.Listen(short, 0, 7); err == nil {
		t.Fatal("a channel from nobody")
	}
	select {
	case <-router.cancelled:
	case <-ctx.Done():
		t.Fatal("qrexecd was not told")
	}
}

func TestWaitingRequestSurvivesARestartOfQrexecd(t *testing.T) {
	router, tr, ctx := start(t)
	first := <-router.conns // the relay's
	waiting := make(chan error, 1)
	go func() {
		_, err := tr.Listen(ctx, 0, 7)
		waiting <- err
	}()
	time.Sleep(20 * time.Millisecond)
	first.Close()
	<-router.conns // it came again
	ch, err := tr.Listen(ctx, 0, vchan.PortQrexec)
	if err != nil {
		t.Fatal(err)
	}
	ch.Close()
	(<-router.ends).Close()
	select {
	case err := <-waiting:
		t.Fatalf("the waiting request ended: %v", err)
	default:
	}
}
