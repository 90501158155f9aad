package filecopy

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	wire "cubicle/daemon/qrexec/filecopy"
)

// tree is the folder that a stream unpacks into. Every component of a path is
// opened by itself and never through a link, so that no name leads outside,
// whatever the stream has put there before.
type tree struct {
	root int
	// open are folders on the way to the last one used, each an ancestor of
	// the next: trees come in order, and the next path is mostly near.
	open []folder

	noUnnamed bool // the file system has no unnamed files
}

type folder struct {
	path string
	fd   int
}

// maxOpen bounds the descriptors kept for folders: more than that, the
// topmost go, and are opened again from the root.
const maxOpen = 64

const folderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

func (t *tree) close() {
	for _, f := range t.open {
		unix.Close(f.fd)
	}
	t.open = nil
}

// folder returns the descriptor of the folder at path, which CheckPath has
// passed; "" is the root. It is good until the next call.
func (t *tree) folder(path string) (int, error) {
	for len(t.open) > 0 {
		top := t.open[len(t.open)-1].path
		if strings.HasPrefix(path, top) && (len(path) == len(top) || path[len(top)] == '/') {
			break
		}
		unix.Close(t.open[len(t.open)-1].fd)
		t.open = t.open[:len(t.open)-1]
	}
	fd, at := t.root, 0
	if n := len(t.open); n > 0 {
		fd, at = t.open[n-1].fd, len(t.open[n-1].path)
	}
	for at < len(path) {
		from := at
		if from > 0 {
			from++ // the slash
		}
		to := len(path)
		if i := strings.IndexByte(path[from:], '/'); i >= 0 {
			to = from + i
		}
		next, err := retry(func() (int, error) { return unix.Openat(fd, path[from:to], folderFlags, 0) })
		if errors.Is(err, unix.ELOOP) {
			err = unix.ENOTDIR // a link is none, whatever the kernel calls it
		}
		if err != nil {
			return -1, fmt.Errorf("folder %q: %w", path[:to], err)
		}
		if len(t.open) == maxOpen {
			unix.Close(t.open[0].fd)
			t.open = append(t.open[:0], t.open[1:]...)
		}
		t.open = append(t.open, folder{path[:to], next})
		fd, at = next, to
	}
	return fd, nil
}

// parent returns the folder of path's last component, and that component.
func (t *tree) parent(path string) (int, string, error) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	fd, err := t.folder(dir)
	return fd, name, err
}

// makeFolder makes the folder at path for its owner alone, or, when it is
// there, gives it its mode and times: folders come twice.
func (t *tree) makeFolder(path string, h wire.Header) error {
	dir, name, err := t.parent(path)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(dir, name, 0o700)
	if !errors.Is(err, unix.EEXIST) {
		return named("folder", path, err)
	}
	fd, err := t.folder(path)
	if err != nil {
		return err
	}
	return finish(fd, path, h)
}

// finish gives an open file its mode and times.
func finish(fd int, path string, h wire.Header) error {
	if err := unix.Fchmod(fd, h.Mode&wire.PermMask); err != nil {
		return named("mode of", path, err)
	}
	return named("times of", path, unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), times(h), 0))
}

func times(h wire.Header) []unix.Timespec {
	return []unix.Timespec{{Sec: int64(h.Atime.Sec), Nsec: int64(h.Atime.Nsec)}, {Sec: int64(h.Mtime.Sec), Nsec: int64(h.Mtime.Nsec)}}
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// makeLink makes a link whose target has been checked.
func (t *tree) makeLink(path, target string, h wire.Header) error {
	dir, name, err := t.parent(path)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(target, dir, name); err != nil {
		return named("link", path, err)
	}
	return named("times of", path, unix.UtimesNanoAt(dir, name, times(h), unix.AT_SYMLINK_NOFOLLOW))
}

// file is a file that is being received. It has its name only once it is
// whole, where the file system can do that.
type file struct {
	dir     int
	name    string
	path    string
	fd      int
	unnamed bool
}

// create begins the file at path, which must not exist.
func (t *tree) create(path string) (*file, error) {
	dir, name, err := t.parent(path)
	if err != nil {
		return nil, err
	}
	f := &file{dir: dir, name: name, path: path}
	if !t.noUnnamed {
		// What cannot succeed fails before its bytes have come.
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			return nil, named("file", path, unix.EEXIST)
		}
		f.fd, err = retry(func() (int, error) { return unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o700) })
		if err == nil {
			f.unnamed = true
			return f, nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
			return nil, named("file", path, err)
		}
		t.noUnnamed = true
	}
	f.fd, err = retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, named("file", path, err)
	}
	return f, nil
}

// Write writes all of b.
func (f *file) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := retry(func() (int, error) { return unix.Write(f.fd, b[done:]) })
		if err != nil {
			return done, named("file", f.path, err)
		}
		done += n
	}
	return done, nil
}

// commit gives the file its mode, its times and its name.
func (f *file) commit(h wire.Header) error {
	if err := finish(f.fd, f.path, h); err != nil {
		f.abandon()
		return err
	}
	if f.unnamed {
		if err := unix.Linkat(unix.AT_FDCWD, procPath(f.fd), f.dir, f.name, unix.AT_SYMLINK_FOLLOW); err != nil {
			unix.Close(f.fd)
			return named("file", f.path, err)
		}
	}
	return named("file", f.path, unix.Close(f.fd))
}

// abandon removes what has come of the file.
func (f *file) abandon() {
	if !f.unnamed {
		_ = unix.Unlinkat(f.dir, f.name, 0) // the error that led here is told
	}
	unix.Close(f.fd)
}

func named(what, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", what, path, err)
}

// retry repeats a call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
