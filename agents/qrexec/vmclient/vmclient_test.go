package vmclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// agent plays the qube's agent for one call; with connect it answers that the
// service is at port 513 of domain 0, else it refuses.
func agent(t *testing.T, connect bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trigger")
	l, err := vchan.ListenPath(path)
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
		typ, body, err := wire.ReadMessage(c, wire.TriggerClient, 4)
		if err != nil {
			t.Error(err)
			return
		}
		tr, err := wire.ParseTrigger(typ, body)
		if want := (wire.Trigger{Target: "@default", Service: "t.Svc+x", Ident: IdentChannel}); err != nil || tr != want {
			t.Errorf("%+v, %v", tr, err)
		}
		if connect {
			if _, err := c.Write(binary.LittleEndian.AppendUint32(make([]byte, 4), 513)); err != nil {
				t.Error(err)
			}
			_, _ = c.Read(make([]byte, 1)) // the call goes on
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return path
}

func TestRefused(t *testing.T) {
	status, err := Run(t.Context(), Call{Trigger: agent(t, false), Target: "$default", Service: "t.Svc+x"})
	if status != 126 || !errors.Is(err, ErrRefused) {
		t.Errorf("%d, %v", status, err)
	}
}

func TestNoAgent(t *testing.T) {
	status, err := Run(t.Context(), Call{Trigger: filepath.Join(t.TempDir(), "none"), Service: "t.Svc+x"})
	if status != 1 || err == nil {
		t.Errorf("%d, %v", status, err)
	}
	if status, err := Run(t.Context(), Call{Service: strings.Repeat("x", 65000)}); status != 1 || err == nil {
		t.Errorf("long name: %d, %v", status, err)
	}
}

// service plays the other end: upper case of its input, then the status.
func service(t *testing.T, dir string, status int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ch, err := (&vchan.Unix{Dir: dir}).Dial(ctx, 7, 513)
	if err != nil {
		t.Error(err)
		return
	}
	defer ch.Close()
	r, w, err := wire.OpenData(ch)
	if err != nil {
		t.Error(err)
		return
	}
	var in []byte
	for {
		typ, body, err := r.Next()
		if err != nil || typ != wire.DataStdin {
			t.Error(typ, err)
			return
		}
		if len(body) == 0 {
			break
		}
		in = append(in, body...)
	}
	err = errors.Join(w.Send(wire.DataStdout, []byte(strings.ToUpper(string(in))+"\x1b")), w.Send(wire.DataStderr, []byte("\x1berr")),
		w.EOF(wire.DataStdout), w.EOF(wire.DataStderr), w.ExitCode(status))
	if err != nil {
		t.Error(err)
	}
}

// TestMain is also the program that uses one socket for both directions.
func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != "one" {
		os.Exit(m.Run())
	}
	pid, err := strconv.Atoi(os.Getenv("QREXEC_AGENT_PID"))
	if err == nil {
		err = unix.Kill(pid, unix.SIGUSR1)
	}
	if err == nil {
		_, err = os.Stdin.WriteString("both ways")
	}
	if err == nil {
		err = unix.Shutdown(0, unix.SHUT_WR)
	}
	if err == nil {
		_, err = io.Copy(os.NewFile(4, "saved output"), os.Stdin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
	os.Exit(0)
}

func TestCall(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		program []string
		service int
		status  int
		out     string
	}{
		{"own streams", nil, 3, 3, "FIRST INPUT_"},
		{"program", []string{"sh", "-c", "echo -n from the program; exec >&-; cat >&$SAVED_FD_1; exit 5"}, 0, 5, "FIRST FROM THE PROGRAM_"},
		{"both fail", []string{"sh", "-c", "exit 5"}, 3, 3, ""},
		{"one socket", []string{self, "one", "socket"}, 0, 0, "FIRST BOTH WAYS_"},
		{"killed program", []string{"sh", "-c", "kill -9 $$"}, 0, 137, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			done := make(chan struct{})
			go func() { defer close(done); service(t, dir, c.service) }()
			var files [3]*os.File
			for i, name := range []string{"in", "out", "err"} {
				f, err := os.Create(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				files[i] = f
			}
			if _, err := files[0].WriteString("input"); err != nil {
				t.Fatal(err)
			}
			if _, err := files[0].Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			status, err := Run(t.Context(), Call{Trigger: agent(t, true), Transport: &vchan.Unix{Dir: dir, Self: 7}, Target: "$default", Service: "t.Svc+x",
				Prefix: []byte("first "), FilterStdout: true, FilterStderr: true, Program: c.program, Stdin: files[0], Stdout: files[1], Stderr: files[2]})
			<-done
			out, rerr := os.ReadFile(filepath.Join(dir, "out"))
			errOut, rerr2 := os.ReadFile(filepath.Join(dir, "err"))
			if err := errors.Join(err, rerr, rerr2); status != c.status || err != nil || string(out) != c.out || string(errOut) != "_err" {
				t.Errorf("%d, %v, out %q, err %q; want %d, %q", status, err, out, errOut, c.status, c.out)
			}
		})
	}
}
