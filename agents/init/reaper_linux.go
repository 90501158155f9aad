package pid1

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper collects the status of every process that ends: PID 1 inherits
// orphans, so nothing else in this process may wait for children.
type reaper struct {
	mu      sync.Mutex // guards started; held from a fork until it is noted
	started map[int]chan syscall.WaitStatus
}

func newReaper() *reaper {
	return &reaper{started: make(map[int]chan syscall.WaitStatus)}
}

// run collects until ctx ends.
func (r *reaper) run(ctx context.Context) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, unix.SIGCHLD)
	defer signal.Stop(sig)
	for {
		r.collect()
		select {
		case <-sig:
		case <-ctx.Done():
			return
		}
	}
}

// collect takes every status that waits and reports whether children remain.
func (r *reaper) collect() (remain bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return false // ECHILD
		case pid == 0:
			return true
		}
		if done, ok := r.started[pid]; ok {
			delete(r.started, pid)
			done <- ws
		}
	}
}

// child is a process that this program started.
type child struct {
	pid  int
	done <-chan syscall.WaitStatus // one status, when it has ended
}

// start runs a program; files become its descriptors 0, 1, 2, 3 ….
func (r *reaper) start(path string, argv, env []string, files []*os.File, attr *syscall.SysProcAttr) (child, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	dir := "/"
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{Dir: dir, Env: env, Files: fds, Sys: attr})
	if err != nil {
		return child{}, fmt.Errorf("start %s: %w", path, err)
	}
	done := make(chan syscall.WaitStatus, 1)
	r.started[pid] = done
	return child{pid, done}, nil
}

// describe says how a process ended.
func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "killed by " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}
