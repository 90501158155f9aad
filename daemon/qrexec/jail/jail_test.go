package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/seccomp"
	"cubicle/daemon/vchan"
)

// The jail cannot be left: its process is this test binary with prisonerEnv
// set to the root folder. It prints what each attempt gave.
const prisonerEnv = "JAIL_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(prisonerEnv); root != "" {
		prisoner(paths.Root(root))
		return
	}
	os.Exit(m.Run())
}

// attempts are made in the jail.
var attempts = []struct {
	name string
	do   func(root paths.Root) error
	want error // nil: it must work
}{
	{"listen and dial below run/qubes", func(r paths.Root) error { return roundTrip(r.RunQubes()) }, nil},
	{"be the server of a channel on upstream's sockets", func(r paths.Root) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		dialed := make(chan error, 1)
		go func() {
			ch, err := (&vchan.Unix{Dir: r.Vchan(), Self: 7}).Dial(ctx, 0, 111)
			if err == nil {
				err = ch.Close()
			}
			dialed <- err
		}()
		ch, err := (&vchan.Unix{Dir: r.Vchan()}).Listen(ctx, 7, 111)
		if err != nil {
			return err
		}
		return errors.Join(<-dialed, ch.Close())
	}, nil},
	{"a symbolic link, renamed into place and removed", func(r paths.Root) error {
		path := filepath.Join(r.RunQubes(), "qrexec.work")
		return errors.Join(os.Symlink("x", path+".new"), os.Rename(path+".new", path), os.Remove(path))
	}, nil},
	{"a socket pair", func(paths.Root) error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }, nil},
	{"a memfd", func(paths.Root) error {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err == nil {
			err = unix.Ftruncate(fd, 1<<30)
		}
		return err
	}, nil},
	{"goroutines on new threads", func(paths.Root) error {
		done := make(chan error)
		for range 20 {
			go func() { done <- unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) }()
		}
		var err error
		for range 20 {
			err = errors.Join(err, <-done)
		}
		return err
	}, nil},

	{"AF_INET", socket(unix.AF_INET), unix.EPERM},
	{"AF_INET6", socket(unix.AF_INET6), unix.EPERM},
	{"AF_NETLINK", socket(unix.AF_NETLINK), unix.EPERM},
	{"AF_VSOCK", socket(unix.AF_VSOCK), unix.EPERM},
	{"dial TCP", func(paths.Root) error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err }, unix.EPERM},
	{"open /etc/passwd", func(paths.Root) error { _, err := os.Open("/etc/passwd"); return err }, unix.EACCES},
	{"open /proc/self/mem", func(paths.Root) error { _, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0); return err }, unix.EACCES},
	{"a file in run/qubes", func(r paths.Root) error { return os.WriteFile(filepath.Join(r.RunQubes(), "x"), nil, 0o600) }, unix.EACCES},
	{"a socket elsewhere", func(r paths.Root) error { return roundTrip(string(r)) }, unix.EACCES},
	{"read a file of the root folder", func(r paths.Root) error { _, err := os.ReadFile(r.Join("secret")); return err }, unix.EACCES},
	{"execve", func(paths.Root) error { return syscall.Exec("/bin/true", []string{"true"}, nil) }, unix.EPERM},
	{"fork", func(paths.Root) error {
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}, unix.EPERM},
	{"start a program", func(paths.Root) error { return exec.Command("/bin/true").Run() }, unix.EACCES},
	{"kill", func(paths.Root) error { return unix.Kill(os.Getppid(), 0) }, unix.EPERM},
	{"signal a thread of another", func(paths.Root) error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) }, unix.EPERM},
	{"ptrace", func(paths.Root) error { return unix.PtraceAttach(os.Getppid()) }, unix.EPERM},
	{"memory to execute", func(paths.Root) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}, unix.EPERM},
	{"setuid", func(paths.Root) error {
		_, _, errno := unix.RawSyscall(unix.SYS_SETUID, 65534, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}, unix.EPERM},
}

func socket(family int) func(paths.Root) error {
	return func(paths.Root) error { _, err := unix.Socket(family, unix.SOCK_STREAM, 0); return err }
}

func roundTrip(dir string) error {
	path := filepath.Join(dir, "x.sock")
	l, err := vchan.ListenPath(path)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	c.Close()
	return os.Remove(path)
}

// outcome is what an attempt gave, as its errno.
type outcome struct {
	Text  string
	Errno int
}

func prisoner(root paths.Root) {
	out := os.NewFile(3, "report")
	weakness, err := Enter(root)
	report := map[string]outcome{"enter": {Text: fmt.Sprint(err)}, "weakness": {Text: weakness}}
	for _, a := range attempts {
		var o outcome
		if err := a.do(root); err != nil {
			o.Text = err.Error()
			var errno syscall.Errno
			if errors.As(err, &errno) {
				o.Errno = int(errno)
			}
		}
		report[a.name] = o
	}
	if err := json.NewEncoder(out).Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestJail(t *testing.T) {
	root := paths.Root(t.TempDir())
	for _, dir := range []string{root.RunQubes(), root.Vchan()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root.Join("secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), prisonerEnv+"="+string(root))
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var report map[string]outcome
	decodeErr := json.NewDecoder(r).Decode(&report)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if decodeErr != nil {
		t.Fatal(decodeErr)
	}
	if e := report["enter"].Text; e != "<nil>" {
		t.Fatal(e)
	}
	weak := report["weakness"].Text
	for _, a := range attempts {
		o, ok := report[a.name]
		switch {
		case !ok:
			t.Errorf("%s: not tried", a.name)
		case a.want == nil && o.Text != "":
			t.Errorf("%s: %s", a.name, o.Text)
		case a.want == unix.EACCES && weak != "": // landlock's part
			t.Logf("%s: not judged: %s", a.name, weak)
		case a.want != nil && syscall.Errno(o.Errno) != a.want:
			t.Errorf("%s: %q (errno %d), want %v", a.name, o.Text, o.Errno, a.want)
		}
	}
}

// TestEveryCallHasAReason keeps the table honest.
func TestEveryCallHasAReason(t *testing.T) {
	for _, r := range slices.Concat(calls, seccomp.GoRuntime()) {
		if r.Why == "" {
			t.Errorf("%v has no reason", r.Calls)
		}
	}
}
