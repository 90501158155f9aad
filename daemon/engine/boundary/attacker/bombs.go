package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/paths"
	"cubicle/daemon/vchan"
)

// bomb takes what there is of a thing, and says how much it got.
func bomb(kind string) error {
	switch kind {
	case "processes":
		return forkBomb()
	case ownProcesses:
		return forkAsOne()
	case "memory":
		return eat()
	case "disk":
		return fillDisks()
	case "console":
		return fillConsole()
	case "descriptors":
		return floodLink()
	case "processors":
		for range 64 {
			go func() {
				for n := uint64(0); ; n++ { // for ever
				}
			}()
		}
		fmt.Println("took all processors")
		time.Sleep(time.Hour)
		return nil
	}
	return fmt.Errorf("no bomb %q", kind)
}

// bombers are how many users of the qube make processes: each may have so
// many, and together more than the qube may.
const bombers = 4

// forkBomb makes processes as several users until there are no more.
func forkBomb() error {
	var said []*bufio.Reader
	for user := range uint32(bombers) {
		cmd := exec.Command("/proc/self/exe", "bomb", ownProcesses)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, NoSetGroups: true}}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("as user %d: %w", user, err)
		}
		said = append(said, bufio.NewReader(out))
	}
	all, most, words := 0, 0, []string{}
	for _, one := range said {
		line, err := one.ReadString('\n')
		if err != nil {
			words = append(words, "one ended") // by the lack that the others made
			continue
		}
		count, why, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(count)
		if err != nil {
			return fmt.Errorf("a bomb says %q: %w", line, err)
		}
		all, most, words = all+n, max(most, n), append(words, why)
	}
	fmt.Printf("took all processes: %d, as one user %d, then %s\n", all, most, strings.Join(words, ", "))
	time.Sleep(time.Hour)
	return nil
}

// ownProcesses is the bomb that forkBomb consists of.
const ownProcesses = "processes of one user"

// forkAsOne makes processes that only wait, until there are no more.
func forkAsOne() error {
	const enough = 100_000
	n := 0
	var errno unix.Errno
	for ; n < enough; n++ {
		var pid uintptr
		pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			for { // no Go code works here
				unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
		if errno != 0 {
			break
		}
	}
	fmt.Println(n, errno)
	time.Sleep(time.Hour)
	return nil
}

func eat() error {
	var all [][]byte
	for {
		b := make([]byte, 8<<20)
		for i := 0; i < len(b); i += 512 {
			b[i] = byte(i>>9) | 1
		}
		all = append(all, b)
		if len(all) > 1<<20 {
			return nil
		}
	}
}

// fillDisks asks for more room than any volume has.
func fillDisks() error {
	for _, dir := range []string{"/", "/rw", "/home/user", "/tmp", "/dev/shm", "/run", "/dev"} {
		name := filepath.Join(dir, "filled")
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			continue
		}
		got := int64(0)
		for size := int64(1) << 40; size >= 1<<20; size /= 2 {
			if unix.Fallocate(int(f.Fd()), 0, got, size) == nil {
				got += size
			}
		}
		f.Close()
		fmt.Println("disk", dir, got)
		os.Remove(name)
	}
	return nil
}

func fillConsole() error {
	f, err := os.OpenFile("/proc/1/fd/1", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	line := []byte(strings.Repeat("\x1b]0;flood\a", 400) + "\n")
	n := 0
	for range 4096 {
		k, err := f.Write(line)
		n += k
		if err != nil {
			return err
		}
	}
	fmt.Println("console", n)
	return nil
}

// floodLink gives qrexecd connections, descriptors and requests.
func floodLink() error {
	socket := filepath.Join(engine.AgentLinkDir, paths.LinkSocket)
	// gVisor lets only descriptors through that dom0 knows.
	var gifts [][]*os.File
	for _, name := range []string{os.DevNull, filepath.Join(engine.AgentDir, engine.AgentBinary)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		gifts = append(gifts, slices.Repeat([]*os.File{f}, 200))
	}
	gifts = append(gifts, nil)
	var open []net.Conn
	frames, last := 0, error(nil)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		open = append(open, conn)
		link := conn.(*net.UnixConn)
		if err := link.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if err := flood(link, gifts[0], &frames); err != nil {
			last = err
			if errors.Is(err, unix.EINVAL) && len(gifts) > 1 {
				gifts = gifts[1:]
			}
		}
		if len(open) > 500 { // some stay open, silent
			open[0].Close()
			open = open[1:]
		}
	}
	fmt.Println("connections", len(open), "requests", frames, "descriptors with each", len(gifts[0])/4, "the last ended with", last)
	if frames == 0 {
		return errors.New("no request got through")
	}
	return nil
}

// flood says hello and asks, each time with descriptors that nobody wants.
func flood(link *net.UnixConn, many []*os.File, frames *int) error {
	if err := vchan.WriteLinkFrame(link, vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion}, many...); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if _, _, err := vchan.ReadLinkFrame(link, true); err != nil {
		return fmt.Errorf("answer to hello: %w", err)
	}
	for i := range uint32(2000) {
		f := vchan.LinkFrame{Op: vchan.LinkListen + vchan.LinkOp(i%2), Request: i + 1, Domain: 0, Port: vchan.Port(513 + i)}
		if err := vchan.WriteLinkFrame(link, f, many[:len(many)/4]...); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		*frames++
	}
	return nil
}
