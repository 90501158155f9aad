package send

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/filecopy"
)

// entry is something in a tree that is walked.
type entry struct {
	dir   int    // descriptor of its folder
	name  string // in its folder
	path  string // in the stream
	stat  unix.Stat_t
	after bool // a folder, for the second time: its contents are done
}

// target reads a link's target and checks it.
func (e entry) target() (string, error) {
	b := make([]byte, filecopy.MaxLink+1)
	n, err := unix.Readlinkat(e.dir, e.name, b)
	if err != nil {
		return "", fmt.Errorf("link %s: %w", e.path, err)
	}
	target := string(b[:n])
	if n > filecopy.MaxLink || filecopy.CheckLink(e.path, target, true) != nil {
		return "", fmt.Errorf("the link %s to %s cannot be copied: it could lead out of the folder that is sent", e.path, target)
	}
	return target, nil
}

func (e entry) open() (*os.File, error) {
	fd, err := openat(e.dir, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.path, err)
	}
	return os.NewFile(uintptr(fd), e.path), nil
}

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// walk visits all files, folders before and after their contents, by name.
// What cannot be sent is an error.
func (f *Files) walk(ctx context.Context, visit func(entry) error) error {
	for _, path := range f.paths {
		dir, err := openat(unix.AT_FDCWD, filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
		if err != nil {
			return &localError{&os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}}
		}
		name := filepath.Base(path)
		err = walk(ctx, entry{dir: dir, name: name, path: name}, visit)
		unix.Close(dir)
		if err != nil {
			return err
		}
	}
	return nil
}

func walk(ctx context.Context, e entry, visit func(entry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := unix.Fstatat(e.dir, e.name, &e.stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &localError{&os.PathError{Op: "stat", Path: e.path, Err: err}}
	}
	if len(e.path)+1 > filecopy.MaxName {
		return &localError{fmt.Errorf("the path that begins with %.40q is longer than %d bytes", e.path, filecopy.MaxName-1)}
	}
	switch e.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		return visit(e)
	case unix.S_IFDIR:
	default:
		return &localError{fmt.Errorf("%s is a device, a socket or a pipe, which cannot be copied", e.path)}
	}
	if err := visit(e); err != nil {
		return err
	}
	fd, err := openat(e.dir, e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return &localError{&os.PathError{Op: "open", Path: e.path, Err: err}}
	}
	f := os.NewFile(uintptr(fd), e.path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return &localError{err}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := walk(ctx, entry{dir: fd, name: name, path: e.path + "/" + name}, visit); err != nil {
			return err
		}
	}
	e.after = true
	return visit(e)
}
