package tools

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/agents/filecopy"
	"cubicle/agents/open"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// far plays dom0 and the other qube: it allows calls of the services that it
// has, and serves them.
type far struct {
	services map[string]service.Func // by name, without argument

	mu    sync.Mutex // guards calls
	calls []string   // TARGET SERVICE+ARGUMENT
}

// serve offers the agent's socket and returns its path.
func (f *far) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	l, err := vchan.ListenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	t.Cleanup(func() { l.Close(); calls.Wait() })
	calls.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			calls.Go(func() {
				defer conn.Close()
				if err := f.answer(conn); err != nil {
					t.Error(err)
				}
			})
		}
	})
	return path
}

func (f *far) answer(conn *net.UnixConn) error {
	typ, body, err := wire.ReadMessage(conn, wire.TriggerClient, wire.OwnVersion)
	if err != nil {
		return err
	}
	tr, err := wire.ParseTrigger(typ, body)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.calls = append(f.calls, tr.Target+" "+tr.Service)
	f.mu.Unlock()
	bare, _, _ := strings.Cut(tr.Service, "+")
	run, ok := f.services[bare]
	if !ok {
		return nil // refused
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, _, err = conn.WriteMsgUnix(make([]byte, 8), unix.UnixRights(fds[0]), nil)
	unix.Close(fds[0])
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fds[1]), "data")
	data, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return err
	}
	defer data.Close()
	c, err := service.Open(data)
	if err != nil {
		return err
	}
	r, err := wire.ParseRPC(tr.Service + " here")
	if err != nil {
		return err
	}
	// The caller may be gone before it has heard everything: that is its own business.
	_ = c.Run(context.Background(), slog.New(slog.DiscardHandler), &service.Plan{Name: bare, Run: run, Env: service.Env(r)})
	return nil
}

// files receives copies in home.
func files(home string) service.Func {
	return func(_ context.Context, s service.Streams) int {
		argument := ""
		for _, kv := range s.Env {
			if v, ok := strings.CutPrefix(kv, "QREXEC_SERVICE_ARGUMENT="); ok {
				argument = v
			}
		}
		return filecopy.Call{Argument: argument, Source: "here", Home: home, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr}.Serve()
	}
}

// run runs a tool and returns its status, output and error output.
func run(t *testing.T, f *far, stdin, name string, args ...string) (status int, out, errOut string) {
	t.Helper()
	dir := t.TempDir()
	var opened [3]*os.File
	for i, name := range []string{"in", "out", "err"} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		opened[i] = file
	}
	if _, err := opened[0].WriteString(stdin); err != nil {
		t.Fatal(err)
	}
	if _, err := opened[0].Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status = Run(ctx, Where{Trigger: f.serve(t), Stdin: opened[0], Stdout: opened[1], Stderr: opened[2]}, name, args)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return status, read("out"), read("err")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestCopyAndMove(t *testing.T) {
	home, here := t.TempDir(), t.TempDir()
	f := &far{services: map[string]service.Func{"qubes.Filecopy": files(home)}}
	put(t, here+"/d/a", "content")
	put(t, here+"/odd/a\nb", "odd")
	there := filepath.Join(home, "QubesIncoming", "here")

	if status, out, errOut := run(t, f, "", "qvm-copy", here+"/d"); status != 0 || out != "" || errOut != "" {
		t.Errorf("%d, %q, %q", status, out, errOut)
	}
	if b, err := os.ReadFile(there + "/d/a"); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	status, _, errOut := run(t, f, "", "qvm-move-to-vm", "work", here+"/d")
	if status != 1 || !strings.Contains(errOut, `"d/a" is there already`) {
		t.Errorf("%d, %q", status, errOut)
	}
	if _, err := os.Stat(here + "/d/a"); err != nil {
		t.Errorf("what was not moved is gone: %v", err)
	}
	if err := os.RemoveAll(there + "/d"); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := run(t, f, "", "qvm-move-to-vm", "work", here+"/d", here+"/odd"); status != 0 {
		t.Errorf("%d, %q", status, errOut)
	}
	if left, err := os.ReadDir(here); err != nil || len(left) != 0 {
		t.Errorf("%v stay, %v", left, err)
	}
	if want := []string{"@default qubes.Filecopy", "work qubes.Filecopy", "work qubes.Filecopy+allow-all-names"}; !slices.Equal(f.calls, want) {
		t.Errorf("calls %q", f.calls)
	}
	put(t, here+"/d/a", "")
	if err := os.Symlink("/etc", here+"/d/l"); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := run(t, f, "", "qvm-copy", here+"/d"); status != 1 || !strings.Contains(errOut, "lead out") || len(f.calls) != 3 {
		t.Errorf("%d, %q, %q", status, errOut, f.calls)
	}
}

func TestRefused(t *testing.T) {
	here := t.TempDir()
	put(t, here+"/a", "")
	for _, args := range [][]string{{"qvm-copy", here + "/a"}, {"qvm-move", here + "/a"}, {"qvm-open-in-dvm", here + "/a"}, {"qvm-open-in-vm", "work", "http://x"}, {"qvm-run-vm", "work", "ls"}} {
		if status, _, errOut := run(t, &far{}, "", args[0], args[1:]...); status != 126 || errOut != "Request refused\n" {
			t.Errorf("%q: %d, %q", args, status, errOut)
		}
	}
	if _, err := os.Stat(here + "/a"); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"qvm-copy"}, {"qvm-run-vm", "work"}, {"qvm-connect-tcp", "x"}, {"qvm-connect-tcp", "1:work:0"}, {"qvm-open-in-vm", "work", "/no/such/file"}, {"qvm-no-such"}} {
		f := &far{}
		if status, _, errOut := run(t, f, "", args[0], args[1:]...); status == 0 || status == 126 || errOut == "" || len(f.calls) != 0 {
			t.Errorf("%q: %d, %q, %q", args, status, errOut, f.calls)
		}
	}
	if status, out, _ := run(t, &far{}, "", "qvm-copy", "--help"); status != 0 || !strings.Contains(out, "Copy files") {
		t.Errorf("%d, %q", status, out)
	}
}

// TestLiars: a service that says nothing, or the wrong thing.
func TestLiars(t *testing.T) {
	here := t.TempDir()
	put(t, here+"/a", strings.Repeat("x", 1<<20))
	for name, lie := range map[string]service.Func{
		"has not confirmed": func(context.Context, service.Streams) int { return 0 },
		"damaged": func(_ context.Context, s service.Streams) int {
			_, _ = io.Copy(io.Discard, io.LimitReader(s.Stdin, 1<<20+2+2*32))
			fmt.Fprint(s.Stdout, strings.Repeat("\x00", 16))
			return 0
		},
	} {
		status, _, errOut := run(t, &far{services: map[string]service.Func{"qubes.Filecopy": lie}}, "", "qvm-move", here+"/a")
		if _, err := os.Stat(here + "/a"); status != 1 || err != nil || !strings.Contains(errOut, name) {
			t.Errorf("%s: %d, %q, %v", name, status, errOut, err)
		}
	}
}

func TestOpen(t *testing.T) {
	here := t.TempDir()
	var got string
	f := &far{services: map[string]service.Func{
		open.Service: func(ctx context.Context, s service.Streams) int {
			err := open.File(ctx, s.Stdin, s.Stdout, here, "here", func(_ context.Context, path string) error {
				b, err := os.ReadFile(path)
				if got = string(b); err != nil || got != "change me" {
					return err
				}
				return os.WriteFile(path, []byte("changed"), 0o600)
			})
			if err != nil {
				fmt.Fprintln(s.Stderr, err)
				return 1
			}
			return 0
		},
		open.URLService: func(ctx context.Context, s service.Streams) int {
			if open.URL(ctx, s.Stdin, func(_ context.Context, url string) error { got = url; return nil }) != nil {
				return 1
			}
			fmt.Fprint(s.Stdout, "nobody wants to read this")
			return 0
		},
	}}
	for _, c := range []struct{ before, after string }{{"change me", "changed"}, {"leave me", "leave me"}, {"", ""}} {
		put(t, here+"/doc", c.before)
		if status, _, errOut := run(t, f, "", "qvm-open-in-dvm", here+"/doc"); status != 0 || got != c.before {
			t.Errorf("%d, %q, %q", status, errOut, got)
		}
		b, err := os.ReadFile(here + "/doc")
		fi, serr := os.Stat(here + "/doc")
		if err != nil || serr != nil || string(b) != c.after || fi.Mode().Perm() != 0o640 {
			t.Errorf("%q, %v, %v", b, err, fi)
		}
	}
	put(t, here+"/doc", "change me")
	if status, _, errOut := run(t, f, "", "qvm-open-in-vm", "--view-only", "work", here+"/doc"); status != 0 {
		t.Errorf("%d, %q", status, errOut)
	}
	if b, err := os.ReadFile(here + "/doc"); err != nil || string(b) != "change me" {
		t.Errorf("%q, %v", b, err)
	}
	if left, err := os.ReadDir(here); err != nil || len(left) != 1 {
		t.Errorf("%v stay, %v", left, err)
	}
	if status, out, errOut := run(t, f, "", "qvm-open-in-vm", "work", "https://x/?q"); status != 0 || out != "" || got != "https://x/?q" {
		t.Errorf("%d, %q, %q, %q", status, out, errOut, got)
	}
	if want := []string{"@dispvm qubes.OpenInVM", "work qubes.OpenInVM", "work qubes.OpenURL"}; !slices.Equal(slices.Compact(f.calls), want) {
		t.Errorf("%q", f.calls)
	}
}

// TestConfirm: what another qube has sent here opens no disposable where
// nobody can be asked, and does when the person says yes.
func TestConfirm(t *testing.T) {
	t.Setenv("QREXEC_SERVICE_FULL_NAME", "qubes.OpenInVM+")
	t.Setenv("QREXEC_REMOTE_DOMAIN", "work")
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	f := &far{services: map[string]service.Func{open.URLService: func(_ context.Context, s service.Streams) int {
		_, _ = io.Copy(io.Discard, s.Stdin)
		return 0
	}}}
	try := func(want int) {
		t.Helper()
		if status, _, errOut := run(t, f, "", "qvm-open-in-dvm", "http://x"); status != want {
			t.Errorf("%d, %q", status, errOut)
		}
	}
	try(1)
	put(t, bin+"/zenity", "#!/bin/sh\nexit 1\n")
	if err := os.Chmod(bin+"/zenity", 0o755); err != nil {
		t.Fatal(err)
	}
	try(1)
	if len(f.calls) != 0 {
		t.Errorf("%q", f.calls)
	}
	put(t, bin+"/zenity", "#!/bin/sh\nexit 0\n")
	try(0)
}

func TestRunVM(t *testing.T) {
	f := &far{services: map[string]service.Func{
		"qubes.VMShell": func(_ context.Context, s service.Streams) int {
			line, rest := "", ""
			r := bufio.NewReader(s.Stdin)
			line, _ = r.ReadString('\n')
			b, _ := io.ReadAll(r)
			rest = string(b)
			fmt.Fprintf(s.Stdout, "%q then %q", line, rest)
			return 7
		},
		"t.Svc": func(_ context.Context, s service.Streams) int { _, _ = io.Copy(s.Stdout, s.Stdin); return 0 },
	}}
	for _, c := range []struct {
		args   []string
		status int
		out    string
		call   string
	}{
		{[]string{"work", "echo", "it's", "--all"}, 7, `"exec bash -c 'echo it'\\''s --all' || exit 127\n" then "input"`, "work qubes.VMShell+WaitForSession"},
		{[]string{"--no-gui", "work", "ls"}, 7, `"exec bash -c 'ls' || exit 127\n" then "input"`, "work qubes.VMShell"},
		{[]string{"--dispvm", "ls"}, 7, `"exec bash -c 'ls' || exit 127\n" then "input"`, "@dispvm qubes.VMShell+WaitForSession"},
		{[]string{"--dispvm=base", "ls"}, 7, `"exec bash -c 'ls' || exit 127\n" then "input"`, "@dispvm:base qubes.VMShell+WaitForSession"},
		{[]string{"--service", "work", "t.Svc", "x"}, 0, "input", "work t.Svc+x"},
		{[]string{"--service", "-l", "echo -n hello; exec >&-; cat >&$SAVED_FD_1", "work", "t.Svc"}, 0, "hello", "work t.Svc"},
	} {
		f.calls = nil
		status, out, errOut := run(t, f, "input", "qvm-run-vm", c.args...)
		if status != c.status || out != c.out || !slices.Equal(f.calls, []string{c.call}) {
			t.Errorf("%q: %d, %q, %q, %q", c.args, status, out, errOut, f.calls)
		}
	}
}

func TestForward(t *testing.T) {
	f := &far{services: map[string]service.Func{"qubes.ConnectTCP": func(_ context.Context, s service.Streams) int {
		b, _ := io.ReadAll(s.Stdin) // the end of one direction arrives
		fmt.Fprint(s.Stdout, strings.ToUpper(string(b)))
		return 0
	}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Where{Trigger: f.serve(t), Stderr: os.Stderr}.forward(ctx, l, "work", "qubes.ConnectTCP+80")
	}()
	for i := range 3 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "hello %d", i)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(conn)
		if err != nil || string(b) != fmt.Sprintf("HELLO %d", i) {
			t.Errorf("%q, %v", b, err)
		}
		conn.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestBar(t *testing.T) {
	now := time.Unix(0, 0)
	var out strings.Builder
	b := &bar{w: &out, width: 10, total: 4_000_000, now: func() time.Time { return now }, began: now}
	now = now.Add(time.Second)
	b.tell(1_000_000)
	b.tell(1_100_000) // too soon
	now = now.Add(time.Second)
	b.tell(2_000_000)
	now = now.Add(2 * time.Second)
	b.end(true)
	want := "\r\x1b[K[##........]  25 %  1.0 MB of 4.0 MB  1.0 MB/s\r\x1b[K[#####.....]  50 %  2.0 MB of 4.0 MB  1.0 MB/s\r\x1b[K[##########] 100 %  4.0 MB of 4.0 MB  1.0 MB/s\n"
	if out.String() != want {
		t.Errorf("%q", out.String())
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1 << 40: "1.1 TB"} {
		if size(n) != want {
			t.Errorf("%d: %s", n, size(n))
		}
	}
}
