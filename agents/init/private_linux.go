package pid1

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/agents/session"
)

// privateDir is where the engine mounts the private volume.
const privateDir = "/rw"

// setUpPrivate lays out the private volume on its first use and shows its
// folders where programs look for them (upstream's layout of /rw).
func setUpPrivate(u session.User) error {
	var errs []error
	for _, dir := range []string{"config", "bind-dirs"} {
		errs = append(errs, os.MkdirAll(filepath.Join(privateDir, dir), 0o755))
	}
	errs = append(errs,
		layOut(filepath.Join(privateDir, "home"), func(dir string) error {
			return makeHome(filepath.Join(dir, u.Name), u)
		}),
		layOut(filepath.Join(privateDir, "usrlocal"), func(dir string) error {
			return copyTree("/usr/local", dir, 0, 0)
		}),
		place(filepath.Join(privateDir, "home"), "/home"),
		place(filepath.Join(privateDir, "usrlocal"), "/usr/local"),
		// The image may have renamed its user since the volume was made.
		ensureHome(u),
	)
	return errors.Join(errs...)
}

// layOut makes dir by fill, unless it is there. It appears whole or not at
// all, so that an interrupted first start is repeated.
func layOut(dir string, fill func(dir string) error) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return fmt.Errorf("lay out %s: %w", dir, err)
	}
	return os.Rename(tmp, dir)
}

func ensureHome(u session.User) error {
	if _, err := os.Stat(u.Home); err == nil {
		return nil
	}
	return makeHome(u.Home, u)
}

// makeHome makes a home folder from the image's skeleton.
func makeHome(dir string, u session.User) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Lchown(dir, int(u.UID), int(u.GID)); err != nil {
		return err
	}
	return copyTree("/etc/skel", dir, int(u.UID), int(u.GID))
}

// copyTree copies the content of the folder from into the folder to, all
// owned by uid and gid. Folders, files and symbolic links are copied; a
// missing source is an empty one.
func copyTree(from, to string, uid, gid int) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			err = os.Mkdir(target, info.Mode().Perm())
		case d.Type() == fs.ModeSymlink:
			var dest string
			if dest, err = os.Readlink(path); err == nil {
				err = os.Symlink(dest, target)
			}
		case d.Type().IsRegular():
			err = copyFile(path, target, info.Mode().Perm())
		default:
			return nil // a device or socket is no part of a skeleton
		}
		if err != nil {
			return err
		}
		return os.Lchown(target, uid, gid)
	})
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(from); statErr != nil {
			return nil
		}
	}
	return err
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// freeSpaceWarning logs when the private volume is not there or is full,
// which shows up otherwise as programs that do not start.
func freeSpaceWarning(log *slog.Logger) {
	var st unix.Statfs_t
	if err := unix.Statfs(privateDir, &st); err != nil {
		log.Warn("no private volume", "err", err)
		return
	}
	if st.Bavail == 0 {
		log.Warn("the private volume is full")
	}
}
