package client

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain vchan.Domain = 7

// daemon plays a qube's daemon for one client, which has done its hello.
func daemon(t *testing.T, root paths.Root, serve func(c net.Conn)) {
	t.Helper()
	l, err := vchan.ListenPath(filepath.Join(root.RunQubes(), "qrexec.work"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := c.Write(wire.HelloMessage(3)); err != nil {
			t.Error(err)
		}
		if v, err := wire.ReadHello(c); v != 3 || err != nil {
			t.Errorf("client's hello: %d, %v", v, err)
		}
		serve(c)
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// answered reads the command, checks it and answers with the port.
func answered(t *testing.T, c net.Conn, want wire.Type) {
	typ, body, err := wire.ReadMessage(c, wire.Client, 3)
	if err != nil || typ != want {
		t.Errorf("%v, %v", typ, err)
	}
	if e, err := wire.ParseExec(body); err != nil || e != (wire.Exec{Command: "user:id"}) {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := c.Write(wire.Exec{Domain: domain, Port: 513}.Message(typ)); err != nil {
		t.Error(err)
	}
}

// data opens the qube's end of the call.
func data(t *testing.T, root paths.Root) *vchan.Channel {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ch, err := (&vchan.Unix{Dir: root.Vchan(), Self: domain}).Dial(ctx, 0, 513)
	if err != nil {
		t.Error(err)
	}
	return ch
}

func house(t *testing.T) paths.Root {
	t.Helper()
	root := paths.Root(t.TempDir())
	for _, dir := range []string{root.RunQubes(), root.Vchan()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRun(t *testing.T) {
	for _, version := range []wire.Version{2, 3, 4, 9} {
		root := house(t)
		daemon(t, root, func(c net.Conn) {
			answered(t, c, wire.ExecCmdline)
			ch := data(t, root)
			defer ch.Close()
			if _, err := ch.Write(wire.HelloMessage(version)); err != nil {
				t.Error(err)
			}
			if v, err := wire.ReadHello(ch); v != 4 || err != nil {
				t.Error(v, err)
			}
			v := min(version, 4)
			r, w := wire.NewDataReader(ch, v), wire.NewDataWriter(ch, v)
			var in []byte
			for {
				typ, body, err := r.Next()
				if err != nil || typ != wire.DataStdin {
					t.Errorf("%v, %v", typ, err)
					return
				}
				if len(body) == 0 {
					break
				}
				if len(body) > v.Chunk() {
					t.Errorf("version %d: a chunk of %d bytes", version, len(body))
				}
				in = append(in, body...)
			}
			// Both kinds of output, a wrong direction, and an end before more.
			err := errors.Join(w.Send(wire.DataStdout, in), w.Send(wire.DataStderr, []byte("oops")), w.EOF(wire.DataStderr),
				w.Send(wire.DataStdin, []byte("!")), w.EOF(wire.DataStdout), w.ExitCode(3))
			if err != nil {
				t.Error(err)
			}
		})
		var out, errOut bytes.Buffer
		long := strings.Repeat("x", 200000)
		status, err := Run(t.Context(), Call{Root: root, Target: "work", Command: "user:id",
			Stdin: strings.NewReader(long), Stdout: &out, Stderr: &errOut, PrefixData: []byte("first ")})
		if status != 3 || err != nil || out.String() != "first "+long+"!" || errOut.String() != "oops" {
			t.Errorf("version %d: %d, %v, %d bytes, %q", version, status, err, out.Len(), errOut.String())
		}
	}
}

func TestEnds(t *testing.T) {
	dataBytes := func(b []byte) func(*testing.T, paths.Root, net.Conn) {
		return func(t *testing.T, root paths.Root, c net.Conn) {
			answered(t, c, wire.ExecCmdline)
			ch := data(t, root)
			defer ch.Close()
			if _, err := ch.Write(b); err != nil {
				t.Error(err)
			}
			if _, err := wire.ReadHello(ch); err != nil { // or our end resets the stream
				t.Error(err)
			}
		}
	}
	hello := wire.HelloMessage(4)
	for _, c := range []struct {
		name   string
		serve  func(t *testing.T, root paths.Root, c net.Conn)
		status int
		want   error
	}{
		{"refused at once", func(*testing.T, paths.Root, net.Conn) {}, 1, ErrRefused},
		{"refused after the answer", func(t *testing.T, _ paths.Root, c net.Conn) { answered(t, c, wire.ExecCmdline) }, 1, ErrRefused},
		{"silence", func(_ *testing.T, _ paths.Root, c net.Conn) { time.Sleep(400 * time.Millisecond) }, 1, ErrTimeout},
		{"nobody connects", func(t *testing.T, _ paths.Root, c net.Conn) {
			answered(t, c, wire.ExecCmdline)
			time.Sleep(400 * time.Millisecond)
		}, 1, ErrTimeout},
		{"another answer", func(t *testing.T, _ paths.Root, c net.Conn) {
			_, _ = c.Write(wire.Exec{Domain: domain, Port: 513}.Message(wire.JustExec))
		}, 1, wire.ErrProtocol},
		{"long answer", func(t *testing.T, _ paths.Root, c net.Conn) {
			_, _ = c.Write(wire.Header{Type: wire.ExecCmdline, Length: 1 << 30}.AppendTo(nil))
		}, 1, wire.ErrProtocol},
		{"the channel ends at once", dataBytes(nil), 255, ErrNoExitCode},
		{"no exit code", dataBytes(append(bytes.Clone(hello), wire.Message(wire.DataStdout, []byte("x"))...)), 255, ErrNoExitCode},
		{"half a message", dataBytes(append(bytes.Clone(hello), 1, 2, 3)), 255, ErrNoExitCode},
		{"a gigantic message", dataBytes(append(bytes.Clone(hello), wire.Header{Type: wire.DataStdout, Length: 1 << 30}.AppendTo(nil)...)), 255, wire.ErrProtocol},
		{"a control message", dataBytes(append(bytes.Clone(hello), wire.RefusedMessage("x")...)), 255, wire.ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := house(t)
			daemon(t, root, func(conn net.Conn) { c.serve(t, root, conn) })
			status, err := Run(t.Context(), Call{Root: root, Target: "work", Command: "user:id", ConnectTimeout: 300 * time.Millisecond})
			if status != c.status || !errors.Is(err, c.want) {
				t.Errorf("%d, %v; want %d, %v", status, err, c.status, c.want)
			}
		})
	}
}

func TestBadCalls(t *testing.T) {
	root := house(t)
	for name, call := range map[string]Call{
		"no qube":       {Target: "", Command: "user:id"},
		"a path":        {Target: "../x", Command: "user:id"},
		"no user":       {Target: "work", Command: "id"},
		"a NUL":         {Target: "work", Command: "user:i\x00d"},
		"a long one":    {Target: "work", Command: "user:" + strings.Repeat("x", 65535)},
		"a bad service": {Target: "work", Command: "user:QUBESRPC x"},
	} {
		call.Root = root
		if _, err := Run(t.Context(), call); err == nil || errors.Is(err, ErrNotReady) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Run(t.Context(), Call{Root: root, Target: "work", Command: Shell("", "id")}); !errors.Is(err, ErrNotReady) {
		t.Errorf("no socket: %v", err)
	}
}
