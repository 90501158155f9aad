package jail

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The jail cannot be left: its process is this test binary with prisonerEnv
// set. It prints what each attempt gave.
const prisonerEnv = "JAIL_TEST_PRISONER"

func TestMain(m *testing.M) {
	switch os.Getenv(prisonerEnv) {
	case "attempts":
		prisoner()
		return
	case "glutton":
		glutton()
		return
	}
	os.Exit(m.Run())
}

// attempts are made in the jail, with a socket pair that was open before.
var attempts = []struct {
	name string
	do   func(a, b net.Conn) error
	ok   bool
}{
	{"bytes over open sockets", func(a, b net.Conn) error {
		errs := make(chan error, 1)
		go func() { _, err := a.Write(make([]byte, 1<<20)); errs <- err }()
		if _, err := b.Read(make([]byte, 1<<16)); err != nil {
			return err
		}
		b.Close()
		<-errs
		return nil
	}, true},
	{"goroutines on new threads", func(net.Conn, net.Conn) error {
		done := make(chan error)
		for range 20 {
			go func() { runtime.LockOSThread(); done <- unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) }()
		}
		for range 20 {
			if err := <-done; err != nil {
				return err
			}
		}
		return nil
	}, true},
	{"much memory, collected", func(net.Conn, net.Conn) error {
		for range 50 {
			b := make([]byte, 8<<20)
			b[len(b)-1] = 1
		}
		runtime.GC()
		return nil
	}, true},
	{"timers and the clock", func(net.Conn, net.Conn) error {
		<-time.After(time.Millisecond)
		_ = time.Now().Local().String()
		return nil
	}, true},

	{"open a file", func(net.Conn, net.Conn) error { _, err := os.Open("/etc/passwd"); return err }, false},
	{"open its own executable", func(net.Conn, net.Conn) error { _, err := os.Open("/proc/self/exe"); return err }, false},
	{"create a file", func(net.Conn, net.Conn) error {
		return os.WriteFile(fmt.Sprintf("/tmp/jail-%d", os.Getpid()), nil, 0o600)
	}, false},
	{"open by handle or by old call", func(net.Conn, net.Conn) error {
		path := []byte("/etc/passwd\x00")
		fd, _, errno := unix.RawSyscall(unix.SYS_OPENAT2, 0, pointer(path), 0)
		if errno != 0 {
			return errno
		}
		return unix.Close(int(fd))
	}, false},
	{"a UNIX socket", socket(unix.AF_UNIX), false},
	{"an internet socket", socket(unix.AF_INET), false},
	{"a netlink socket", socket(unix.AF_NETLINK), false},
	{"execve", func(net.Conn, net.Conn) error { return syscall.Exec("/bin/true", []string{"true"}, nil) }, false},
	{"start a program", func(net.Conn, net.Conn) error { return exec.Command("/bin/true").Run() }, false},
	{"fork", func(net.Conn, net.Conn) error {
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		return orNil(errno)
	}, false},
	{"signal the parent", func(net.Conn, net.Conn) error { return unix.Kill(os.Getppid(), 0) }, false},
	{"trace the parent", func(net.Conn, net.Conn) error { return unix.PtraceAttach(os.Getppid()) }, false},
	{"memory to execute", func(net.Conn, net.Conn) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}, false},
	{"ioctl", func(net.Conn, net.Conn) error { _, err := unix.IoctlGetInt(0, unix.TIOCINQ); return err }, false},
	{"pass a descriptor", func(a, _ net.Conn) error {
		_, _, err := a.(*net.UnixConn).WriteMsgUnix([]byte{1}, unix.UnixRights(0), nil)
		return err
	}, false},
}

func socket(family int) func(a, b net.Conn) error {
	return func(net.Conn, net.Conn) error { _, err := unix.Socket(family, unix.SOCK_STREAM, 0); return err }
}

func orNil(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// glutton takes memory in the jail until it is ended.
func glutton() {
	if _, _, err := os.Pipe(); err != nil { // starts the poller, as sockets do
		panic(err)
	}
	if _, err := Enter(); err != nil {
		panic(err)
	}
	var all [][]byte
	for total := 0; total < 2*hardMemory; total += 16 << 20 {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println("had", len(all), "blocks")
}

// prisoner makes all attempts and prints their errors as a JSON object.
func prisoner() {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			panic(err)
		}
		f.Close()
	}
	if _, err := Enter(); err != nil {
		panic(err)
	}
	results := make(map[string]string)
	for _, a := range attempts {
		if err := a.do(conns[0], conns[1]); err != nil {
			results[a.name] = err.Error()
		}
	}
	json.NewEncoder(os.Stdout).Encode(results)
}

func TestMemoryIsLimited(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), prisonerEnv+"=glutton")
	out, err := cmd.CombinedOutput()
	// With cgo, as tests are built, the want of memory may meet the start of a
	// thread first.
	limited := bytes.Contains(out, []byte("out of memory")) || bytes.Contains(out, []byte("pthread_create failed: Resource temporarily unavailable"))
	if err == nil || !limited {
		t.Errorf("the process ended with %v and said %.300s", err, out)
	}
	if bytes.Contains(out, []byte("panic: jail")) {
		t.Errorf("%s", out)
	}
}

func TestJail(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), prisonerEnv+"=attempts")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the prisoner died: %v", err)
	}
	var results map[string]string
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("the prisoner said %q: %v", out, err)
	}
	for _, a := range attempts {
		failure, failed := results[a.name]
		if a.ok && failed {
			t.Errorf("%s: %s", a.name, failure)
		}
		if !a.ok && !failed {
			t.Errorf("%s: succeeded", a.name)
		}
	}
}
