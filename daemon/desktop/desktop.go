// Package desktop runs a whole Cubicle desktop without systemd: what
// `cubicle up` and `cubicle down` do.
//
// Two processes share the work. Up runs as the desktop user and owns what
// belongs to the screen: X server and window manager where there are none,
// session bus, GUI daemon, Manager. System runs as root (through sudo where
// the user is not root) and owns the system's bus, qubesd, qrexecd and with
// them the qubes. System ends when its standard input does, so that nothing
// stays behind even when Up is killed.
package desktop

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
)

// files are the desktop's own files below the root.
type files struct{ root paths.Root }

func (f files) dir() string         { return f.root.Join("run/cubicle") }
func (f files) lock() string        { return f.root.Join("run/cubicle/system.lock") }
func (f files) user(uid int) string { return f.root.Join("run/cubicle", strconv.Itoa(uid)) }
func (f files) busConfig() string   { return f.root.Join("run/cubicle/system-bus.conf") }

// Screen is what Up must see of the X server. It is an interface because the
// X protocol belongs to the GUI's side of the house.
type Screen interface {
	// Windows lists the mapped top-level windows.
	Windows() ([]Window, error)
	// SavePNG writes a picture of the whole screen to the file at path.
	SavePNG(path string) error
	// SetBackground fills the root window with a quiet colour.
	SetBackground() error
	// Room is the part of the screen, in pixels, that no panel covers.
	Room() (image.Rectangle, error)
	// Move asks the window manager to place a window, as Windows returned
	// it, with what it draws around it.
	Move(w Window, place image.Rectangle) error
	Close()
}

// Window is a top-level window on the screen.
type Window struct {
	ID    uint32
	Qube  string // name of the qube that it belongs to; empty for dom0's own
	Class string // WM_CLASS's second part
	Drawn bool   // its content has more than one colour
}

// maxSocketPath is the longest path that a UNIX socket address holds.
const maxSocketPath = 107

// checkRoot refuses a root folder in which the system cannot work.
func checkRoot(root paths.Root) error {
	if bus := root.SystemBus(); len(bus) > maxSocketPath {
		return fmt.Errorf("the root folder's path is %d characters too long for the sockets in it: choose a shorter --root",
			len(bus)-maxSocketPath)
	}
	return nil
}

// lockSystem takes the lock that says "a system runs in this root" and
// writes the pid of the `cubicle up` process into it.
func lockSystem(f files, upPID int) (*os.File, error) {
	file, err := os.OpenFile(f.lock(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("a desktop already runs in %s; `cubicle down --root %s` ends it", f.root, f.root)
		}
		return nil, fmt.Errorf("lock %s: %w", f.lock(), err)
	}
	if err := file.Truncate(0); err != nil {
		file.Close()
		return nil, err
	}
	if _, err := fmt.Fprintf(file, "%d %s\n", upPID, startTime(upPID)); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// startTime is a process's start in clock ticks since boot, which together
// with its pid names it for ever; empty when there is no such process.
func startTime(pid int) string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	// The second field may hold spaces; the fields after its ')' do not.
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// locked reports whether a system holds the lock, and the pid of its
// `cubicle up`, 0 when that has ended.
func locked(f files) (held bool, upPID int, err error) {
	file, err := os.Open(f.lock())
	if errors.Is(err, os.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return false, 0, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return false, 0, fmt.Errorf("lock %s: %w", f.lock(), err)
	}
	var pid int
	var started string
	if _, err := fmt.Fscan(file, &pid, &started); err == nil && startTime(pid) == started {
		upPID = pid
	}
	return true, upPID, nil
}

// Down ends the desktop that runs in root and returns when nothing of it is
// left. Where its processes were killed and left something, cleanup removes
// that: it runs a System that stops at once.
func Down(ctx context.Context, root paths.Root, cleanup func(context.Context) error) error {
	if err := endUp(ctx, root); err != nil {
		return err
	}
	if err := awaitQubesd(ctx, root); err != nil {
		return err
	}
	note := filepath.Join(files{root}.user(os.Getuid()), displayNote)
	if err := os.Remove(note); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	left, err := remains(root)
	if err != nil || !left {
		return err
	}
	return cleanup(ctx)
}

// awaitQubesd waits while a qubesd lives in root: one whose System was killed
// is still busy shutting the qubes down.
func awaitQubesd(ctx context.Context, root paths.Root) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		held, err := isLocked(root.QubesdLock())
		if err != nil || !held {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the qubesd in %s has not ended: %w", root, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// isLocked reports whether somebody holds the lock on the file at path.
func isLocked(path string) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return false, nil // nobody's, or root's: then System asks again
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// remains tells whether processes that were killed left something.
func remains(root paths.Root) (bool, error) {
	for _, dir := range []string{root.Machines(), root.Join("run/qubes/runs")} {
		left, err := os.ReadDir(dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case errors.Is(err, os.ErrPermission):
			return true, nil // only root can tell
		case err != nil:
			return false, err
		}
		for _, e := range left {
			if e.IsDir() || strings.HasSuffix(e.Name(), ".json") {
				return true, nil
			}
		}
	}
	probes, err := filepath.Glob(filepath.Join(root.Run(), "probe-*"))
	if err != nil || len(probes) > 0 {
		return err == nil, err
	}
	for _, name := range sockets(root) {
		if _, err := os.Lstat(name); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// endUp ends `cubicle up` and waits until it and its System are gone.
func endUp(ctx context.Context, root paths.Root) error {
	f := files{root}
	held, pid, err := locked(f)
	if err != nil || !held {
		return err
	}
	started := startTime(pid) // before the signal: afterwards it may be gone
	if pid != 0 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end `cubicle up` (process %d): %w", pid, err)
		}
	}
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		held, _, err := locked(f)
		if err != nil {
			return err
		}
		if !held && (pid == 0 || startTime(pid) != started) {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("the desktop in %s has not ended: %w", root, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
