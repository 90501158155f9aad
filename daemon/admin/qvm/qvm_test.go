package qvm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cubicle/daemon/admin"
	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/wire"
)

// The tools are the test program itself, called by their names.
func TestMain(m *testing.M) {
	commands := map[string]func(){}
	for name := range tools() {
		commands[name] = func() {
			os.Exit(Main(context.Background(), Streams{os.Stdin, os.Stdout, os.Stderr}, append([]string{name}, os.Args[1:]...)))
		}
	}
	commands["qvm"] = func() {
		os.Exit(Main(context.Background(), Streams{os.Stdin, os.Stdout, os.Stderr}, append([]string{"qvm"}, os.Args[1:]...)))
	}
	testscript.Main(m, commands)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			root, err := paths.New(filepath.Join(e.WorkDir, "root"))
			if err != nil {
				return err
			}
			if err := os.MkdirAll(root.Run(), 0o755); err != nil {
				return err
			}
			sys, err := coretest.Start(coretest.New(), filepath.Join(e.WorkDir, "system"), core.WallClock{})
			if err != nil {
				return err
			}
			if err := sys.Done(sys.CreateTemplate("debian-12", "debian-12")); err != nil {
				return err
			}
			dir, err := os.Open(root.Run())
			if err != nil {
				return err
			}
			defer dir.Close()
			// The test's folder may be too deep for a socket's address.
			l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/qubesd.sock", dir.Fd()))
			if err != nil {
				return err
			}
			s := admin.New(sys.Core, slog.New(slog.DiscardHandler))
			done := make(chan error, 1)
			go func() { done <- s.Serve(l, admin.Public) }()
			e.Defer(func() {
				s.Close()
				sys.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
				for _, b := range sys.World.Breaches() {
					t.Error(b)
				}
			})
			e.Setenv(paths.Env, string(root))
			return nil
		},
	})
}

func TestAQubeCannotSteerTheTerminal(t *testing.T) {
	var b bytes.Buffer
	text := "plain\ttext\n\x1b]0;title\x07\x9b31m é\x7f"
	if n, err := wire.NewEscapeFilter(&b).Write([]byte(text)); n != len(text) || err != nil {
		t.Error(n, err)
	}
	if want := "plain\ttext\n_]0;title\x07_31m ___"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1024": 1024, "10GiB": 10 << 30, "10G": 10 << 30, "3gib": 3 << 30, "2MB": 2_000_000, "5 KiB": 5 << 10,
		"": -1, "G": -1, "-1": -1, "1.5G": -1, "1X": -1, "99999999999T": -1, "1 0": -1, "007": -1,
	} {
		got, err := parseSize(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d (%v), want %d", text, got, err, want)
		}
	}
}
