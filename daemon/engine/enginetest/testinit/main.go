// Command testinit is the init of the machines of package enginetest: it
// dials the link socket, answers questions, one line each, and ends at
// SIGTERM. It is built static.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
)

func main() {
	in := &initProcess{}
	if len(os.Args) > 1 && os.Args[1] == eater {
		in.eat(os.Args[2])
		return
	}
	fmt.Println("testinit is up")
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		<-terms
		os.Exit(0)
	}()
	for {
		if err := in.serve(); err != nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// eater is the argument that makes a child which takes memory and ends.
const eater = "eat"

type initProcess struct {
	conn *net.UnixConn
	hold [][]byte // memory that was asked for
}

// serve answers questions on one connection.
func (in *initProcess) serve() error {
	conn, err := net.Dial("unix", filepath.Join(engine.AgentLinkDir, paths.LinkSocket))
	if err != nil {
		return err
	}
	defer conn.Close()
	in.conn = conn.(*net.UnixConn)
	fmt.Fprintf(conn, "ready %d\n", os.Getpid())
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		answer, err := in.answer(words[0], words[1:])
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintln(conn, answer)
	}
	return lines.Err()
}

func (in *initProcess) answer(question string, args []string) (string, error) {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch question {
	case "ping":
		return "pong", nil
	case "exit":
		status, err := strconv.Atoi(arg(0))
		if err != nil {
			return "", err
		}
		os.Exit(status)
	case "ids":
		text, err := os.ReadFile("/proc/self/uid_map")
		return fmt.Sprint(os.Getuid(), os.Getgid(), " ", strings.Fields(string(text))), err
	case "write":
		return "ok", os.WriteFile(arg(0), []byte(arg(1)), 0o644)
	case "read":
		text, err := os.ReadFile(arg(0))
		return strings.TrimSpace(string(text)), err
	case "chown":
		id, err := strconv.Atoi(arg(1))
		return "ok", errors.Join(err, os.Lchown(arg(0), id, id))
	case "owner":
		var st unix.Stat_t
		err := unix.Stat(arg(0), &st)
		return fmt.Sprint(st.Uid, st.Gid), err
	case "hostname":
		return os.Hostname()
	case "interfaces":
		return interfaces()
	case "connect":
		conn, err := net.DialTimeout("tcp", arg(0), time.Second)
		if err != nil {
			return "", err
		}
		return "connected", conn.Close()
	case "size":
		var st unix.Statfs_t
		err := unix.Statfs(arg(0), &st)
		return fmt.Sprint(int64(st.Blocks) * st.Bsize), err
	case "eat":
		return in.eat(arg(0))
	case "let-eat":
		// The child is the kernel's first choice, whatever we take ourselves.
		cmd := exec.Command("/proc/self/exe", eater, arg(0))
		return "the child: " + fmt.Sprint(cmd.Run()), nil
	case "spin":
		return "ok", spin(200 * time.Millisecond)
	case "dead-link":
		return "ok", os.Remove(filepath.Join(engine.AgentLinkDir, paths.LinkSocket))
	case "dangers":
		return dangers(), nil
	case "memory":
		return in.memory()
	}
	return "", fmt.Errorf("no such question: %q", question)
}

// spin takes so much of a processor's time, however long others make it wait.
func spin(much time.Duration) error {
	used := func() (time.Duration, error) {
		var u unix.Rusage
		err := unix.Getrusage(unix.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
	}
	before, err := used()
	for now := before; err == nil && now-before < much; {
		now, err = used()
	}
	return err
}

func interfaces() (string, error) {
	list, err := net.Interfaces()
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	sort.Strings(names)
	return strings.Join(names, " "), err
}

// eat uses so many MiB of memory.
func (in *initProcess) eat(text string) (string, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return "", err
	}
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 512 {
			b[i] = byte(i >> 9)
		}
		in.hold = append(in.hold, b)
	}
	return "ok", nil
}

// dangers tries calls into the kernel that a qube has no business with, and
// names those that were let through.
func dangers() string {
	var open []string
	for _, try := range []struct {
		name string
		call func() error
	}{
		{"keyctl", func() error {
			_, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_SESSION_KEYRING, 0, 0, 0)
			return err
		}},
		{"io_uring", func() error { return raw(unix.SYS_IO_URING_SETUP) }},
		{"bpf", func() error { return raw(unix.SYS_BPF) }},
		{"userfaultfd", func() error { return raw(unix.SYS_USERFAULTFD) }},
		{"perf_event_open", func() error { return raw(unix.SYS_PERF_EVENT_OPEN) }},
		{"fsopen", func() error { _, err := unix.Fsopen("tmpfs", 0); return err }},
		{"mount", func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") }},
		{"socket(AF_ALG)", func() error { _, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0); return err }},
		{"socket(AF_VSOCK)", func() error { _, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0); return err }},
		{"clone(user)", func() error {
			// Never a new process: the kernel refuses these two together.
			_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS, 0, 0, 0, 0, 0)
			return errno
		}},
		{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
	} {
		if err := try.call(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EAFNOSUPPORT) {
			open = append(open, fmt.Sprintf("%s: %v", try.name, err))
		}
	}
	return "let through: " + strings.Join(open, "; ")
}

func raw(number uintptr) error {
	if _, _, errno := unix.Syscall6(number, 0, 0, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// memory receives a descriptor from dom0, maps it and answers in it.
func (in *initProcess) memory() (string, error) {
	fmt.Fprintln(in.conn, "send")
	oob := make([]byte, unix.CmsgSpace(4))
	buf := make([]byte, 1)
	_, n, _, _, err := in.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return "", err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return "", fmt.Errorf("%d control messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return "", fmt.Errorf("%d descriptors, %w", len(fds), err)
	}
	defer unix.Close(fds[0])
	mem, err := unix.Mmap(fds[0], 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return "", fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(mem)
	said := strings.TrimRight(string(mem[:16]), "\x00")
	copy(mem[64:], "the qube was here")
	if unix.Ftruncate(fds[0], 0) == nil {
		return "", errors.New("a sealed memory region could be cut off")
	}
	return said, nil
}
