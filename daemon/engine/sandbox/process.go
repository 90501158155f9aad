package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// identity names a process for as long as the host is up: numbers are used
// again, the time of the start (ticks since boot) tells two apart.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// process is a process that we can signal and wait for without being its
// parent, and without ever hitting another of the same number.
type process struct {
	identity
	fd *os.File // pidfd
}

// openProcess takes hold of a process.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{identity{PID: pid}, os.NewFile(uintptr(fd), "pidfd")}
	if p.Start, err = startTime(pid); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// open takes hold of the very process, if it still lives.
func (i identity) open() (*process, error) {
	p, err := openProcess(i.PID)
	if err != nil {
		return nil, err
	}
	if p.Start != i.Start || p.over() {
		p.close()
		return nil, fmt.Errorf("process %d: %w", i.PID, unix.ESRCH)
	}
	return p, nil
}

func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; field 22 is the 20th after.
	_, rest, ok := cutLast(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat cannot be read", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// signal sends a signal; to one that has ended, it does nothing.
func (p *process) signal(sig unix.Signal) error {
	if p == nil {
		return nil
	}
	var err error
	cerr := p.use(func(fd int32) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if cerr != nil || errors.Is(err, unix.ESRCH) {
		return nil // we closed it because it had ended
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// use calls fn with the descriptor, which stays open meanwhile. An error means
// that it is closed.
func (p *process) use(fn func(fd int32)) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) { fn(int32(fd)) })
}

// over tells whether the process has ended.
func (p *process) over() bool { return p.wait(0) == nil }

// wait waits for the end, up to limit.
func (p *process) wait(limit time.Duration) error {
	err := context.DeadlineExceeded
	cerr := p.use(func(fd int32) {
		fds := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}}
		for deadline := time.Now().Add(limit); ; {
			// Rounded up: to ask without waiting until the last millisecond
			// is over would take a processor.
			n, perr := unix.Poll(fds, int(max(0, (time.Until(deadline)+time.Millisecond-1)/time.Millisecond)))
			switch {
			case n > 0:
				err = nil
				return
			case perr != nil && !errors.Is(perr, unix.EINTR):
				err = perr
				return
			case !time.Now().Before(deadline):
				return
			}
		}
	})
	if cerr != nil {
		return nil // closed because it had ended
	}
	return err
}

// awaitEnd waits for the end without a limit; cancel, a pipe whose other end
// is closed, ends the wait with false. Meanwhile it calls starved when w tells
// that memory was not enough and the process lives on.
func (p *process) awaitEnd(cancel *os.File, w *oomWatch, starved func()) (ended bool) {
	const settle = 200         // ms in which the process ends if it was what the kernel ended
	_ = p.use(func(fd int32) { // it is ours to close
		fds := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}, {Fd: int32(cancel.Fd()), Events: unix.POLLIN}, w.poll()}
		for limit := -1; ; {
			n, err := unix.Poll(fds, limit)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if ended = fds[0].Revents != 0; ended || fds[1].Revents != 0 {
				return
			}
			switch more, err := false, error(nil); {
			case n == 0 && limit >= 0:
				limit = -1
				starved()
			case n > 0 && fds[2].Revents != 0:
				if more, err = w.more(); more {
					limit = settle
				} else if err != nil {
					fds[2].Fd = -1
				}
			}
		}
	})
	return ended
}

func (p *process) close() {
	if p != nil {
		p.fd.Close()
	}
}

// killAll ends what is still in a machine's control group.
func killAll(g group) {
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		pids := g.processes()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			// It may have ended meanwhile.
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
