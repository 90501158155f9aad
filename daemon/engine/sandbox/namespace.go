package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// inThread runs fn on a thread that is thrown away afterwards, so that fn may
// change the thread's mount namespace.
func inThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and would hold what it entered.
			// While it waits here, another goroutine is on another thread.
			defer runtime.UnlockOSThread()
			result <- inThread(fn)
			return
		}
		// Never unlocked: the thread ends with the goroutine.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			result <- fmt.Errorf("leave the shared working folder: %w", err)
			return
		}
		result <- fn()
	}()
	return <-result
}

// newNamespace puts the calling thread into a mount namespace of its own.
// Mounts made in it stay in it; unmounts of the host reach it, so that it
// keeps nothing of the host busy.
func newNamespace() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		if err == unix.EPERM {
			return nil, unusable("a mount namespace needs root: start qubesd as root")
		}
		return nil, fmt.Errorf("new mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	return os.Open("/proc/thread-self/ns/mnt")
}

// enter moves the calling thread into a mount namespace.
func enter(ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	return nil
}

// userNamespace returns a user namespace that maps RangeSize ids from 0 to
// those from base: what an idmapped mount is made with.
func userNamespace(base uint32) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(base), Size: RangeSize}}
	// Any program serves that waits until its standard input ends.
	cmd := exec.Command("/bin/cat")
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: ids,
		GidMappings: ids,
	}
	err = cmd.Start()
	r.Close()
	if err != nil {
		return nil, fmt.Errorf("new user namespace: %w", err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	w.Close()
	if werr := cmd.Wait(); err == nil && werr != nil {
		ns.Close()
		return nil, fmt.Errorf("new user namespace: %w", werr)
	}
	return ns, err
}

// hideout chooses the folder that a machine's mount namespace covers with the
// qube's mounts: one that every Linux has and that hides none of the paths
// that are needed in it. Its parents are open to all, which runtimes insist
// on, wherever the root folder lies.
func hideout(needed ...string) (string, error) {
	for _, dir := range []string{"/mnt", "/srv", "/media", "/opt"} {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() {
			continue
		}
		free := true
		for _, path := range needed {
			free = free && !below(path, dir)
		}
		if free {
			return dir, nil
		}
	}
	return "", unusable("none of the folders /mnt, /srv, /media and /opt can serve as a mount point: make /mnt")
}

func below(path, dir string) bool {
	return path == dir || len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}
