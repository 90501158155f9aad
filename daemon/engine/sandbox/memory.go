package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// oomWatch knows whether the kernel killed a process of a machine for memory.
type oomWatch struct {
	group  group
	before int64    // kills that were counted before (version 2)
	event  *os.File // an eventfd that counts (version 1), or the file of events
	seen   bool     // it has happened
}

// watchMemory begins to watch. It needs no attention until asked.
func watchMemory(g group) (*oomWatch, error) {
	w := &oomWatch{group: g}
	if g.v2 {
		var err error
		if w.event, err = os.Open(g.file("", "memory.events")); err != nil {
			return nil, err
		}
		w.before, err = w.kills()
		return w, err
	}
	control := g.file("memory", "memory.oom_control")
	if control == "" {
		return w, nil
	}
	oom, err := os.Open(control)
	if err != nil {
		return nil, err
	}
	defer oom.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w.event = os.NewFile(uintptr(fd), "memory events")
	order := fmt.Sprintf("%d %d", fd, oom.Fd())
	if err := os.WriteFile(g.file("memory", "cgroup.event_control"), []byte(order), 0o200); err != nil {
		w.close()
		return nil, fmt.Errorf("watch for lack of memory: %w", err)
	}
	return w, nil
}

// killed tells whether it has happened since watchMemory.
func (w *oomWatch) killed() bool {
	if w == nil {
		return false
	}
	_, _ = w.more() // whatever hinders it, what was seen holds
	return w.seen
}

// more tells whether it has happened since the last call. An error means that
// there is nothing to watch any more.
func (w *oomWatch) more() (bool, error) {
	if w.event == nil {
		return false, os.ErrClosed
	}
	if w.group.v2 {
		kills, err := w.kills()
		more := err == nil && kills > w.before
		w.before = max(w.before, kills)
		w.seen = w.seen || more
		return more, err
	}
	var count [8]byte
	n, err := unix.Read(int(w.event.Fd()), count[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	more := err == nil && n == len(count)
	w.seen = w.seen || more
	return more, err
}

// poll is what tells that more may have an answer; its descriptor is -1 where
// nothing does.
func (w *oomWatch) poll() unix.PollFd {
	switch {
	case w == nil || w.event == nil:
		return unix.PollFd{Fd: -1}
	case w.group.v2:
		return unix.PollFd{Fd: int32(w.event.Fd()), Events: unix.POLLPRI}
	}
	return unix.PollFd{Fd: int32(w.event.Fd()), Events: unix.POLLIN}
}

// kills reads how often the kernel has killed, which also lets poll wait for
// the next time.
func (w *oomWatch) kills() (int64, error) {
	buf := make([]byte, 4096)
	n, err := w.event.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return field(string(buf[:n]), "oom_kill"), nil
}

func (w *oomWatch) close() {
	if w != nil && w.event != nil {
		w.event.Close()
		w.event = nil
	}
}

// field reads the number behind a name in a control file of lines.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key == name {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func number(file string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

// memoryUse is what the group uses, without what the kernel would give up at
// once.
func (g group) memoryUse() (int64, error) {
	current, cache := g.file("memory", "memory.usage_in_bytes"), "total_inactive_file"
	if g.v2 {
		current, cache = g.file("", "memory.current"), "inactive_file"
	}
	if current == "" {
		return 0, os.ErrNotExist
	}
	used, err := number(current)
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(current), "memory.stat"))
	if err != nil {
		return 0, err
	}
	return max(0, used-field(string(data), cache)), nil
}

func (g group) cpuTime() (time.Duration, error) {
	if g.v2 {
		data, err := os.ReadFile(g.file("", "cpu.stat"))
		return time.Duration(field(string(data), "usage_usec")) * time.Microsecond, err
	}
	file := g.file("cpuacct", "cpuacct.usage")
	if file == "" {
		return 0, os.ErrNotExist
	}
	ns, err := number(file)
	return time.Duration(ns), err
}
