package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// justExec begins a command and returns its status.
func (q *testQube) justExec(command string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return client.Run(ctx, client.Call{Root: q.s.root, Target: q.Name, Command: command, JustExec: true})
}

// TestStartApp starts desktop entries of the qube, detached and not.
func TestStartApp(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work")
	q.file("app", 0o755, "#!/bin/sh\necho \"$DISPLAY $# $1 $PWD\" > \"$0.out.new\"; mv \"$0.out.new\" \"$0.out\"; exit 3\n")
	q.file("work-dir/x", 0o644, "")
	app := filepath.Join(q.dir, "app")
	q.file("share/applications/sub/test.desktop", 0o644,
		"[Desktop Entry]\nName=Test\nExec="+app+" \"an argument\" %U\nPath="+filepath.Join(q.dir, "work-dir")+"\n")
	q.file("share/applications/lost.desktop", 0o644, "[Desktop Entry]\nName=Lost\nExec=/nowhere\n")
	q.file("share/applications/try.desktop", 0o644, "[Desktop Entry]\nName=Try\nTryExec=/nowhere\nExec=true\n")
	q.start()

	// The session is not up: the call waits for it, however it is made.
	began := make(chan int, 1)
	go func() {
		status, err := q.justExec("DEFAULT:QUBESRPC qubes.StartApp+sub-test dom0")
		if err != nil {
			t.Error(err)
		}
		began <- status
	}()
	select {
	case status := <-began:
		t.Errorf("started without a session: status %d", status)
	case <-time.After(100 * time.Millisecond):
	}
	q.file("session.env", 0o644, "USER="+me(t)+"\nDISPLAY=:7\nPATH=/usr/bin:/bin\n")
	q.file("session-ready", 0o644, "")
	if status := <-began; status != 0 {
		t.Errorf("status %d", status)
	}
	want := ":7 1 an argument " + filepath.Join(q.dir, "work-dir") + "\n"
	var got []byte
	for range 400 {
		if got, _ = os.ReadFile(app + ".out"); got != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if string(got) != want {
		t.Errorf("the program wrote %q, want %q", got, want)
	}
	for id, want := range map[string]int{"sub-test": 0, "lost": 1, "try": 1, "nothing-of-that-name": 1, "": 1, "true": 0} {
		if status, err := q.justExec("DEFAULT:QUBESRPC qubes.StartApp+" + id + " dom0"); status != want || err != nil {
			t.Errorf("%q, detached: status %d, %v; want %d", id, status, err, want)
		}
	}
	// With its data the service ends when the program ends.
	if status, _, _, err := q.run("DEFAULT:QUBESRPC qubes.StartApp+sub-test dom0", ""); status != 3 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	status, out, _, err := q.run("DEFAULT:QUBESRPC qubes.GetAppmenus dom0", "")
	if status != 0 || err != nil || !strings.Contains(out, "sub-test.desktop:Exec=qubes-desktop-run sub-test.desktop\n") || strings.Contains(out, "an argument") {
		t.Errorf("menu: %d, %v\n%s", status, err, out)
	}
}

// TestCallerLeavesWhileTheSessionStarts: its call must not stay for ever.
func TestCallerLeavesWhileTheSessionStarts(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work").start()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := client.Run(ctx, client.Call{Root: q.s.root, Target: "work", Command: "DEFAULT:QUBESRPC qubes.WaitForSession dom0"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	for range 400 {
		if strings.Contains(q.s.log.String(), "the caller is gone") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the agent still waits for the session")
}

// TestSocketServices: the descriptor first, then the caller's data; each end
// of file is passed on.
func TestSocketServices(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work")
	if err := os.MkdirAll(filepath.Join(q.dir, "rpc"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := vchan.ListenPath(filepath.Join(q.dir, "rpc/t.Sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("/dev/tcp/127.0.0.1", filepath.Join(q.dir, "rpc/t.TCP")),
		os.Symlink("t.Sock", filepath.Join(q.dir, "rpc/t.Bare"))); err != nil {
		t.Fatal(err)
	}
	q.file("rpc-config/t.Bare", 0o644, "skip-service-descriptor = true\n")
	serve := func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c) // ends only if the half-close arrives
				_, _ = c.Write(bytes.ToUpper(all))
			}()
		}
	}
	go serve(l)
	go serve(tcp)
	q.start()
	for service, want := range map[string]string{
		"t.Sock+arg":    "T.SOCK+ARG DOM0\x00HELLO",
		"t.TCP+" + port: "T.TCP+" + port + " DOM0\x00HELLO",
		"t.Bare":        "HELLO",
	} {
		if status, out, _, err := q.run("DEFAULT:QUBESRPC "+service+" dom0", "hello"); status != 0 || out != want || err != nil {
			t.Errorf("%s: %d, %q, %v", service, status, out, err)
		}
	}
}

// TestCallOutIsRefused: a program of the qube asks for a service elsewhere.
func TestCallOutIsRefused(t *testing.T) {
	q := newSystem(t).qube(workDomain, "work").start()
	c, err := vchan.DialPath(t.Context(), filepath.Join(q.dir, "trigger"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(wire.Trigger{Target: "mail", Service: "qubes.Filecopy", Ident: "SOCKET"}.Message()); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("answer %x, %v; want the end of file that means refused", b, err)
	}
}

// TestAgentStartedByHand comes over upstream's sockets.
func TestAgentStartedByHand(t *testing.T) {
	s := newSystem(t)
	q := s.add(control.Qube{Domain: 7, Name: "manual", DefaultUser: me(t)})
	q.start("VCHAN_DOMAIN=7", "VCHAN_SOCKET_DIR="+s.root.Vchan())
	if status, out, _, err := q.run("DEFAULT:cat; exit 2", "by hand"); status != 2 || out != "by hand" || err != nil {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	stop(q.agent)
	s.wait(control.Lost, 7)
	q.start("VCHAN_DOMAIN=7", "VCHAN_SOCKET_DIR="+s.root.Vchan())
	if status, _, _, err := q.run("DEFAULT:true", ""); status != 0 || err != nil {
		t.Errorf("after the restart: %d, %v", status, err)
	}
}

// TestUnprivileged runs qrexecd as a user that may do nothing but its job,
// and a client whom it does not know.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	const uid, stranger = 65531, 65532
	dir, err := os.MkdirTemp("", "qrexecd-uid")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	root := paths.Root(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	linkDir := filepath.Join(root.Links(), strconv.Itoa(workDomain))
	for _, d := range []string{root.RunQubes(), root.Links(), linkDir, root.Vchan()} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chown(d, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(program(t, "qrexecd")), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, root: root, log: new(safeBuffer), news: make(chan struct{}), up: make(map[vchan.Domain]control.Qube)}
	if s.l, err = vchan.ListenPath(root.Router()); err != nil {
		t.Fatal(err)
	}
	defer s.l.Close()
	if err := os.Chmod(root.Router(), 0o666); err != nil {
		t.Fatal(err)
	}
	go s.accept()
	cmd := exec.Command(program(t, "qrexecd"), "--root", dir)
	cmd.Stderr = s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer stop(cmd)
	q := s.qube(workDomain, "work").start()
	if status, out, _, err := q.run("DEFAULT:echo ok", ""); status != 0 || out != "ok\n" || err != nil {
		t.Errorf("%d, %q, %v\n%s", status, out, err, s.log)
	}
	client := exec.Command(program(t, "qrexec-client"), "-d", "work", `DEFAULT:echo sto""len`)
	client.Env = append(os.Environ(), paths.Env+"="+dir)
	client.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
	out, err := client.CombinedOutput()
	if err == nil || strings.Contains(string(out), "stolen") {
		t.Errorf("a stranger's call: %q, %v", out, err)
	}
}
