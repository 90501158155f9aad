package pid1

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is a file system that a qube needs.
type mount struct {
	fstype, target string
	flags          uintptr
	data           string
}

// mounts are made where the engine has not made them.
var mounts = [...]mount{
	{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY, ""},
	{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
}

// mountMissing makes the mounts that are not there. A sandbox may forbid
// some of them: each failure is logged, and the qube starts all the same.
func mountMissing(log *slog.Logger) {
	points := mountPoints()
	for _, m := range mounts {
		if isMounted(points, m.target) {
			continue
		}
		err := os.MkdirAll(m.target, 0o755)
		if err == nil {
			err = unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data)
		}
		if err != nil {
			log.Warn("mount failed", "what", m.target, "type", m.fstype, "err", err)
			continue
		}
		log.Info("mounted", "what", m.target, "type", m.fstype)
	}
}

// isMounted tells whether target is a mount point, or hides one: a mount over
// /run would hide the engine's /run/cubicle.
func isMounted(points []string, target string) bool {
	return slices.ContainsFunc(points, func(p string) bool {
		return p == target || strings.HasPrefix(p, target+"/")
	})
}

// mountPoints lists the mount points, or nothing without /proc.
func mountPoints() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return parseMountInfo(string(b))
}

// parseMountInfo reads the fifth field of each line of proc_pid_mountinfo(5).
func parseMountInfo(text string) []string {
	var points []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 {
			points = append(points, unescape(f[4]))
		}
	}
	return points
}

// unescape undoes the kernel's \ooo for blanks, tabs, line breaks and
// backslashes.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || len(s) < i+4 {
			b.WriteString(s)
			return b.String()
		}
		n, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			b.WriteString(s[:i+1])
			s = s[i+1:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteByte(byte(n))
		s = s[i+4:]
	}
}

// place shows the folder source at target: by a bind mount, or where the
// sandbox forbids that, by a symbolic link in target's place.
func place(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	bindErr := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
	if bindErr == nil {
		return nil
	}
	if dest, err := os.Readlink(target); err == nil && dest == source {
		return nil
	}
	if err := os.Remove(target); err != nil {
		// Not empty: keep what the image has beside it.
		if err := os.Rename(target, target+".image"); err != nil {
			return fmt.Errorf("show %s at %s: bind mount: %w; moving aside: %w", source, target, bindErr, err)
		}
	}
	if err := os.Symlink(source, target); err != nil {
		return fmt.Errorf("show %s at %s: bind mount: %w; link: %w", source, target, bindErr, err)
	}
	return nil
}

// unmountAll writes everything to disk and unmounts, deepest first; what is
// busy is made read-only. Errors are expected (the engine's own mounts may
// not be touched by us): whatever is left ends with the mount namespace.
func unmountAll(log *slog.Logger) {
	unix.Sync()
	points := mountPoints()
	slices.SortFunc(points, func(a, b string) int { return len(b) - len(a) })
	for _, p := range points {
		if !isVolume(p) {
			continue
		}
		err := unix.Unmount(p, 0)
		if err == nil {
			continue
		}
		roErr := unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
		if roErr != nil {
			log.Debug("left mounted", "what", p, "err", errors.Join(err, roErr))
		}
	}
	unix.Sync()
}

// isVolume tells the mounts that hold the user's data.
func isVolume(point string) bool {
	for _, v := range []string{privateDir, "/home", "/usr/local"} {
		if point == v || strings.HasPrefix(point, v+string(filepath.Separator)) {
			return true
		}
	}
	return false
}
