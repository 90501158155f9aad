package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

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
	bases   []fileID     // shared images below overlays, which we have acquired
	below   []loopDevice // that hold those images
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
	own := openImages(m)
	defer func() { t.loops = append(t.loops, own.close()...) }()
	var shared [2]*base // of root and private volume
	for i, v := range []storage.Attachment{m.Root, m.Private} {
		if v.Overlay == nil {
			continue
		}
		id, b, err := e.acquireBase(v.Base, hide)
		if err != nil {
			return t, err
		}
		t.bases, t.below, shared[i] = append(t.bases, id), append(t.below, b.loop), b
	}
	userNS, err := e.idmapOf(ids)
	if err != nil {
		return t, err
	}
	return t, inThread(func() error { return t.build(m, ids, userNS, shared, own, e.options.Runtime) })
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

// images are detached mounts of what root and private volume write to. They
// are made side by side and beside the rest of the tree: most of it is the
// kernel's waiting for other processors (loop devices, journals).
type images struct {
	making sync.WaitGroup
	mounts [2]*os.File // nil for a machine without the volume
	loops  [2]*loopDevice
	errs   [2]error
}

func openImages(m engine.Machine) *images {
	own := &images{}
	for i, v := range []storage.Attachment{m.Root, m.Private} {
		layer, options := v.Base, []string{"discard", noZeroing}
		if v.Overlay != nil {
			layer, options = *v.Overlay, []string{noZeroing}
		}
		if layer.Path != "" {
			own.making.Go(func() { own.mounts[i], own.loops[i], own.errs[i] = mountImage(layer, options...) })
		}
	}
	return own
}

// get waits for an image. The mount stays the images'.
func (own *images) get(i int) (*os.File, error) {
	own.making.Wait()
	return own.mounts[i], own.errs[i]
}

// close lets go of the mounts and tells which loop devices they have.
func (own *images) close() (used []loopDevice) {
	own.making.Wait()
	for i, l := range own.loops {
		if l != nil {
			own.mounts[i].Close()
			used = append(used, *l)
		}
	}
	return used
}

// build runs on a thread of its own. shared are the images below root and
// private volume, where these are overlays.
func (t *tree) build(m engine.Machine, ids uint32, userNS *os.File, shared [2]*base, own *images, runtime string) error {
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

	var lower [2]*os.File
	for i, b := range shared {
		if b == nil {
			continue
		}
		if lower[i], err = b.copy(); err != nil {
			return err
		}
		defer lower[i].Close()
	}
	if t.ns, err = newNamespace(); err != nil {
		return err
	}
	if err := unix.Mount("cubicle", t.hideout, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount on %s: %w", t.hideout, err)
	}
	for i, name := range []string{treeRoot, treeRW} {
		mount, err := own.get(i)
		switch {
		case err != nil:
		case mount == nil:
			continue
		case lower[i] != nil:
			err = t.overlay(lower[i], mount, name, ids, userNS)
		default:
			if err = idmap(mount, userNS); err == nil {
				err = place(mount, filepath.Join(t.hideout, name))
			}
		}
		if err != nil {
			return fmt.Errorf("%s volume: %w", []string{"root", "private"}[i], err)
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

// overlay joins a read-only file system and the layer that takes the writes.
// That layer keeps the host's ids of the qube: an idmapped one would make the
// overlay read-only.
func (t *tree) overlay(lower, over *os.File, name string, ids uint32, userNS *os.File) error {
	if err := idmap(lower, userNS); err != nil {
		return err
	}
	lowerDir, upperDir, dir := filepath.Join(t.hideout, treeLower), filepath.Join(t.hideout, treeUpper), filepath.Join(t.hideout, name)
	if err := place(lower, lowerDir); err != nil {
		return err
	}
	if err := place(over, upperDir); err != nil {
		return err
	}
	upper, work := filepath.Join(upperDir, "upper"), filepath.Join(upperDir, "work")
	// A run that was prepared twice, or went on after a crash, finds them.
	if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
		return err
	}
	for _, dir := range []string{upper, work, dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chown(upper, int(ids), int(ids)), os.Chown(work, int(ids), int(ids))); err != nil {
		return err
	}
	// volatile: what is gone after the run needs no syncing.
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", lowerDir, upper, work)
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_NODEV|unix.MS_NOATIME, data); err != nil {
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
	if t.bases == nil { // of a machine that was found running
		for _, l := range t.below {
			if !e.uses(l) {
				loops = append(loops, l)
			}
		}
	}
	for _, id := range t.bases {
		loops = append(loops, e.releaseBase(id)...)
	}
	t.bases = nil
	return awaitFree(loops, releaseLimit)
}

// uses tells whether a machine that we know stands on the image in l.
func (e *Engine) uses(l loopDevice) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.machines {
		if m.tree != nil && slices.ContainsFunc(m.tree.below, func(b loopDevice) bool { return b.Number == l.Number }) {
			return true
		}
	}
	return false
}
