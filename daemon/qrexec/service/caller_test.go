package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/qrexec/wire"
)

// exchange plays the caller of plan p: it sends input and its end, and returns
// what the service's end says.
func exchange(t *testing.T, p *Plan, input string) (out, errOut string, status int) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		c, err := Open(conn)
		if err == nil {
			err = c.Run(context.Background(), slog.New(slog.DiscardHandler), p)
		}
		done <- err
	}()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r, w, err := wire.OpenData(conn)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if w.Send(wire.DataStdin, []byte(input)) == nil {
			_ = w.EOF(wire.DataStdin)
		}
	}()
	for {
		typ, body, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch typ {
		case wire.DataStdout:
			out += string(body)
		case wire.DataStderr:
			errOut += string(body)
		case wire.DataExitCode:
			if status, err = wire.ExitStatus(body); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			return out, errOut, status
		}
	}
}

// echo accepts one connection and sends back what it reads, in brackets.
func echo(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "[%s]", b)
	}()
}

func TestPlansRun(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$QREXEC_REMOTE_DOMAIN $QREXEC_SERVICE_ARGUMENT $1\"; cat; echo err >&2; exit 3\n"
	if err := os.WriteFile(filepath.Join(dir, "t.File"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	echo(t, filepath.Join(dir, "t.Sock"))
	echo(t, filepath.Join(dir, "elsewhere"))
	lookup := Lookup{Path: []string{dir}, Builtin: func(r *wire.RPC) (Builtin, bool) {
		b, ok := map[string]Builtin{
			"t.Func": {Run: func(_ context.Context, s Streams) int {
				b, _ := io.ReadAll(s.Stdin)
				fmt.Fprint(s.Stdout, strings.ToUpper(string(b)), slices.Contains(s.Env, "QREXEC_REMOTE_DOMAIN=work"))
				fmt.Fprint(s.Stderr, "said")
				return 4
			}},
			"t.Deaf":    {Run: func(context.Context, Streams) int { return 0 }},
			"t.Program": {Argv: []string{"/bin/cat"}},
			"t.Addr":    {Addr: &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "elsewhere")}},
			"t.File":    {Argv: []string{"/bin/false"}}, // the file wins
		}[r.Service]
		return b, ok
	}}
	big := strings.Repeat("0123456789", 100_000)
	for _, c := range []struct {
		call, input string
		out, err    string
		status      int
	}{
		{"t.File+arg work", "in", "work arg arg\nin", "err\n", 3},
		{"t.Sock+arg work", "in", "[t.Sock+arg work\x00in]", "", 0},
		{"t.Func work", "in", "INtrue", "said", 4},
		{"t.Deaf work", big, "", "", 0},
		{"t.Program+x work", big, big, "", 0},
		{"t.Addr work name dom0", "in", "[t.Addr work name dom0\x00in]", "", 0},
		{"t.None work", "in", "", "", 127},
	} {
		r, err := wire.ParseRPC(c.call)
		if err != nil {
			t.Fatal(err)
		}
		p, err := lookup.Plan(r)
		if err != nil {
			t.Errorf("%s: %v", c.call, err)
			continue
		}
		p.Dir = dir
		out, errOut, status := exchange(t, p, c.input)
		if out != c.out || errOut != c.err || status != c.status {
			t.Errorf("%s: %.100q, %q, %d; want %.100q, %q, %d", c.call, out, errOut, status, c.out, c.err, c.status)
		}
	}
}

func TestJustExec(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		p    Plan
		want int
	}{
		{Plan{Argv: []string{"/bin/false"}}, 0}, // it could be started
		{Plan{Argv: []string{"/nowhere/at/all"}}, wire.StatusFault},
		{Plan{Run: func(_ context.Context, s Streams) int { fmt.Fprint(s.Stdout, "x"); fmt.Fprint(s.Stderr, "x"); return 9 }}, 0},
		{Plan{}, wire.StatusNoService},
	} {
		if got := c.p.JustExec(log); got != c.want {
			t.Errorf("%+v: %d, want %d", c.p.Argv, got, c.want)
		}
	}
}

func TestInherit(t *testing.T) {
	got := Inherit([]string{"A=1", "QREXEC_REMOTE_DOMAIN=dom0", "QREXECX=1", "QREXEC_SERVICE_PATH=/x"})
	if want := []string{"A=1", "QREXEC_SERVICE_PATH=/x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
