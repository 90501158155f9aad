package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/storage"
)

// noZeroing is the mount option that leaves unused inode tables as they are:
// zeroing them takes a kernel thread while the qube starts, and an image is
// sparse, so that they read as zeros already.
const noZeroing = "noinit_itable"

// mountImage makes a detached mount of the ext4 file system in a layer.
func mountImage(l storage.Layer, options ...string) (*os.File, *loopDevice, error) {
	if l.Foreign {
		return nil, nil, fmt.Errorf("%w: %s was written by a virtual machine or imported, and dom0's kernel reads no such file system", engine.ErrUnsupported, l.Path)
	}
	if l.Format != storage.Raw {
		return nil, nil, fmt.Errorf("%w: image format %q", engine.ErrUnsupported, l.Format)
	}
	loop, err := attach(l.Path, l.ReadOnly)
	if err != nil {
		return nil, nil, err
	}
	defer loop.close() // the mount holds the device from here on
	if l.ReadOnly {
		options = append(options, "ro")
	}
	fd, err := mountExt4(loop.path(), options)
	if err != nil && l.ReadOnly {
		// The image of a crashed machine has a journal to replay, which
		// cannot be done here: what is on disk without it has to do.
		fd, err = mountExt4(loop.path(), append(options, "noload"))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("mount %s: %w", l.Path, err)
	}
	return os.NewFile(uintptr(fd), l.Path), loop, nil
}

// mountExt4 mounts the file system on dev. An option is a flag or key=value.
func mountExt4(dev string, options []string) (int, error) {
	fsfd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		if errors.Is(err, unix.ENODEV) {
			return -1, unusable("dom0's kernel has no ext4: load the module with `modprobe ext4`")
		}
		return -1, err
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigSetString(fsfd, "source", dev); err != nil {
		return -1, err
	}
	attrs := unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME
	for _, o := range options {
		if o == "ro" {
			attrs |= unix.MOUNT_ATTR_RDONLY
		}
		if err := unix.FsconfigSetFlag(fsfd, o); err != nil {
			return -1, fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("%w%s", err, kernelSays(fsfd))
	}
	return unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
}

// kernelSays reads the kernel's own words about a failed mount.
func kernelSays(fsfd int) string {
	var b strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			return b.String()
		}
		fmt.Fprintf(&b, ": %s", strings.TrimSpace(string(buf[:n])))
	}
}

// idmap makes a detached mount show every id of the image moved up by the
// user namespace's map.
func idmap(mount, userNS *os.File) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userNS.Fd())}
	if err := unix.MountSetattr(int(mount.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			return unusable("dom0's kernel cannot move user ids on a mount: Linux 5.12 or newer is needed: %w", err)
		}
		return fmt.Errorf("idmapped mount: %w", err)
	}
	return nil
}

// place puts a detached mount on a folder of the calling thread's namespace,
// which is made.
func place(mount *os.File, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	return nil
}

// clone makes a detached copy of the mount at dir.
func cloneMount(dir string, flags uint) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return nil, fmt.Errorf("copy the mount of %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// fileID names a file whatever its path.
type fileID struct{ dev, ino uint64 }

// base is the mount of a read-only image that several qubes use. They share
// its page cache: what one app qube has read, the next finds in memory.
type base struct {
	ns   *os.File // the mount namespace that holds it
	dir  string   // where
	loop loopDevice
	refs int
}

// acquireBase returns the shared mount of a read-only image.
func (e *Engine) acquireBase(l storage.Layer, dir string) (fileID, *base, error) {
	var st unix.Stat_t
	if err := unix.Stat(l.Path, &st); err != nil {
		return fileID{}, nil, fmt.Errorf("%s: %w", l.Path, err)
	}
	id := fileID{st.Dev, st.Ino}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.bases[id]; b != nil {
		b.refs++
		return id, b, nil
	}
	b := &base{dir: dir, refs: 1}
	err := inThread(func() error {
		ns, err := newNamespace()
		if err != nil {
			return err
		}
		mount, loop, err := mountImage(l)
		if err != nil {
			ns.Close()
			return err
		}
		defer mount.Close()
		if err := place(mount, dir); err != nil {
			ns.Close()
			return err
		}
		b.ns, b.loop = ns, *loop
		return nil
	})
	if err != nil {
		return fileID{}, nil, err
	}
	e.bases[id] = b
	return id, b, nil
}

// releaseBase gives the mount back; the last one gets its loop device to wait
// for.
func (e *Engine) releaseBase(id fileID) (last []loopDevice) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.bases[id]
	if b == nil {
		return nil
	}
	if b.refs--; b.refs > 0 {
		return nil
	}
	delete(e.bases, id)
	b.ns.Close()
	return []loopDevice{b.loop}
}
