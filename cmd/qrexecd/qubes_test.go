package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cubicle/agents/link"
	"cubicle/agents/qrexec/vmclient"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

const mailDomain = 0x8002

// callTo is a program of the qube that calls a service; the fake qubesd
// decides where.
func (q *testQube) callTo(ctx context.Context, t vchan.Transport, service string, in io.Reader) (status int, out []byte, err error) {
	files := make([]*os.File, 0, 4)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	pipe := func() (r, w *os.File) {
		r, w, perr := os.Pipe()
		if perr != nil {
			q.s.t.Error(perr)
		}
		files = append(files, r, w)
		return r, w
	}
	inR, inW := pipe()
	outR, outW := pipe()
	go func() {
		_, _ = io.Copy(inW, in)
		inW.Close()
	}()
	read := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(outR)
		read <- b
	}()
	status, err = vmclient.Run(ctx, vmclient.Call{Trigger: filepath.Join(q.dir, "trigger"), Transport: t, Target: "mail", Service: service,
		Stdin: inR, Stdout: outW, Stderr: os.Stderr})
	outW.Close()
	return status, <-read, err
}

// settled returns when the agent has taken our hello up, which a first call
// tells: it refuses its own programs before that.
func (q *testQube) settled() *testQube {
	q.s.t.Helper()
	if status, _, _, err := q.run("DEFAULT:nogui:true", ""); status != 0 || err != nil {
		q.s.t.Fatal(status, err)
	}
	return q
}

// toQube allows every call, to one domain.
func toQube(d vchan.Domain, user string) func(control.Call) control.Verdict {
	return func(c control.Call) control.Verdict {
		service := c.Service
		if !strings.Contains(service, "+") {
			service += "+"
		}
		return control.Verdict{Allowed: true, Target: d, Command: user + ":QUBESRPC " + service + " work"}
	}
}

// twoQubes are work, which may call mail.
func twoQubes(t testing.TB) (s *system, from, to *testQube, local *link.Transport) {
	t.Helper()
	s = newSystem(t)
	s.decide = toQube(mailDomain, me(t))
	from = s.qube(workDomain, "work").start().settled()
	to = s.qube(mailDomain, "mail")
	to.file("rpc/t.Cat", 0o755, "#!/bin/sh\nexec cat\n")
	to.file("rpc/t.Count", 0o755, "#!/bin/sh\nwc -c; echo \"$QREXEC_REMOTE_DOMAIN\"; exit 7\n")
	to.file("rpc/t.Sleep", 0o755, "#!/bin/sh\necho begun\nexec sleep 600\n")
	to.start()
	local = &link.Transport{Path: filepath.Join(from.dir, "local")}
	t.Cleanup(func() { local.Close() })
	return s, from, to, local
}

// TestQubeToQube: bytes come through unchanged, the end of the input is passed
// on, and the service's status comes back.
func TestQubeToQube(t *testing.T) {
	s, from, _, local := twoQubes(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	status, out, err := from.callTo(ctx, local, "t.Count", strings.NewReader("12345"))
	if err != nil || status != 7 || string(out) != "5\nwork\n" {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	if end := s.ended(); end.Error != "" || end.Connect <= 0 || end.Service <= 0 {
		t.Errorf("end %+v", end)
	}
	const size = 64 << 20
	want := sha256.New()
	source := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), want)
	status, out, err = from.callTo(ctx, local, "t.Cat", source)
	if got := sha256.Sum256(out); err != nil || status != 0 || len(out) != size || !bytes.Equal(got[:], want.Sum(nil)) {
		t.Errorf("status %d, %d bytes, %v", status, len(out), err)
	}
	if status, _, err := from.callTo(ctx, local, "t.None", strings.NewReader("")); status != wire.StatusNoService || err != nil {
		t.Errorf("no service: %d, %v", status, err)
	}
	s.mu.Lock()
	s.decide = nil
	s.mu.Unlock()
	if status, _, err := from.callTo(ctx, local, "t.Cat", strings.NewReader("")); status != wire.StatusRefused || !errors.Is(err, vmclient.ErrRefused) {
		t.Errorf("refused: %d, %v", status, err)
	}
}

// ended waits for the end of a call.
func (s *system) ended() control.End {
	s.t.Helper()
	return *s.wait(control.Ended, 0).End
}

// TestCancelledCall: a caller that goes away ends the service, and its port is
// free again.
func TestCancelledCall(t *testing.T) {
	s, from, _, local := twoQubes(t)
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		begun, w := io.Pipe() // never ends by itself
		defer w.Close()
		ended := make(chan error, 1)
		go func() {
			_, _, err := from.callTo(ctx, local, "t.Sleep", begun)
			ended <- err
		}()
		s.wait(control.Asked, 0)
		time.Sleep(50 * time.Millisecond)
		cancel()
		if err := <-ended; err == nil {
			t.Error("a cancelled call ended well")
		}
		s.ended()
	}
}

// TestManyCallsBetweenQubes: none is lost, and none gets another's bytes.
func TestManyCallsBetweenQubes(t *testing.T) {
	const parallel, each = 16, 100
	s, from, _, local := twoQubes(t)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for p := range parallel {
		all.Go(func() {
			for i := range each {
				in := fmt.Sprintf("call %d of %d", i, p)
				if status, out, err := from.callTo(ctx, local, "t.Cat", strings.NewReader(in)); err != nil || status != 0 || string(out) != in {
					t.Errorf("%s: %d, %q, %v", in, status, out, err)
					return
				}
			}
		})
	}
	all.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for n := descriptors(t, s.daemon.Process.Pid); n > 120; n = descriptors(t, s.daemon.Process.Pid) { // 32 pipes are kept
		if time.Now().After(deadline) {
			t.Fatalf("qrexecd holds %d descriptors", n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestKilledRouterBetweenQubes: the call under way is lost, on both sides, and
// the next one is made by the qrexecd that comes after.
func TestKilledRouterBetweenQubes(t *testing.T) {
	s, from, _, local := twoQubes(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	silence, w := io.Pipe()
	defer w.Close()
	lost := make(chan error, 1)
	go func() {
		_, _, err := from.callTo(ctx, local, "t.Sleep", silence)
		lost <- err
	}()
	s.wait(control.Asked, 0)
	time.Sleep(100 * time.Millisecond) // it is under way, or about to be
	stop(s.daemon)
	if err := <-lost; err == nil {
		t.Error("the lost call ended well")
	}
	s.startDaemon()
	ready := map[vchan.Domain]bool{}
	for len(ready) < 2 {
		ready[s.waitAny(control.Ready).Domain] = true
	}
	from.settled()
	for range 3 {
		if status, out, err := from.callTo(ctx, local, "t.Cat", strings.NewReader("again")); err != nil || status != 0 || string(out) != "again" {
			t.Errorf("after the restart: %d, %q, %v", status, out, err)
		}
		if end := s.ended(); end.Error != "" {
			t.Errorf("end %+v", end)
		}
	}
}

// waitAny is wait for whatever domain.
func (s *system) waitAny(kind control.Kind) control.Message {
	s.t.Helper()
	return s.waitFor(fmt.Sprintf("no %q", kind), func(m control.Message) bool { return m.Kind == kind })
}
