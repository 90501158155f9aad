package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/control"
)

const workDomain = 0x8001

func TestCalls(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work")
	q.file("session.env", 0o644, "USER="+me(t)+"\nDISPLAY=:7\nQREXEC_EVIL=1\n")
	q.file("rpc/t.Env", 0o755, "#!/bin/sh\nenv | grep -E '^(QREXEC|DISPLAY)' | sort; echo \"[$1]\"\n")
	q.file("rpc/t.Env+special", 0o755, "#!/bin/sh\necho special\n")
	q.file("rpc/t.NotExecutable", 0o644, "#!/bin/sh\n")
	q.file("rpc-config/t.Bad", 0o644, "no key\n")
	q.file("rpc/t.Bad", 0o755, "#!/bin/sh\n")
	q.file("rpc/t.Background", 0o755, "#!/bin/sh\n(sleep 0.3; echo late) &\nexit 3\n")
	q.file("session-ready", 0o644, "")
	q.start()
	for _, c := range []struct {
		name, command, stdin string
		status               int
		out, errOut          string
	}{
		{"command", "DEFAULT:echo hello; echo oops >&2; exit 3", "", 3, "hello\n", "oops\n"},
		{"stdin", "DEFAULT:nogui:cat", "through and back", 0, "through and back", ""},
		{"signal", "DEFAULT:kill -9 $$", "", 137, "", ""},
		{"half-close", "DEFAULT:cat >/dev/null; echo after the end", "input", 0, "after the end\n", ""},
		{"stdin is not read", "DEFAULT:exec 0<&-; echo done", strings.Repeat("x", 1<<20), 0, "done\n", ""},
		{"unknown user", "nobody-of-that-name:id", "", 125, "", ""},
		{"shell", "DEFAULT:QUBESRPC qubes.VMShell dom0", "echo $((6*7)); exit 5\n", 5, "42\n", ""},
		{"shell after the session", "DEFAULT:QUBESRPC qubes.VMShell+WaitForSession dom0", "echo $DISPLAY\n", 0, ":7\n", ""},
		{"shell with another argument", "DEFAULT:QUBESRPC qubes.VMShell+x dom0", "", 125, "", ""},
		{"exec", "DEFAULT:QUBESRPC qubes.VMExec+printf+-25s-7C+a-20b+c dom0", "", 0, "a b|c|", ""},
		{"exec, bad", "DEFAULT:QUBESRPC qubes.VMExec+-zz dom0", "", 1, "", ""},
		{"wait for the session", "DEFAULT:QUBESRPC qubes.WaitForSession dom0", "", 0, "", ""},
		{"no service", "DEFAULT:QUBESRPC t.None+x dom0", "", 127, "", ""},
		{"not executable", "DEFAULT:QUBESRPC t.NotExecutable dom0", "", 125, "", ""},
		{"bad configuration", "DEFAULT:QUBESRPC t.Bad dom0", "", 125, "", ""},
		{"argument's own file", "DEFAULT:QUBESRPC t.Env+special dom0", "", 0, "special\n", ""},
		{"background child keeps the call open", "DEFAULT:QUBESRPC t.Background dom0", "", 3, "late\n", ""},
		{"environment", "DEFAULT:QUBESRPC t.Env+a dom0 keyword adminvm", "", 0,
			"DISPLAY=:7\nQREXEC_REMOTE_DOMAIN=dom0\nQREXEC_REQUESTED_TARGET_KEYWORD=adminvm\nQREXEC_REQUESTED_TARGET_TYPE=keyword\n" +
				"QREXEC_SERVICE_ARGUMENT=a\nQREXEC_SERVICE_FULL_NAME=t.Env+a\n[a]\n", ""},
		{"environment, no argument", "DEFAULT:QUBESRPC t.Env dom0", "", 0,
			"DISPLAY=:7\nQREXEC_REMOTE_DOMAIN=dom0\nQREXEC_REQUESTED_TARGET_TYPE=\n" +
				"QREXEC_SERVICE_ARGUMENT=\nQREXEC_SERVICE_FULL_NAME=t.Env+\n[]\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, errOut, err := q.run(c.command, c.stdin)
			if err != nil || status != c.status || out != c.out || errOut != c.errOut {
				t.Errorf("status %d, out %q, err %q, %v\nwant %d, %q, %q", status, out, errOut, err, c.status, c.out, c.errOut)
			}
		})
	}
}

// TestClientProgram runs upstream's command line.
func TestClientProgram(t *testing.T) {
	s := newSystem(t)
	s.qube(workDomain, "work").start()
	s.rpc("t.Local", "#!/bin/sh\nprintf \"$1 \"; cat; exit 8\n")
	for _, c := range []struct {
		args   []string
		stdin  string
		status int
		out    string
	}{
		{[]string{"-d", "work", "DEFAULT:cat; exit 9"}, "abc", 9, "abc"},
		{[]string{"-d", "32769", "-E", "DEFAULT:exit 9"}, "", 0, ""},
		{[]string{"-d", "uuid:7f0c7b9c-0000-4000-8000-000000000001", "-p", "first ", "DEFAULT:cat"}, "then", 0, "first then"},
		{[]string{"-d", "work", "-t", `DEFAULT:printf '\033[31m\n'`}, "", 0, "_[31m\n"},
		{[]string{"-d", "work", "-e", "DEFAULT:exit 9"}, "", 0, ""},
		{[]string{"-d", "nobody", "DEFAULT:true"}, "", 1, ""},
		{[]string{"-d", "work", "-l", "echo to the qube; exec >&-; cat >&2; exit 3", "DEFAULT:cat"}, "", 3, ""},
		{[]string{"-d", "work", "-l", "exec cat", "DEFAULT:exit 4"}, "", 4, ""},
		{[]string{"-d", "dom0", "DEFAULT:QUBESRPC t.None+ dom0"}, "", 127, ""},
		{[]string{"-d", "dom0", "DEFAULT:QUBESRPC t.Local+arg dom0"}, "in", 8, "arg in"},
		{[]string{"-d", "dom0", "DEFAULT:id"}, "", 1, ""},
		{[]string{"-d", "dom0", "-e", "DEFAULT:QUBESRPC t.Local+ dom0"}, "", 1, ""},
	} {
		cmd := exec.Command(program(t, "qrexec-client"), c.args...)
		cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+string(s.root))
		cmd.Stdin = strings.NewReader(c.stdin)
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != c.status || string(out) != c.out {
			t.Errorf("%q: status %d, out %q", c.args, got, out)
		}
	}
}

// TestStdinSocket: the standard input is a socket, which is used for both
// directions.
func TestStdinSocket(t *testing.T) {
	s := newSystem(t)
	s.qube(workDomain, "work").start()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	cmd := exec.Command(program(t, "qrexec-client"), "-d", "work", "--use-stdin-socket", "DEFAULT:cat; exit 2")
	cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+string(s.root))
	cmd.Stdin = theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write([]byte("there and back")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(fds[0], unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(ours); err != nil || string(b) != "there and back" {
		t.Errorf("%q, %v", b, err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("%v", cmd.ProcessState)
	}
}

func TestBulkBothWays(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work").start()
	in := make([]byte, 10<<20)
	if _, err := rand.Read(in); err != nil {
		t.Fatal(err)
	}
	out := sha256.New()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	status, err := client.Run(ctx, client.Call{Root: q.s.root, Target: "work", Command: "DEFAULT:cat", Stdin: bytes.NewReader(in), Stdout: out})
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v", status, err)
	}
	if want := sha256.Sum256(in); !bytes.Equal(out.Sum(nil), want[:]) {
		t.Error("the bytes came back changed")
	}
}

// TestStalledReader: a caller that takes no output stalls only its own call.
func TestStalledReader(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work").start()
	r, w := io.Pipe() // nobody reads
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := client.Run(ctx, client.Call{Root: q.s.root, Target: "work", Command: "DEFAULT:cat /dev/zero", Stdout: w})
		ended <- err
	}()
	buf := make([]byte, 1)
	if _, err := r.Read(buf); err != nil { // the call is under way
		t.Fatal(err)
	}
	for i := range 3 {
		if status, out, _, err := q.run("DEFAULT:echo free", ""); status != 0 || out != "free\n" || err != nil {
			t.Errorf("call %d: %d, %q, %v", i, status, out, err)
		}
	}
	cancel()
	r.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the stalled call ended with %v", err)
	}
}

// TestManyCalls makes more calls than there are ports, many at a time.
func TestManyCalls(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work").start()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 24)
	for i := range 400 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			in := fmt.Sprint("call ", i)
			if status, out, _, err := q.run("DEFAULT:QUBESRPC qubes.VMExec+cat dom0", in); status != 0 || out != in || err != nil {
				t.Errorf("%s: %d, %q, %v", in, status, out, err)
			}
		})
	}
	wg.Wait()
}

// TestNoFreePort: when all ports are busy a call is refused, and one that
// ends makes room.
func TestNoFreePort(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work").start()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	silence, endSilence := context.WithCancel(context.Background())
	defer endSilence() // only after the calls: an input that ends ends them too
	var wg sync.WaitGroup
	for range 256 {
		started, w := io.Pipe()
		wg.Go(func() {
			_, err := client.Run(ctx, client.Call{Root: q.s.root, Target: "work", Command: "DEFAULT:echo; read x", Stdin: endless{silence}, Stdout: w})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			w.Close()
		})
		if _, err := started.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, started)
	}
	if _, _, _, err := q.run("DEFAULT:true", ""); !errors.Is(err, client.ErrRefused) {
		t.Errorf("call 257: %v", err)
	}
	cancel()
	wg.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if status, _, _, err := q.run("DEFAULT:true", ""); err == nil && status == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("no port became free: %v", err)
		}
	}
}

// endless is an input that says nothing until ctx ends.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) {
	<-e.ctx.Done()
	return 0, io.EOF
}

func TestKilledAgent(t *testing.T) {
	s := newSystem(t)
	q := s.qube(workDomain, "work").start()
	started, w := io.Pipe()
	ended := make(chan error, 1)
	var status int
	go func() {
		var err error
		status, err = client.Run(context.Background(), client.Call{Root: s.root, Target: "work", Command: "DEFAULT:echo; exec sleep 60", Stdout: w})
		ended <- err
	}()
	if _, err := started.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	stop(q.agent)
	s.wait(control.Lost, workDomain)
	select {
	case err := <-ended:
		if !errors.Is(err, client.ErrNoExitCode) || status != 255 {
			t.Errorf("the call ended with %d, %v", status, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the call goes on without its agent")
	}
	if _, _, _, err := q.run("DEFAULT:true", ""); !errors.Is(err, client.ErrNotReady) {
		t.Errorf("a call without an agent: %v", err)
	}
	q.start()
	if status, out, _, err := q.run("DEFAULT:echo again", ""); status != 0 || out != "again\n" || err != nil {
		t.Errorf("after the restart: %d, %q, %v", status, out, err)
	}
}

func TestKilledDaemon(t *testing.T) {
	s := newSystem(t)
	q := s.qube(workDomain, "work").start()
	stop(s.daemon)
	s.startDaemon()
	s.wait(control.Ready, workDomain)
	if status, out, _, err := q.run("DEFAULT:echo again", ""); status != 0 || out != "again\n" || err != nil {
		t.Errorf("after the restart: %d, %q, %v", status, out, err)
	}
}

// TestQubesdRestart: qrexecd goes on without qubesd, tells a new one all, and
// ends what the new one does not know.
func TestQubesdRestart(t *testing.T) {
	s := newSystem(t)
	q := s.qube(workDomain, "work").start()
	s.mu.Lock()
	s.raw.Close()
	s.conn, s.got = nil, nil
	s.mu.Unlock()
	s.wait(control.Listening, workDomain)
	s.wait(control.Ready, workDomain)
	if status, _, _, err := q.run("DEFAULT:true", ""); status != 0 || err != nil {
		t.Errorf("after qubesd's restart: %d, %v", status, err)
	}
	s.mu.Lock()
	delete(s.up, workDomain)
	s.raw.Close()
	s.conn = nil
	s.mu.Unlock()
	waitGone(t, filepath.Join(s.root.RunQubes(), "qrexec.work"))
	waitGone(t, filepath.Join(q.LinkDir, "link.sock"))
}

func TestDown(t *testing.T) {
	s := newSystem(t)
	q := s.qube(workDomain, "work").start()
	s.tell(control.Message{Kind: control.Down, Domain: workDomain})
	for _, name := range []string{"qrexec.work", "qrexec.32769", "qrexec.uuid:" + q.UUID} {
		waitGone(t, filepath.Join(s.root.RunQubes(), name))
	}
	waitGone(t, filepath.Join(q.LinkDir, "link.sock"))
}

func waitGone(t *testing.T, path string) {
	t.Helper()
	for range 1000 {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%s is still there", path)
}
