package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cubicle/agents/link"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// startServices runs dom0's services.
func (s *system) startServices() *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(program(s.t, "qrexec"), "serve", "--root", string(s.root), "--debug")
	cmd.Stderr = s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { stop(cmd) })
	return cmd
}

// rpc makes a service of dom0.
func (s *system) rpc(name, text string) {
	s.t.Helper()
	dir := s.root.RPC()[2]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// toDom0 allows every call of dom0's services.
func toDom0(c control.Call) control.Verdict {
	service := c.Service
	if !strings.Contains(service, "+") {
		service += "+"
	}
	return control.Verdict{Allowed: true, Command: "QUBESRPC " + service + " work keyword adminvm"}
}

// TestQubeToDom0 calls files, sockets and built-in services of dom0.
func TestQubeToDom0(t *testing.T) {
	s := newSystem(t)
	s.decide = toDom0
	s.rpc("t.Env", "#!/bin/sh\nread x; env | grep ^QREXEC | sort; echo \"[$1] $x\"; echo oops >&2; exit 5\n")
	s.rpc("t.Plain", "")
	if err := os.Chmod(filepath.Join(s.root.RPC()[2], "t.Plain"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.startServices()
	for _, path := range []string{s.root.Qubesd(), s.root.QubesdMisc()} {
		qubesd, err := vchan.ListenPath(path)
		if err != nil {
			t.Fatal(err)
		}
		defer qubesd.Close()
		go echoDescriptor(qubesd)
	}
	from := s.qube(workDomain, "work").start().settled()
	local := &link.Transport{Path: filepath.Join(from.dir, "local")}
	defer local.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, c := range []struct {
		service, in string
		status      int
		out         string // an expression
	}{
		{"t.Env+a", "in\n", 5, "QREXEC_REMOTE_DOMAIN=work\nQREXEC_REQUESTED_TARGET_KEYWORD=adminvm\nQREXEC_REQUESTED_TARGET_TYPE=keyword\n" +
			"QREXEC_SERVICE_ARGUMENT=a\nQREXEC_SERVICE_FULL_NAME=t\\.Env\\+a\n\\[a\\] in\n"},
		{"admin.vm.List", "payload", 0, "admin\\.vm\\.List\\+ work keyword adminvm\x00payload"},
		{"qubes.GetRandomizedTime", "", 0, `\d{10}\.\d{9}` + "\n"},
		{"qubes.NotifyUpdates", "3", 0, "qubes\\.NotifyUpdates\\+ work keyword adminvm\x003"},
		{"t.None", "", wire.StatusNoService, ""},
		{"t.Plain", "", wire.StatusFault, ""},
	} {
		status, out, err := from.callTo(ctx, local, c.service, strings.NewReader(c.in))
		if err != nil || status != c.status || !regexp.MustCompile("^"+c.out+"$").Match(out) {
			t.Errorf("%s: status %d, %q, %v", c.service, status, out, err)
		}
		if end := s.ended(); end.Error != "" || end.Connect <= 0 {
			t.Errorf("%s: end %+v", c.service, end)
		}
	}
}

// echoDescriptor is a socket service that returns all that it reads.
func echoDescriptor(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			b, _ := io.ReadAll(conn)
			_, _ = conn.Write(b)
		}()
	}
}

// TestServicesComeBack: without the runner calls are refused, and afterwards
// they are not.
func TestServicesComeBack(t *testing.T) {
	s := newSystem(t)
	s.decide = toDom0
	s.rpc("t.True", "#!/bin/sh\n")
	s.rpc("t.Sleep", "#!/bin/sh\necho begun\nexec sleep 600\n")
	services := s.startServices()
	from := s.qube(workDomain, "work").start().settled()
	local := &link.Transport{Path: filepath.Join(from.dir, "local")}
	defer local.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if status, _, err := from.callTo(ctx, local, "t.True", strings.NewReader("")); status != 0 || err != nil {
		t.Fatal(status, err)
	}
	s.ended()
	lost := make(chan error, 1)
	go func() {
		_, _, err := from.callTo(ctx, local, "t.Sleep", strings.NewReader(""))
		lost <- err
	}()
	s.wait(control.Asked, 0)
	time.Sleep(100 * time.Millisecond)
	stop(services)
	if err := <-lost; err == nil {
		t.Error("a call whose service was killed ended well")
	}
	if status, _, err := from.callTo(ctx, local, "t.True", strings.NewReader("")); status != wire.StatusRefused {
		t.Errorf("without the runner: %d, %v", status, err)
	}
	s.startServices()
	if status, _, err := from.callTo(ctx, local, "t.True", strings.NewReader("")); status != 0 || err != nil {
		t.Errorf("after its restart: %d, %v", status, err)
	}
}

// TestClientConnects: a program of dom0 decides a waiting call itself, as
// upstream's qrexec-client does with -c.
func TestClientConnects(t *testing.T) {
	s, from, _, local := twoQubes(t)
	s.rpc("t.Dom0", "#!/bin/sh\ncat; exit 6\n")
	idents := make(chan control.Call, 1)
	hold := make(chan struct{})
	defer close(hold)
	s.mu.Lock()
	s.decide = func(c control.Call) control.Verdict {
		idents <- c
		<-hold // for ever: the call is decided elsewhere
		return control.Verdict{}
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, c := range []struct {
		target, command string
		status          int
	}{
		{"mail", "DEFAULT:QUBESRPC t.Count work", 7},
		{"dom0", "DEFAULT:QUBESRPC t.Dom0 work keyword adminvm", 6},
	} {
		type result struct {
			status int
			out    string
			err    error
		}
		ended := make(chan result, 1)
		go func() {
			status, out, err := from.callTo(ctx, local, "t.Any", strings.NewReader("input"))
			ended <- result{status, string(out), err}
		}()
		call := <-idents
		// Our agent numbers the calls as they come.
		ident := "SOCKET" + string(rune('0'+call.Number))
		cmd := exec.Command(program(t, "qrexec-client"), "-d", c.target, "-W", "-c", ident+",work,32769", c.command)
		cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+string(s.root))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.target, err, out)
		}
		if r := <-ended; r.err != nil || r.status != c.status || r.out == "" {
			t.Errorf("%s: %+v", c.target, r)
		}
		hold <- struct{}{}
	}
}

// TestClientKills: with -k the qube is killed after the call.
func TestClientKills(t *testing.T) {
	s := newSystem(t)
	s.qube(workDomain, "work").start()
	qubesd, err := vchan.ListenPath(s.root.Qubesd())
	if err != nil {
		t.Fatal(err)
	}
	defer qubesd.Close()
	asked := make(chan string, 1)
	go func() {
		conn, err := qubesd.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		b, _ := io.ReadAll(conn)
		asked <- string(b)
		_, _ = conn.Write([]byte("0\x00"))
	}()
	cmd := exec.Command(program(t, "qrexec-client"), "-d", "work", "-k", "DEFAULT:exit 3")
	cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+string(s.root))
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v: %s", cmd.ProcessState, out)
	}
	select {
	case got := <-asked:
		if !strings.HasPrefix(got, "admin.vm.Kill") || !strings.Contains(got, " work\x00") {
			t.Errorf("qubesd was asked %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("qubesd was not asked")
	}
}
