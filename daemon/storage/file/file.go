// Package file keeps volumes as sparse image files in a folder: the driver
// "file" of storage.Pool. Where the file system can share blocks (btrfs, XFS),
// copies are reflinks.
//
// The files of the volume appvms/work/private, all of mode 0600, in
// <dir>/appvms/work (the names are those of upstream's file-reflink driver,
// spec/platform.md §1.3, where they mean the same):
//
//	private.img              the committed state of an origin
//	private-dirty.img        the state in use of an origin or a volatile volume
//	private.img.<n>@<time>Z  its n-th older committed state
//	private-base.img         a running snapshot: hard link to the source's committed state
//	private-overlay.img      a running snapshot: what was written
//	private.vol              empty; a snapshot or volatile volume exists
//	private*~                half-made
//
// A state is never written once it is committed. A started origin is a copy
// that an orderly stop renames over the committed state; with Revisions 0 the
// committed state itself is renamed to be the state in use, which takes no
// time however big the volume is, unless a running snapshot still reads it.
// Whoever holds a hard link keeps its version, so app qubes run on with the
// version that they started with.
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/durable"
	"cubicle/daemon/storage"
	"cubicle/daemon/storage/sparse"
)

var _ storage.Pool = (*Pool)(nil)

// Driver is the driver's name.
const Driver = "file"

// importDir cannot be a volume's folder: those begin with a letter or digit.
const importDir = ".import"

// Pool is a pool in a folder.
type Pool struct {
	name string
	dir  string

	mu      sync.Mutex // guards what follows
	started map[storage.VID]bool
	readers map[storage.VID]int // copies under way of the committed state
	blanks  map[int64]blank     // empty overlays by size
}

// New returns the pool called name in the folder dir, which is made when it
// is not there. Call Recover before anything else.
func New(name, dir string) (*Pool, error) {
	p := &Pool{name: name, dir: filepath.Clean(dir), started: make(map[storage.VID]bool), readers: make(map[storage.VID]int), blanks: make(map[int64]blank)}
	if err := os.MkdirAll(p.ImportDir(), 0o755); err != nil {
		return nil, fmt.Errorf("pool %s: %w", name, err)
	}
	return p, nil
}

// Name is the pool's name.
func (p *Pool) Name() string { return p.name }

// Driver is "file".
func (p *Pool) Driver() string { return Driver }

// Options is the pool's folder.
func (p *Pool) Options() map[string]string { return map[string]string{dirPath: p.dir} }

// ImportDir is where images for Import are built.
func (p *Pool) ImportDir() string { return filepath.Join(p.dir, importDir) }

// fail names operation and volume of an error, and makes a full disk
// ErrNoSpace.
func fail(op string, vid storage.VID, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		err = fmt.Errorf("%w: %w", storage.ErrNoSpace, err)
	}
	return fmt.Errorf("%s volume %s: %w", op, vid, err)
}

// Create makes a new volume.
func (p *Pool) Create(ctx context.Context, s storage.Spec) error {
	return fail("create", s.VID, p.create(ctx, s))
}

func (p *Pool) create(ctx context.Context, s storage.Spec) error {
	if err := check(s); err != nil {
		return err
	}
	f := p.files(s.VID)
	if f.exists() {
		return storage.ErrExists
	}
	return f.inNewFolder(func() error {
		if !s.SaveOnStop {
			return os.WriteFile(f.marker(), nil, 0o600)
		}
		tmp := f.clean() + "~"
		if err := makeExt4(ctx, tmp, s.Size, filepath.Base(string(s.VID)), journal); err != nil {
			return err
		}
		return durable.Rename(tmp, f.clean())
	})
}

// Import makes image the committed state.
func (p *Pool) Import(_ context.Context, s storage.Spec, image string) error {
	return fail("import", s.VID, p.importImage(s, image))
}

func (p *Pool) importImage(s storage.Spec, image string) error {
	if err := checkOrigin(s); err != nil {
		return err
	}
	image = filepath.Clean(image)
	if !strings.HasPrefix(image, p.ImportDir()+"/") {
		return fmt.Errorf("%w: %s is not below the pool's import folder", storage.ErrBadVolume, image)
	}
	f, err := p.stopped(s)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(image, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return fmt.Errorf("%w: %s is not an image", storage.ErrBadVolume, image)
	}
	if err := errors.Join(file.Chmod(0o600), file.Sync()); err != nil {
		return err
	}
	return f.replace(image, s)
}

// Clone copies the committed state of src.
func (p *Pool) Clone(ctx context.Context, dst storage.Spec, src storage.VID) error {
	return fail("clone "+string(src)+" to", dst.VID, p.clone(ctx, dst, src))
}

func (p *Pool) clone(ctx context.Context, dst storage.Spec, src storage.VID) error {
	if err := errors.Join(checkOrigin(dst), checkVID(src)); err != nil {
		return err
	}
	from, to := p.files(src), p.files(dst.VID)
	if to.exists() {
		return storage.ErrExists
	}
	if !from.exists() {
		return storage.ErrNotFound
	}
	return to.inNewFolder(func() error {
		tmp := to.clean() + "~"
		if err := p.copyCommitted(ctx, src, tmp); err != nil {
			return err
		}
		return durable.Rename(tmp, to.clean())
	})
}

// Export copies the committed state of an origin.
func (p *Pool) Export(ctx context.Context, s storage.Spec, path string) error {
	err := checkOrigin(s)
	if err == nil {
		err = p.copyCommitted(ctx, s.VID, path)
	}
	return fail("export", s.VID, err)
}

// copyCommitted copies an origin's committed state. Meanwhile nobody takes it
// as the state in use.
func (p *Pool) copyCommitted(ctx context.Context, vid storage.VID, path string) error {
	p.mu.Lock()
	p.readers[vid]++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.readers[vid]--; p.readers[vid] == 0 {
			delete(p.readers, vid)
		}
	}()
	image, err := p.committed(vid)
	if err != nil {
		return err
	}
	return sparse.Copy(ctx, path, image)
}

// takeInPlace makes the committed state the state in use, unless somebody
// reads it.
func (p *Pool) takeInPlace(s storage.Spec) (taken bool, err error) {
	f := p.files(s.VID)
	p.mu.Lock()
	defer p.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Stat(f.clean(), &st); err != nil {
		return false, err
	}
	if s.Revisions > 0 || st.Nlink != 1 || p.readers[s.VID] > 0 {
		return false, nil
	}
	// Both names tell the same after a power cut: no need to sync.
	return true, os.Rename(f.clean(), f.dirty())
}

// Clear makes an empty file system the committed state.
func (p *Pool) Clear(ctx context.Context, s storage.Spec) error {
	return fail("clear", s.VID, p.clear(ctx, s))
}

func (p *Pool) clear(ctx context.Context, s storage.Spec) error {
	if err := checkOrigin(s); err != nil {
		return err
	}
	f, err := p.stopped(s)
	if err != nil {
		return err
	}
	tmp := f.clean() + "~"
	if err := makeExt4(ctx, tmp, s.Size, filepath.Base(string(s.VID)), journal); err != nil {
		return err
	}
	if err := f.replace(tmp, s); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// committed is the file with an origin's committed state. One that a crash
// left in use in place is as committed as it gets.
func (p *Pool) committed(vid storage.VID) (string, error) {
	f := p.files(vid)
	switch {
	case present(f.clean()):
		return f.clean(), nil
	case present(f.marker()):
		return "", fmt.Errorf("%w: %s is not an origin", storage.ErrBadVolume, vid)
	case present(f.dirty()) && p.isStarted(vid):
		return "", fmt.Errorf("%w: %s is written in place until it stops", storage.ErrInUse, vid)
	case present(f.dirty()):
		return f.dirty(), nil
	}
	return "", fmt.Errorf("%w: %s", storage.ErrNotFound, vid)
}

// Start makes the volume ready for a run.
func (p *Pool) Start(ctx context.Context, s storage.Spec) (storage.Attachment, error) {
	a, err := p.start(ctx, s)
	return a, fail("start", s.VID, err)
}

func (p *Pool) start(ctx context.Context, s storage.Spec) (a storage.Attachment, err error) {
	if err := check(s); err != nil {
		return a, err
	}
	if !p.files(s.VID).exists() {
		return a, storage.ErrNotFound
	}
	if !p.setStarted(s.VID) {
		return a, storage.ErrInUse
	}
	defer func() {
		if err != nil {
			p.setStopped(s.VID)
		}
	}()
	switch {
	case s.SaveOnStop:
		return p.startOrigin(ctx, s)
	case s.SnapOnStart:
		return p.startSnapshot(ctx, s)
	}
	return p.startVolatile(s)
}

func (p *Pool) startOrigin(ctx context.Context, s storage.Spec) (storage.Attachment, error) {
	f := p.files(s.VID)
	a := storage.Attachment{Base: storage.Layer{Path: f.dirty(), Format: storage.Raw, ReadOnly: !s.ReadWrite, Foreign: s.Foreign}}
	if present(f.dirty()) {
		return a, nil // a crash left it: go on with what it holds
	}
	if taken, err := p.takeInPlace(s); taken || err != nil {
		return a, err
	}
	tmp := f.dirty() + "~"
	if err := sparse.Copy(ctx, tmp, f.clean()); err != nil {
		return storage.Attachment{}, err
	}
	return a, durable.Rename(tmp, f.dirty())
}

func (p *Pool) startSnapshot(ctx context.Context, s storage.Spec) (a storage.Attachment, err error) {
	f := p.files(s.VID)
	if err := f.dropRun(); err != nil {
		return a, err
	}
	source, err := p.committed(s.Source)
	if err != nil {
		return a, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.dropRun())
		}
	}()
	if err := os.Link(source, f.base()); err != nil {
		return a, err
	}
	a.Base = storage.Layer{Path: f.base(), Format: storage.Raw, ReadOnly: true, Foreign: s.Foreign}
	if !s.ReadWrite {
		return a, nil
	}
	info, err := os.Stat(f.base())
	if err != nil {
		return a, err
	}
	if err := p.makeOverlay(ctx, f.overlay(), max(s.Size, info.Size())); err != nil {
		return a, err
	}
	a.Overlay = &storage.Layer{Path: f.overlay(), Format: storage.Raw}
	return a, nil
}

func (p *Pool) startVolatile(s storage.Spec) (storage.Attachment, error) {
	f := p.files(s.VID)
	if err := f.dropRun(); err != nil {
		return storage.Attachment{}, err
	}
	if err := makeSparse(f.dirty(), s.Size); err != nil {
		return storage.Attachment{}, err
	}
	return storage.Attachment{Base: storage.Layer{Path: f.dirty(), Format: storage.Raw, ReadOnly: !s.ReadWrite}}, nil
}

// Stop ends the run.
func (p *Pool) Stop(_ context.Context, s storage.Spec, commit bool) error {
	if err := check(s); err != nil {
		return fail("stop", s.VID, err)
	}
	if !p.isStarted(s.VID) {
		return nil
	}
	f := p.files(s.VID)
	var err error
	switch {
	case !s.SaveOnStop:
		err = f.dropRun()
	case !present(f.dirty()) && present(f.clean()):
		// A crash came between its commit and the word of it.
	case commit || !present(f.clean()):
		err = f.commit(s)
	default:
		err = remove(f.dirty())
	}
	// Also after an error: what was written is still there, and the next
	// start goes on with it.
	p.setStopped(s.VID)
	return fail("stop", s.VID, err)
}

// Resize grows a stopped origin and the file system in it.
func (p *Pool) Resize(ctx context.Context, s storage.Spec, size int64) error {
	return fail("resize", s.VID, p.resize(ctx, s, size))
}

func (p *Pool) resize(ctx context.Context, s storage.Spec, size int64) error {
	if err := checkOrigin(s); err != nil {
		return err
	}
	f, err := p.stopped(s)
	if err != nil {
		return err
	}
	info, err := os.Stat(f.clean())
	if err != nil {
		return err
	}
	switch {
	case size < info.Size():
		return fmt.Errorf("%w: it has %d bytes and cannot shrink to %d", storage.ErrBadVolume, info.Size(), size)
	case size == info.Size():
		return nil
	}
	tmp := f.clean() + "~"
	if err := sparse.Copy(ctx, tmp, f.clean()); err != nil {
		return err
	}
	err = grow(ctx, tmp, size, s.Foreign)
	if err == nil {
		err = durable.Rename(tmp, f.clean())
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// Revert makes an older revision current again.
func (p *Pool) Revert(ctx context.Context, s storage.Spec, revision string) error {
	return fail("revert", s.VID, p.revert(ctx, s, revision))
}

func (p *Pool) revert(ctx context.Context, s storage.Spec, revision string) error {
	if err := checkOrigin(s); err != nil {
		return err
	}
	f, err := p.stopped(s)
	if err != nil {
		return err
	}
	revisions, err := f.revisions()
	if err != nil {
		return err
	}
	for _, r := range revisions {
		if r.name != revision {
			continue
		}
		tmp := f.clean() + "~"
		if err := sparse.Copy(ctx, tmp, f.revision(r)); err != nil {
			return err
		}
		if err := f.replace(tmp, s); err != nil {
			os.Remove(tmp)
			return err
		}
		return nil
	}
	return fmt.Errorf("%w: no revision %q", storage.ErrNotFound, revision)
}

// stopped returns the files of an origin that is not started. What a crash
// left in use becomes the committed state first, so that nothing is lost.
func (p *Pool) stopped(s storage.Spec) (files, error) {
	f := p.files(s.VID)
	if !f.exists() {
		return f, storage.ErrNotFound
	}
	if p.isStarted(s.VID) {
		return f, storage.ErrInUse
	}
	if present(f.dirty()) {
		return f, f.commit(s)
	}
	return f, nil
}

// Remove deletes the volume.
func (p *Pool) Remove(_ context.Context, s storage.Spec) error {
	if err := checkVID(s.VID); err != nil {
		return fail("remove", s.VID, err)
	}
	if p.isStarted(s.VID) {
		return fail("remove", s.VID, storage.ErrInUse)
	}
	return fail("remove", s.VID, p.files(s.VID).removeAll())
}

// Info describes the volume.
func (p *Pool) Info(_ context.Context, s storage.Spec) (storage.Info, error) {
	if err := check(s); err != nil {
		return storage.Info{}, fail("look at", s.VID, err)
	}
	info, err := p.info(s)
	return info, fail("look at", s.VID, err)
}

func (p *Pool) info(s storage.Spec) (info storage.Info, err error) {
	f := p.files(s.VID)
	if !f.exists() {
		return info, storage.ErrNotFound
	}
	info.Running = p.isStarted(s.VID)
	info.Size = s.Size
	info.Usage, err = f.usage()
	if err != nil {
		return info, err
	}
	current := f.clean()
	switch {
	case s.SnapOnStart:
		current = f.base()
		info.Outdated = info.Running && outdated(current, p.files(s.Source).clean())
	case !present(current):
		current = f.dirty()
	}
	if st, err := os.Stat(current); err == nil {
		info.Version = st.ModTime().UTC().Format(time.RFC3339Nano)
		info.Size = max(info.Size, st.Size())
		if s.SaveOnStop {
			info.Size = st.Size()
		}
	}
	revisions, err := f.revisions()
	for _, r := range revisions {
		info.Revisions = append(info.Revisions, r.name)
	}
	return info, err
}

// outdated tells whether the source was committed since base was linked. A
// source without a committed state is in use in place: nothing newer yet.
func outdated(base, source string) bool {
	var b, s unix.Stat_t
	return unix.Stat(base, &b) == nil && unix.Stat(source, &s) == nil && (b.Ino != s.Ino || b.Dev != s.Dev)
}

// Usage is that of the file system below the pool.
func (p *Pool) Usage(context.Context) (size, used int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		return 0, 0, fmt.Errorf("pool %s: %w", p.name, err)
	}
	block := int64(st.Frsize)
	// What only root may fill counts as used.
	return int64(st.Blocks) * block, int64(st.Blocks-st.Bavail) * block, nil
}

func (p *Pool) isStarted(vid storage.VID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started[vid]
}

// setStarted reports false when the volume is started already.
func (p *Pool) setStarted(vid storage.VID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started[vid] {
		return false
	}
	p.started[vid] = true
	return true
}

func (p *Pool) setStopped(vid storage.VID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.started, vid)
}
