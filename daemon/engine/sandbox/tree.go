package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/storage"
)

// Where things lie below the hideout of a machine's mount namespace.
const (
	treeRoot  = "root"
	treeRW    = "rw"
	treeAgent = "agent"
	treeLink  = "link"
	treeLower = "lower"
	treeUpper = "upper"
)

// tree is what the mount namespace of a machine is made from and holds.
type tree struct {
	ns      *os.File
	hideout string
	loops   []loopDevice // this machine's own
	base    *fileID      // the shared image below, if any
	below   *loopDevice  // that holds it
}

// newTree makes the mount namespace of a machine whose ids begin at base.
func (e *Engine) newTree(m engine.Machine, ids uint32) (t *tree, err error) {
	hide, err := hideout(string(e.options.Root), e.options.Binary, e.dir(m.UUID))
	if err != nil {
		return nil, err
	}
	t = &tree{hideout: hide}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.dropTree(t))
		}
	}()
	var shared *base
	if m.Root.Overlay != nil {
		id, b, err := e.acquireBase(m.Root.Base, hide)
		if err != nil {
			return t, err
		}
		t.base, t.below, shared = &id, &b.loop, b
	}
	userNS, err := e.idmapOf(ids)
	if err != nil {
		return t, err
	}
	return t, inThread(func() error { return t.build(m, ids, userNS, shared, e.options.Runtime) })
}

// idmapOf returns the user namespace that moves ids, which is the engine's to
// close. It is kept for the qube's next run: making one takes a process.
func (e *Engine) idmapOf(ids uint32) (*os.File, error) {
	e.mu.Lock()
	ns := e.idmaps[ids]
	e.mu.Unlock()
	if ns != nil {
		return ns, nil
	}
	ns, err := userNamespace(ids)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		ns.Close()
		return nil, errClosed
	}
	e.idmaps[ids] = ns
	return ns, nil
}

// build runs on a thread of its own.
func (t *tree) build(m engine.Machine, ids uint32, userNS *os.File, shared *base, runtime string) error {
	// Taken first: agent and link may lie below what the hideout covers.
	agent, err := cloneMount(m.AgentDir, 0)
	if err != nil {
		return err
	}
	defer agent.Close()
	link, err := cloneMount(m.LinkDir, 0)
	if err != nil {
		return err
	}
	defer link.Close()

	var lower *os.File
	if shared != nil {
		if lower, err = shared.copy(); err != nil {
			return err
		}
		defer lower.Close()
	}
	if t.ns, err = newNamespace(); err != nil {
		return err
	}
	if err := unix.Mount("cubicle", t.hideout, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount on %s: %w", t.hideout, err)
	}
	if lower != nil {
		err = t.overlay(lower, *m.Root.Overlay, ids, userNS)
	} else {
		err = t.image(m.Root.Base, treeRoot, userNS, "discard", noZeroing)
	}
	if err != nil {
		return fmt.Errorf("root volume: %w", err)
	}
	if m.Private.Base.Path != "" {
		if m.Private.Overlay != nil {
			return fmt.Errorf("private volume: %w: an overlay", engine.ErrUnsupported)
		}
		if err := t.image(m.Private.Base, treeRW, userNS, "discard", noZeroing); err != nil {
			return fmt.Errorf("private volume: %w", err)
		}
	}
	for name, mount := range map[string]*os.File{treeAgent: agent, treeLink: link} {
		if err := place(mount, filepath.Join(t.hideout, name)); err != nil {
			return err
		}
	}
	if runtime == Crun {
		return suitCrun()
	}
	return nil
}

// copy makes a detached copy of the shared mount. The calling thread is then
// in the mount namespace of the rest of the process again.
func (b *base) copy() (*os.File, error) {
	home, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := enter(b.ns); err != nil {
		return nil, err
	}
	mount, err := cloneMount(b.dir, 0)
	if err != nil {
		return nil, errors.Join(err, enter(home))
	}
	return mount, enter(home)
}

// image mounts a layer with the qube's ids.
func (t *tree) image(l storage.Layer, name string, userNS *os.File, options ...string) error {
	mount, loop, err := mountImage(l, options...)
	if err != nil {
		return err
	}
	defer mount.Close()
	t.loops = append(t.loops, *loop)
	if err := idmap(mount, userNS); err != nil {
		return err
	}
	return place(mount, filepath.Join(t.hideout, name))
}

// overlay joins a read-only file system and the layer that takes the writes.
// That layer keeps the host's ids of the qube: an idmapped one would make the
// overlay read-only.
func (t *tree) overlay(lower *os.File, over storage.Layer, ids uint32, userNS *os.File) error {
	if err := idmap(lower, userNS); err != nil {
		return err
	}
	lowerDir, upperDir, rootDir := filepath.Join(t.hideout, treeLower), filepath.Join(t.hideout, treeUpper), filepath.Join(t.hideout, treeRoot)
	if err := place(lower, lowerDir); err != nil {
		return err
	}
	mount, loop, err := mountImage(over, noZeroing)
	if err != nil {
		return err
	}
	defer mount.Close()
	t.loops = append(t.loops, *loop)
	if err := place(mount, upperDir); err != nil {
		return err
	}
	upper, work := filepath.Join(upperDir, "upper"), filepath.Join(upperDir, "work")
	// A run that was prepared twice, or went on after a crash, finds them.
	if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
		return err
	}
	for _, dir := range []string{upper, work, rootDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chown(upper, int(ids), int(ids)), os.Chown(work, int(ids), int(ids))); err != nil {
		return err
	}
	// volatile: what is gone after the run needs no syncing.
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", lowerDir, upper, work)
	if err := unix.Mount("overlay", rootDir, "overlay", unix.MS_NODEV|unix.MS_NOATIME, data); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return unusable("dom0's kernel has no overlay file system: load the module with `modprobe overlay`")
		}
		return fmt.Errorf("overlay: %w", err)
	}
	// The overlay holds both by itself.
	return errors.Join(unix.Unmount(upperDir, unix.MNT_DETACH), unix.Unmount(lowerDir, unix.MNT_DETACH))
}

// dropTree gives everything of a tree back whose processes are gone, and waits
// for the kernel to finish.
func (e *Engine) dropTree(t *tree) error {
	if t.ns != nil {
		t.ns.Close()
		t.ns = nil
	}
	loops := t.loops
	switch {
	case t.base != nil:
		loops = append(loops, e.releaseBase(*t.base)...)
		t.base = nil
	case t.below != nil && !e.uses(*t.below):
		loops = append(loops, *t.below) // of a machine that was found running
	}
	return awaitFree(loops, releaseLimit)
}

// uses tells whether a machine that we know stands on the image in l.
func (e *Engine) uses(l loopDevice) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.machines {
		if m.tree != nil && m.tree.below != nil && m.tree.below.Number == l.Number {
			return true
		}
	}
	return false
}
