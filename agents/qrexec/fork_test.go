package qrexec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// whoAmI is our own account, in USER as a session has it.
func whoAmI(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	t.Setenv("USER", u.Username)
	return u.Username
}

// TestForkServers: an agent hands calls over in upstream's words, and our fork
// server runs what an agent hands over, in its own environment.
func TestForkServers(t *testing.T) {
	name := whoAmI(t)
	dir := t.TempDir()
	t.Setenv("OF_THE_SESSION", "yes")
	t.Setenv("QREXEC_REMOTE_DOMAIN", "liar")
	script := "#!/bin/sh\necho $OF_THE_SESSION $QREXEC_REMOTE_DOMAIN; cat; exit 3\n"
	if err := os.WriteFile(filepath.Join(dir, "t.Svc"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	opts := Options{ServicePath: []string{dir}, ConfigPath: []string{filepath.Join(dir, "config")}, ForkServer: filepath.Join(dir, "%s.sock")}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- ServeForks(serving, &vchan.Unix{Dir: dir, Self: 7}, filepath.Join(dir, name+".sock"), opts)
	}()
	for _, c := range []struct {
		command string
		just    bool
		taken   bool
		out     string
		status  int
	}{
		{name + ":QUBESRPC t.Svc+x work", false, true, "yes work\ninput", 3},
		{name + ":echo $OF_THE_SESSION", false, true, "yes\n", 0},
		{name + ":true", true, true, "", 0},
		{name + ":nogui:echo", false, false, "", 0},
		{name + ":QUBESRPC qubes.VMShell+ work", false, false, "", 0}, // the agent's own
		{"nobody-of-that-name:echo", false, false, "", 0},
	} {
		a := &agent{Options: opts.withDefaults(), transport: &vchan.Unix{Dir: dir, Self: 7}}
		result := make(chan string, 1)
		if c.taken {
			go func() { result <- dom0Calls(ctx, dir, "input") }()
		}
		var taken bool
		var err error
		for range 2000 { // until the fork server listens
			if taken, err = a.handOver(ctx, slog.New(slog.DiscardHandler), wire.Exec{Domain: 0, Port: 513, Command: c.command}, c.just); err != nil || taken || !c.taken {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if taken != c.taken || err != nil {
			t.Fatalf("%s: %v, %v", c.command, taken, err)
		}
		if !c.taken {
			continue
		}
		if got, want := <-result, fmt.Sprintf("%q %d", c.out, c.status); got != want {
			t.Errorf("%s: %s, want %s", c.command, got, want)
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, name+".sock")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// dom0Calls is dom0's end of one call on port 513 of domain 7; it returns what
// came, in quotes, and the status.
func dom0Calls(ctx context.Context, dir, in string) string {
	ch, err := (&vchan.Unix{Dir: dir}).Listen(ctx, 7, 513)
	if err != nil {
		return err.Error()
	}
	defer ch.Close()
	r, w, err := wire.OpenData(ch)
	if err != nil {
		return err.Error()
	}
	go func() {
		if w.Send(wire.DataStdin, []byte(in)) == nil {
			_ = w.EOF(wire.DataStdin)
		}
	}()
	var out strings.Builder
	for {
		t, body, err := r.Next()
		if err != nil {
			return err.Error()
		}
		switch t {
		case wire.DataStdout:
			out.Write(body)
		case wire.DataExitCode:
			status, _ := wire.ExitStatus(body)
			return fmt.Sprintf("%q %d", out.String(), status)
		}
	}
}

// TestForkWords are the bytes that a foreign fork server gets.
func TestForkWords(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "user.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := make([]byte, 16+8)
		_, _ = io.ReadFull(conn, b)
		got <- fmt.Sprintf("%x", b)
	}()
	a := &agent{Options: Options{ForkServer: filepath.Join(dir, "%s.sock")}.withDefaults()}
	taken, err := a.handOver(t.Context(), slog.New(slog.DiscardHandler), wire.Exec{Domain: 8, Port: 514, Command: "user:echo hi"}, false)
	if !taken || err != nil {
		t.Fatal(taken, err)
	}
	if s, want := <-got, "00020000"+"08000000"+"02020000"+"08000000"+"6563686f20686900"; s != want {
		t.Errorf("%s, want %s", s, want)
	}
}

func FuzzFork(f *testing.F) {
	add := func(t wire.Type, n uint32, command string) {
		var b []byte
		for _, w := range []uint32{uint32(t), 0, 513, n} {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		f.Add(append(b, command...))
	}
	add(wire.ExecCmdline, 5, "echo\x00")
	add(wire.JustExec, 1<<31, "")
	add(wire.ServiceRefused, 0, "")
	add(wire.ExecCmdline, 5, "") // less came than was told
	add(wire.ExecCmdline, 5, "e\x00ho\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < forkHeader {
			return
		}
		_, _, n, err := parseFork([forkHeader]byte(b[:forkHeader]))
		if err != nil {
			return
		}
		if n == 0 || n > wire.MaxExecBody {
			t.Fatal(n)
		}
		if s, err := forkCommand(b[forkHeader:]); err == nil && strings.Contains(s, "\x00") {
			t.Fatalf("%q", s)
		}
	})
}
