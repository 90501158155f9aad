package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Control groups. Each machine has the group /cubicle/UUID, made by us, and
// below it "qube", which the runtime makes and removes. Ours carries the
// memory limit as well and outlives the runtime's, so that after the end we
// can still see whether the kernel killed for memory.
const (
	cgroupParent = "cubicle"
	cgroupChild  = "qube"
)

// controllers is where the kernel's controllers are mounted: version 1 has a
// folder for each, version 2 one for all.
type controllers struct {
	v2      bool
	folders map[string]string // controller → mount point; v2: "" → mount point
	// others are mounted as well: we leave them alone, but runtimes make
	// groups there too.
	others []string
}

// wanted are the controllers that we use of version 1.
var wanted = []string{"memory", "pids", "cpu", "cpuacct", "freezer"}

// findControllers looks at what is mounted. A hybrid system counts as version
// 1. No writable controller at all gives an empty result.
func findControllers() (controllers, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return controllers{}, err
	}
	defer f.Close()
	c, err := parseControllers(bufio.NewScanner(f), func(dir string) bool { return unix.Access(dir, unix.W_OK) == nil })
	if err == nil && c.v2 && !complete(c.folders[""]) {
		clear(c.folders)
		c.v2 = false
	}
	return c, err
}

// complete tells whether version 2 at dir has the controllers that runtimes
// insist on. A part of a hybrid system that is shown alone has none.
func complete(dir string) bool {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return false
	}
	for _, name := range []string{"memory", "pids", "cpu"} {
		if !slices.Contains(strings.Fields(string(has)), name) {
			return false
		}
	}
	return true
}

func parseControllers(lines *bufio.Scanner, writable func(string) bool) (controllers, error) {
	c := controllers{folders: make(map[string]string)}
	mount2 := ""
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(kind) < 3 || fields[3] != "/" || readOnly(fields[5]) || readOnly(kind[2]) || !writable(fields[4]) {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			mount2 = fields[4]
		case "cgroup":
			c.others = append(c.others, fields[4])
			for _, option := range strings.Split(kind[2], ",") {
				if slices.Contains(wanted, option) {
					c.folders[option] = fields[4]
				}
			}
		}
	}
	if len(c.folders) == 0 && mount2 != "" && mount2 != unified {
		c.v2 = true
		c.folders[""] = mount2
	} else if mount2 != "" {
		c.others = append(c.others, mount2) // runsc's, when it is killed
	}
	return c, lines.Err()
}

func readOnly(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }

func (c controllers) none() bool { return len(c.folders) == 0 }

// cgroupRoot is where runtimes look for control groups.
const cgroupRoot = "/sys/fs/cgroup"

// unified is where a hybrid system has version 2 beside version 1.
const unified = cgroupRoot + "/unified"

// fsType is the magic number of the file system at dir, 0 if there is none.
func fsType(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Type)
}

// suitCrun makes the calling thread's mount namespace one that crun runs in:
// it refuses a hybrid system, and one without any control groups.
func suitCrun() error {
	for fsType(unified) == unix.CGROUP2_SUPER_MAGIC {
		if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("hide %s from crun: %w", unified, err)
		}
	}
	if t := fsType(cgroupRoot); t == unix.CGROUP2_SUPER_MAGIC || t == unix.TMPFS_MAGIC {
		return nil
	}
	if err := unix.Mount("cubicle", cgroupRoot, "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
		return fmt.Errorf("give crun a %s: %w", cgroupRoot, err)
	}
	return nil
}

// group is a machine's control group.
type group struct {
	controllers
	uuid string
}

// path is what the bundle calls the runtime's group.
func (g group) path() string {
	if g.none() {
		return ""
	}
	return "/" + filepath.Join(cgroupParent, g.uuid, cgroupChild)
}

// file names a control file of our group; "" when the controller is missing.
func (g group) file(controller, name string) string {
	if g.v2 {
		controller = ""
	}
	dir, ok := g.folders[controller]
	if !ok {
		return ""
	}
	return filepath.Join(dir, cgroupParent, g.uuid, name)
}

// slack is what our group allows less than the runtime's, in version 1: the
// limit that is hit, and that tells of it, is then ours.
const slack = 64 << 10

// create makes the group with a memory limit in bytes.
func (g group) create(memory int64) error {
	for controller, dir := range g.folders {
		if g.v2 {
			for _, d := range []string{dir, filepath.Join(dir, cgroupParent)} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					return err
				}
				if err := enableControllers(d); err != nil {
					return err
				}
			}
		}
		own := filepath.Join(dir, cgroupParent, g.uuid)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		if controller == "memory" {
			memory -= slack
		}
	}
	limit := g.file("memory", "memory.limit_in_bytes")
	if g.v2 {
		if err := enableControllers(filepath.Dir(g.file("", "x"))); err != nil {
			return err
		}
		limit = g.file("", "memory.max")
	}
	if limit == "" {
		return nil
	}
	err := os.WriteFile(limit, []byte(strconv.FormatInt(memory, 10)), 0o644)
	if g.v2 && (errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)) {
		// Version 2 has no file where the kernel has no such controller.
		if _, serr := os.Stat(limit); errors.Is(serr, fs.ErrNotExist) {
			return nil
		}
	}
	return err
}

// enableControllers passes the controllers on to the groups below dir.
func enableControllers(dir string) error {
	for _, name := range []string{"memory", "pids", "cpu"} {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0o644)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // not in this kernel
			return unusable("control groups: the controller %s cannot be used: %w", name, err)
		}
	}
	return nil
}

// processes lists the processes in the group and below.
func (g group) processes() []int {
	var pids []int
	seen := make(map[int]bool)
	for _, dir := range g.folders {
		own := filepath.Join(dir, cgroupParent, g.uuid)
		// A group that goes away meanwhile has no processes.
		_ = filepath.WalkDir(own, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return nil
			}
			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil
			}
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// remove deletes the group with what is below it. Its processes are gone.
func (g group) remove(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	folders := slices.Collect(maps.Values(g.folders))
	for _, dir := range append(folders, g.others...) {
		for {
			err := removeTree(filepath.Join(dir, cgroupParent, g.uuid))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("control group: %w", err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		// Gone with the last machine; busy while there are others.
		_ = unix.Rmdir(filepath.Join(dir, cgroupParent))
	}
	return nil
}

// removeTree removes a folder of control groups, innermost first.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// freeze stops or thaws every process of the group, and waits until it did.
func (g group) freeze(frozen bool) error {
	file, words := g.file("freezer", "freezer.state"), map[bool]string{true: "FROZEN", false: "THAWED"}
	if g.v2 {
		file, words = g.file("", "cgroup.freeze"), map[bool]string{true: "1", false: "0"}
	}
	if file == "" {
		return errNoFreezer
	}
	if err := os.WriteFile(file, []byte(words[frozen]), 0o644); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		now, err := g.frozen()
		if err != nil || now == frozen {
			return err
		}
	}
	return errors.New("the processes did not stop in time")
}

var errNoFreezer = errors.New("this machine has no control group that can freeze processes")

func (g group) frozen() (bool, error) {
	if g.v2 {
		data, err := os.ReadFile(g.file("", "cgroup.events"))
		return strings.Contains(string(data), "frozen 1"), err
	}
	file := g.file("freezer", "freezer.state")
	if file == "" {
		return false, nil
	}
	data, err := os.ReadFile(file)
	return strings.TrimSpace(string(data)) == "FROZEN", err
}
