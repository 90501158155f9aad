package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves a root folder's services.
func start(t *testing.T, change ...func(*Runner)) (paths.Root, *Runner) {
	t.Helper()
	root := paths.Root(t.TempDir())
	for _, dir := range []string{root.RunQubes(), root.RPC()[2], root.RPCConfig()[2]} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := vchan.ListenPath(root.Services())
	if err != nil {
		t.Fatal(err)
	}
	r := New(Options{Root: root, AllowUIDs: []uint32{uint32(os.Geteuid())}, Env: []string{"PATH=/usr/bin:/bin", "QREXEC_EVIL=1"}})
	for _, f := range change {
		f(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return root, r
}

// hand hands a call over and returns its caller's end.
func hand(t *testing.T, root paths.Root, command, source string) (data *net.UnixConn, call *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "data")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := vchan.DialOnce(root.Services())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	err = control.SendHandover(conn, control.Handover{Command: command, Source: source}, ends[0])
	if err != nil && !errors.Is(err, unix.EPIPE) { // who is refused may be so before it has spoken
		t.Fatal(err)
	}
	ends[0].Close()
	return ends[1], conn
}

// exchange makes a call with an input and returns what came of it.
func exchange(t *testing.T, root paths.Root, command, input string) (status int, out string) {
	t.Helper()
	data, call := hand(t, root, command, "work")
	r, w, err := wire.OpenData(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Send(wire.DataStdin, []byte(input)), w.EOF(wire.DataStdin)); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err) // a service that does not run reads nothing
	}
	for {
		typ, body, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch typ {
		case wire.DataStdout:
			out += string(body)
		case wire.DataExitCode:
			status, err = wire.ExitStatus(body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := call.Read(make([]byte, 1)); err != io.EOF { // qrexecd is told
				t.Errorf("the call ended with %v", err)
			}
			return status, out
		}
	}
}

func file(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestServices(t *testing.T) {
	root, _ := start(t)
	rpc, config := root.RPC()[2], root.RPCConfig()[2]
	file(t, filepath.Join(rpc, "t.Env"), "#!/bin/sh\nenv | grep QREXEC | sort; cat; exit 4\n")
	file(t, filepath.Join(rpc, "t.Else"), "#!/bin/sh\n")
	file(t, filepath.Join(config, "t.Else"), "force-user = nobody\n")
	file(t, filepath.Join(rpc, "qubes.GetDate+mine"), "#!/bin/sh\necho mine\n")
	for _, c := range []struct {
		command, in string
		status      int
		out         string
	}{
		{"QUBESRPC t.Env+a work name dom0", "in", 4, "QREXEC_REMOTE_DOMAIN=work\nQREXEC_REQUESTED_TARGET=dom0\nQREXEC_REQUESTED_TARGET_TYPE=name\n" +
			"QREXEC_SERVICE_ARGUMENT=a\nQREXEC_SERVICE_FULL_NAME=t.Env+a\nin"},
		{"QUBESRPC qubes.GetDate+mine work", "", 0, "mine\n"}, // a file comes before what is built in
		{"QUBESRPC qubes.GetDate+other work", "", 1, ""},
		{"QUBESRPC t.None+ work", "", wire.StatusNoService, ""},
		{"QUBESRPC t.Else+ work", "", wire.StatusFault, ""}, // we can be nobody else
		{"cat /etc/passwd", "", wire.StatusFault, ""},       // never a command line
		{"user:QUBESRPC t.Env+ work", "", wire.StatusFault, ""},
		{"QUBESRPC ../t.Env work", "", wire.StatusFault, ""},
		{"", "", wire.StatusFault, ""},
	} {
		if status, out := exchange(t, root, c.command, c.in); status != c.status || out != c.out {
			t.Errorf("%q: status %d, %q", c.command, status, out)
		}
	}
	// No clock qube is known, as no qubesd runs: the date is ours.
	for argument, layout := range map[string]string{"": dateSeconds, "+nanoseconds": dateNanoseconds} {
		status, out := exchange(t, root, "QUBESRPC qubes.GetDate"+argument+" work", "")
		if at, err := time.Parse(layout, out); status != 0 || err != nil || len(out) != len(layout) || time.Since(at).Abs() > time.Hour {
			t.Errorf("%q: %d, %q, %v", argument, status, out, err)
		}
	}
}

// TestFailureOrder: where nothing runs, dom0 ends stderr first (spec/qrexec.md
// §8).
func TestFailureOrder(t *testing.T) {
	root, _ := start(t)
	data, _ := hand(t, root, "QUBESRPC t.None+ work", "work")
	if _, err := data.Write(wire.HelloMessage(4)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(data)
	want := bytes.Join([][]byte{wire.HelloMessage(4), wire.Message(wire.DataStderr, nil), wire.Message(wire.DataStdout, nil), wire.Message(wire.DataExitCode, []byte{127, 0, 0, 0})}, nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v\nwant %x", got, err, want)
	}
}

// TestCallersAreBounded: one qube has only so many services at once, and the
// others have theirs.
func TestCallersAreBounded(t *testing.T) {
	root, r := start(t)
	for range maxPerSource {
		hand(t, root, "QUBESRPC t.None+ work", "work") // never says hello
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := r.sources["work"]
		r.mu.Unlock()
		if n == maxPerSource {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d calls run", n)
		}
	}
	data, _ := hand(t, root, "QUBESRPC t.None+ work", "work")
	if b, err := io.ReadAll(data); len(b) > 0 || err != nil {
		t.Errorf("one more: %x, %v", b, err)
	}
	data, _ = hand(t, root, "QUBESRPC t.None+ mail", "mail")
	if _, _, err := wire.OpenData(data); err != nil {
		t.Errorf("another qube: %v", err)
	}
}

// TestStrangers may not hand calls over.
func TestStrangers(t *testing.T) {
	root, _ := start(t, func(r *Runner) { clear(r.allowed) }) // as if we were somebody else
	data, _ := hand(t, root, "QUBESRPC qubes.GetRandomizedTime+ work", "work")
	if b, err := io.ReadAll(data); len(b) > 0 || err != nil {
		t.Errorf("%x, %v", b, err)
	}
}

// adminServer plays qubesd for the clock.
func adminServer(t *testing.T, root paths.Root, replies map[string]string) {
	t.Helper()
	l, err := vchan.ListenPath(root.Qubesd())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			request, _ := io.ReadAll(conn)
			method, _, _ := strings.Cut(string(request), " ")
			_, _ = io.WriteString(conn, replies[method])
			conn.Close()
		}
	}()
}

func TestDateWithAClockQube(t *testing.T) {
	const now = "2026-11-20T22:00:00+00:00\n"
	at, err := time.Parse(dateSeconds, now)
	if err != nil {
		t.Fatal(err)
	}
	running := "0\x00mem=100 power_state=Running\n"
	for name, c := range map[string]struct {
		clockvm, state, source, answer, out string
	}{
		"none":               {"0\x00default=True type=vm ", "", "work", "", now},
		"halted":             {"0\x00default=True type=vm sys-net", "0\x00power_state=Halted", "work", "x", now},
		"itself":             {"0\x00default=True type=vm sys-net", running, "sys-net", "x", now},
		"another":            {"0\x00default=False type=vm sys-net", running, "work", "2026-11-20T23:11:12+00:00\n", "2026-11-20T23:11:12+00:00\n"},
		"no date":            {"0\x00default=False type=vm sys-net", running, "work", "2026-11-20T23:11:12+99:99\n", now},
		"more than a date":   {"0\x00default=False type=vm sys-net", running, "work", "2026-11-20T23:11:12+00:00\nx", now},
		"a qube that is mad": {"0\x00default=False type=vm sys-net", running, "work", strings.Repeat("9", 1<<20), now},
		"nobody answers":     {"0\x00default=False type=vm sys-net", running, "work", "", now},
	} {
		t.Run(name, func(t *testing.T) {
			root := paths.Root(t.TempDir())
			for _, dir := range []string{root.RunQubes(), root.Vchan()} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			adminServer(t, root, map[string]string{"admin.property.Get+clockvm": c.clockvm, "admin.vm.CurrentState+": c.state, "admin.vm.CurrentState": c.state})
			if c.answer != "" {
				clockQube(t, root, c.answer)
			}
			var out, errOut bytes.Buffer
			status := clock{root: root, source: c.source, now: func() time.Time { return at }}.date(t.Context(), "", service.Streams{Stdout: &out, Stderr: &errOut})
			if status != 0 || out.String() != c.out {
				t.Errorf("status %d, %.60q (%s)", status, &out, &errOut)
			}
		})
	}
}

// clockQube plays the daemon of sys-net and its agent: one call of
// qubes.GetDate.
func clockQube(t *testing.T, root paths.Root, answer string) {
	t.Helper()
	l, err := vchan.ListenPath(filepath.Join(root.RunQubes(), "qrexec.sys-net"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.AcceptUnix()
		if err != nil {
			return // it was not asked
		}
		defer conn.Close()
		_, _ = conn.Write(wire.HelloMessage(wire.ClientVersion))
		if _, err := wire.ReadHello(conn); err != nil {
			return
		}
		_, body, err := wire.ReadMessage(conn, wire.Client, wire.ClientVersion)
		if err != nil || !strings.Contains(string(body), "QUBESRPC qubes.GetDate dom0") {
			t.Errorf("asked %q, %v", body, err)
			return
		}
		_, _ = conn.Write(wire.Exec{Domain: 9, Port: 513}.Message(wire.ExecCmdline))
		ch, err := (&vchan.Unix{Dir: root.Vchan(), Self: 9}).Dial(t.Context(), 0, 513)
		if err != nil {
			t.Error(err)
			return
		}
		defer ch.Close()
		_, w, err := wire.OpenData(ch)
		if err == nil {
			err = errors.Join(w.Send(wire.DataStdout, []byte(answer)), w.ExitCode(0))
		}
		if err != nil {
			t.Error(err)
		}
	}()
}

func TestRandomizedTime(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	form := regexp.MustCompile(`^(\d{10})\.\d{9}\n$`)
	seen := make(map[string]bool)
	for range 200 {
		var out bytes.Buffer
		if status := randomizedTime(now, rand.Reader, service.Streams{Stdout: &out}); status != 0 {
			t.Fatal(status)
		}
		m := form.FindStringSubmatch(out.String())
		if m == nil {
			t.Fatalf("%q", &out)
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if off := n - now.Unix(); err != nil || off < -180 || off > 180 {
			t.Errorf("off by %d s, %v", off, err)
		}
		seen[m[1]] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different times of 200", len(seen))
	}
}
