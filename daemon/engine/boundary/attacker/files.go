package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/boundary"
	"cubicle/daemon/paths"
)

var files = map[string]func(*boundary.Target) error{
	"read dom0's files":                              func(t *boundary.Target) error { return openAny(t, "") },
	"dom0's files through /proc/1/root":              throughProc,
	"leave a chroot":                                 leaveChroot,
	"leave by an inherited folder":                   leaveByFolder,
	"file handles":                                   fileHandles,
	"write to the agent's folder":                    func(*boundary.Target) error { return writeInto(engine.AgentDir) },
	"write to the agent's program":                   writeAgent,
	"replace the link's socket":                      replaceSocket,
	"raw block devices":                              blockDevices,
	"write to /proc/sys":                             writeProcSys,
	"write to /sys":                                  writeSys,
	"dom0's interrupts and disks":                    seeInterrupts,
	"dom0's load and hardware":                       seeLoad,
	"kernel addresses":                               kernelAddresses,
	"control groups":                                 controlGroups,
	"cut off the pixel region":                       cutRegion,
	"write to the pixel region of an ended session":  writeEndedRegion,
	"device nodes of memory, KVM, loop and consoles": deviceNodes,
	"FUSE and TUN": func(*boundary.Target) error {
		if err := openDevice("/dev/fuse", unix.S_IFCHR, 10, 229); err == nil {
			return nil
		}
		return openDevice("/dev/net/tun", unix.S_IFCHR, 10, 200)
	},
}

// tryEach tries one after the other until one succeeds.
func tryEach[T any](list []T, try func(T) error) error {
	err := errors.New("there is nothing to try")
	for _, x := range list {
		if err = try(x); err == nil {
			fmt.Printf("%v got through\n", x)
			return nil
		}
	}
	return err
}

// openAny reads dom0's files below a prefix; the one with the secret counts
// by its text, the others by opening.
func openAny(t *boundary.Target, prefix string) error {
	return tryEach(t.Files, func(name string) error {
		f, err := os.Open(prefix + name)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

func throughProc(t *boundary.Target) error {
	return tryEach([]string{"/proc/1/root", "/proc/1/cwd/", "/proc/self/root", "/proc/1/task/1/root", "/proc/1/map_files/../root"}, func(p string) error { return openAny(t, p) })
}

// leaveChroot is the walk past a root folder that moved below us.
func leaveChroot(t *boundary.Target) error {
	dir, err := os.MkdirTemp("", "chroot")
	if err != nil {
		return err
	}
	defer os.Remove(dir) // by its name from outside, where the walk ends
	up, err := os.Open("/")
	if err != nil {
		return err
	}
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	if err := unix.Fchdir(int(up.Fd())); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return openAny(t, "")
}

func leaveByFolder(t *boundary.Target) error {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return err
	}
	cwds, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return err
	}
	return tryEach(append(fds, cwds...), func(fd string) error {
		return openAny(t, fd+strings.Repeat("/..", 20))
	})
}

func fileHandles(t *boundary.Target) error {
	return tryEach([]string{"/", "/rw", engine.AgentDir, engine.AgentLinkDir, "/proc"}, func(dir string) error {
		at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		return tryEach([]uint64{t.Inode, 2}, func(inode uint64) error {
			handle := binary.LittleEndian.AppendUint32(nil, uint32(inode)) // ext4: inode and generation
			handle = binary.LittleEndian.AppendUint32(handle, 0)
			fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(1, handle), unix.O_RDONLY)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	})
}

// writable makes a mount of dom0's writable, as far as the kernel lets us.
func writable(dir string) {
	for _, flags := range []uintptr{unix.MS_REMOUNT | unix.MS_BIND, unix.MS_REMOUNT} {
		// Refused is what we expect.
		_ = unix.Mount("", dir, "", flags, "")
	}
}

func writeInto(dir string) error {
	writable(dir)
	return tryEach([]string{dir, throughBind(dir)}, func(dir string) error {
		return tryEach([]string{"file", "mode", "owner", "attribute"}, func(what string) error {
			switch what {
			case "file":
				return os.WriteFile(filepath.Join(dir, "attacker"), nil, 0o755)
			case "mode":
				return changeMode(dir, 0o777)
			case "owner":
				return changeOwner(dir, 1000)
			}
			return unix.Setxattr(dir, "user.attacker", []byte("x"), 0)
		})
	})
}

// changeMode also looks whether the mode changed: gVisor says yes to a change
// of a read-only file system that never takes place.
func changeMode(name string, mode os.FileMode) error {
	if err := os.Chmod(name, mode); err != nil {
		return err
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
		return errors.New("the mode stays")
	}
	return nil
}

func changeOwner(name string, id int) error {
	if err := os.Chown(name, id, id); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || int(st.Uid) != id {
		return errors.New("the owner stays")
	}
	return nil
}

// throughBind shows dir at another place, where its read-only flag may be
// forgotten.
func throughBind(dir string) string {
	at, err := os.MkdirTemp("/tmp", "bind")
	if err != nil {
		return dir
	}
	if unix.Mount(dir, at, "", unix.MS_BIND, "") != nil {
		return dir
	}
	writable(at)
	return at
}

func writeAgent(*boundary.Target) error {
	writable(engine.AgentDir)
	return tryEach([]string{filepath.Join(engine.AgentDir, engine.AgentBinary), "/proc/1/exe"}, func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

func replaceSocket(*boundary.Target) error {
	socket := filepath.Join(engine.AgentLinkDir, paths.LinkSocket)
	if err := writeInto(engine.AgentLinkDir); err == nil {
		return nil
	}
	return tryEach([]error{changeMode(socket, 0o600), os.Rename(socket, socket+"~"), os.Remove(socket)}, func(err error) error { return err })
}

// openDevice opens a device by its name or by a node that we make.
func openDevice(name string, kind uint32, major, minor uint32) error {
	try := func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		return unix.Close(fd)
	}
	if name != "" {
		if err := try(name); err == nil {
			return nil
		}
	}
	return tryEach([]string{"/dev", "/rw", "/tmp", "/home/user", "/var/tmp"}, func(dir string) error {
		path := filepath.Join(dir, fmt.Sprintf("node%d-%d", major, minor))
		if err := unix.Mknod(path, kind|0o666, int(unix.Mkdev(major, minor))); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
		defer os.Remove(path)
		return try(path)
	})
}

func blockDevices(*boundary.Target) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	devices := [][2]uint32{{7, 0}, {8, 0}, {253, 0}, {254, 0}, {259, 0}}
	for line := range strings.Lines(string(data)) {
		var major, minor uint32
		fields := strings.Fields(line)
		if len(fields) > 2 {
			if n, _ := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); n == 2 && major != 0 {
				devices = append(devices, [2]uint32{major, minor})
			}
		}
	}
	return tryEach(devices, func(d [2]uint32) error { return openDevice("", unix.S_IFBLK, d[0], d[1]) })
}

func deviceNodes(*boundary.Target) error {
	return tryEach([]struct {
		name         string
		major, minor uint32
	}{
		{"/dev/mem", 1, 1}, {"/dev/kmem", 1, 2}, {"/dev/port", 1, 4}, {"/dev/kmsg", 1, 11}, {"/dev/kvm", 10, 232},
		{"/dev/loop-control", 10, 237}, {"/dev/vhost-net", 10, 238}, {"/dev/vsock", 10, 121}, {"/dev/uinput", 10, 223},
		{"/dev/tty0", 4, 0}, {"/dev/console", 5, 1}, {"/dev/input/event0", 13, 64}, {"/dev/dri/card0", 226, 0}, {"/dev/fb0", 29, 0},
	}, func(d struct {
		name         string
		major, minor uint32
	}) error {
		return openDevice(d.name, unix.S_IFCHR, d.major, d.minor)
	})
}

// rewrite writes to a setting what is in it already.
func rewrite(path string) error {
	value, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes.TrimSpace(value), 0)
}

func writeProcSys(*boundary.Target) error {
	writable("/proc/sys")
	return tryEach([]string{"/proc/sys", throughBind("/proc/sys")}, func(dir string) error {
		return tryEach([]string{"kernel/core_pattern", "kernel/modprobe", "kernel/sysrq", "kernel/panic", "kernel/randomize_va_space",
			"vm/overcommit_memory", "vm/mmap_min_addr", "fs/file-max", "fs/suid_dumpable", "fs/protected_symlinks"},
			func(name string) error { return rewrite(filepath.Join(dir, name)) })
	})
}

func writeSys(*boundary.Target) error {
	writable("/sys")
	return tryEach([]string{"/sys", throughBind("/sys")}, func(dir string) error {
		return tryEach([]string{"kernel/uevent_helper", "kernel/mm/transparent_hugepage/enabled", "kernel/mm/ksm/run", "power/state",
			"module/printk/parameters/time", "devices/virtual/bdi/7:0/max_ratio", "block/loop0/queue/read_ahead_kb", "devices/system/cpu/cpu1/online"},
			func(name string) error { return rewrite(filepath.Join(dir, name)) })
	})
}

// seeInterrupts looks at counters, also below what may be mounted over them.
func seeInterrupts(t *boundary.Target) error {
	dirs := []string{"/proc"}
	if !t.Control {
		for _, name := range []string{"/proc/interrupts", "/proc/softirqs", "/proc/diskstats"} {
			// Refused is what we expect.
			_ = unix.Unmount(name, unix.MNT_DETACH)
		}
		dirs = append(dirs, throughBind("/proc"))
	}
	return tryEach(dirs, func(dir string) error {
		return tryEach([]string{"interrupts", "softirqs", "diskstats"}, func(name string) error {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil && len(data) == 0 {
				err = errors.New("it is empty")
			}
			return err
		})
	})
}

// seeLoad looks for the processes that the whole machine has ever started.
func seeLoad(*boundary.Target) error {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "processes" && f[1] != "0" {
			return nil
		}
	}
	return errors.New("it tells of no process")
}

func kernelAddresses(*boundary.Target) error {
	data, err := os.ReadFile("/proc/kallsyms")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if address, _, ok := strings.Cut(line, " "); ok && strings.Trim(address, "0") != "" {
				return nil
			}
		}
		err = errors.New("all addresses are 0")
	}
	// Folders above may hide what another view shows.
	return errors.Join(err, tryEach([]string{"/proc/kcore", throughBind("/proc") + "/kcore", "/proc/vmallocinfo", "/proc/slabinfo"}, func(name string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(make([]byte, 64))
		return err
	}))
}

func controlGroups(*boundary.Target) error {
	const root = "/sys/fs/cgroup"
	writable(root)
	dir, err := os.MkdirTemp("", "cgroup")
	if err != nil {
		return err
	}
	for _, option := range []string{"memory", "rdma", "misc", "none,name=attacker"} {
		if unix.Mount("cgroup", dir, "cgroup", 0, option) == nil {
			return nil
		}
	}
	if unix.Mount("cgroup2", dir, "cgroup2", 0, "") == nil {
		return nil
	}
	var found []string
	for _, pattern := range []string{root + "/*", root + "/*/*", root + "/*/*/*"} {
		list, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		found = append(found, list...)
	}
	return tryEach(found, func(name string) error {
		if info, err := os.Lstat(name); err != nil || info.IsDir() {
			if err == nil {
				err = os.Mkdir(filepath.Join(name, "attacker"), 0o755)
			}
			return err
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// region is an open pixel region, and who else has it.
type region struct {
	fd    int
	size  int64
	inode uint64
	owner int // process
}

// regions opens every pixel region that is in sight, as root can in our agent.
func regions() (found []region, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil, err
	}
	err = errors.New("there is no region in sight")
	for _, name := range all {
		to, linkErr := os.Readlink(name)
		if linkErr != nil || !strings.Contains(to, "memfd:") {
			continue
		}
		fd, openErr := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if openErr != nil {
			err = openErr
			continue
		}
		info := unix.Stat_t{}
		if unix.Fstat(fd, &info) != nil || info.Size < 1<<20 {
			unix.Close(fd)
			continue
		}
		owner, _ := strconv.Atoi(strings.Split(name, "/")[2]) // the pattern has a number there
		found = append(found, region{fd, info.Size, info.Ino, owner})
	}
	if len(found) > 0 {
		err = nil
	}
	return found, err
}

func closeRegions(all []region) {
	for _, r := range all {
		unix.Close(r.fd)
	}
}

// cutRegion takes the pixel region from our agent.
func cutRegion(*boundary.Target) error {
	all, err := regions()
	if err != nil {
		return err
	}
	defer closeRegions(all)
	for _, r := range all {
		if err = unix.Ftruncate(r.fd, 4096); err != nil {
			err = unix.Ftruncate(r.fd, 2*r.size)
		}
		if err != nil {
			_, err = unix.FcntlInt(uintptr(r.fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE)
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("the region: %w", err)
}

// agents leaves the regions that a GUI agent has open; the others are closed.
func agents(all []region) []region {
	return slices.DeleteFunc(all, func(r region) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.owner))
		other := err != nil || !strings.Contains(string(line), "\x00gui\x00")
		if other {
			unix.Close(r.fd)
		}
		return other
	})
}

// writeEndedRegion keeps the region of our agent's session, ends that session,
// and looks for what it then writes in the region of the next.
func writeEndedRegion(*boundary.Target) error {
	all, err := regions()
	if err != nil {
		return err
	}
	old := agents(all)
	defer closeRegions(old)
	if len(old) == 0 {
		return errors.New("the GUI agent has no region")
	}
	if err := unix.Kill(old[0].owner, unix.SIGKILL); err != nil {
		return err
	}
	for deadline := time.Now().Add(limit / 2); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all, err := regions()
		if err != nil {
			continue // the agent is still starting again
		}
		now := agents(all)
		defer closeRegions(now)
		if len(now) == 0 || now[0].owner == old[0].owner {
			continue
		}
		if now[0].inode == old[0].inode {
			return nil
		}
		// Far behind what windows need, so that no picture hides it.
		mark, at := []byte("written by who has left"), min(old[0].size, now[0].size)-4096
		if _, err := unix.Pwrite(old[0].fd, mark, at); err != nil {
			return err
		}
		got := make([]byte, len(mark))
		if _, err := unix.Pread(now[0].fd, got, at); err != nil {
			return err
		}
		if string(got) == string(mark) {
			return nil
		}
		return errors.New("the next session has a region of its own")
	}
	return errors.New("no session follows")
}
