package core

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// VolumeInfo asks the pool about one volume of a qube.
func (c *Core) VolumeInfo(ctx context.Context, id qube.UUID, name string) (VolumeInfo, error) {
	q, v, err := c.volumeOf(id, name)
	if err != nil {
		return VolumeInfo{}, err
	}
	p, err := c.pool(v.Pool)
	if err != nil {
		return VolumeInfo{}, err
	}
	info, err := p.Info(ctx, v.Spec)
	if err != nil {
		return VolumeInfo{}, wrap(err, "volume %s of %s", name, q.Name())
	}
	return VolumeInfo{v, info}, nil
}

// volumeOf finds a volume. Nobody learns from its error which volumes there
// are.
func (c *Core) volumeOf(id qube.UUID, name string) (Qube, Volume, error) {
	q, err := c.find(id)
	if err != nil {
		return Qube{}, Volume{}, err
	}
	v, ok := q.Volume(name)
	if !ok {
		return Qube{}, Volume{}, Failf(PermissionDenied, "%s has no volume %q", q.Name(), name)
	}
	return q, v, nil
}

// editVolume lets f change what a volume of a halted qube holds, with nobody
// else at work on it, and then stores the settings that f has changed. What may
// become foreign is foreign on disk before f begins: at no moment dom0 takes
// others' data for its own.
func (c *Core) editVolume(ctx context.Context, id qube.UUID, name, what string, foreign bool, f func(storage.Pool, Volume, *store.Volume) error) error {
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	q, v, err := c.volumeOf(id, name)
	if err != nil {
		return err
	}
	switch {
	case !q.isDown():
		return Failf(NotHalted, "shut %s down first: its volume %s is in use", q.Name(), name)
	case !v.Spec.SaveOnStop:
		return Failf(PoolFailure, "the volume %s of %s is made anew at each start", name, q.Name())
	}
	p, err := c.pool(v.Pool)
	if err != nil {
		return err
	}
	before := q.e.rec.Volumes[name]
	set := before
	if foreign {
		set.Foreign, set.Imported = true, true
		if err := c.saveVolume(id, name, set); err != nil {
			return err
		}
	}
	if err := f(p, v, &set); err != nil {
		err = advise(wrap(err, "%s volume %s of %s", what, name, q.Name()))
		if foreign {
			err = errors.Join(err, c.saveVolume(id, name, before))
		}
		return err
	}
	if err := c.saveVolume(id, name, set); err != nil {
		return err
	}
	c.measureFamily(id)
	return nil
}

// saveVolume stores the settings of a volume.
func (c *Core) saveVolume(id qube.UUID, name string, set store.Volume) error {
	return c.update(func(t *tx) error {
		e := t.amend(id)
		if e == nil {
			return Failf(NotFound, "the qube %s was removed", id)
		}
		e.rec.Volumes[name] = set
		t.events = append(t.events, Event{Qube: id})
		return nil
	})
}

// RevertVolume makes an older state of a halted qube's volume the current one.
func (c *Core) RevertVolume(ctx context.Context, id qube.UUID, name, revision string) error {
	info, err := c.VolumeInfo(ctx, id, name)
	if err != nil {
		return err
	}
	q, err := c.find(id)
	if err != nil {
		return err
	}
	imported := q.e.rec.Volumes[name].Imported
	if !slices.Contains(info.Revisions, revision) {
		return Failf(NoRevision, "the volume %s has no revision %q", name, revision)
	}
	return c.editVolume(ctx, id, name, "revert", imported, func(p storage.Pool, v Volume, set *store.Volume) error {
		if err := p.Revert(ctx, v.Spec, revision); err != nil {
			return err
		}
		now, err := p.Info(ctx, v.Spec)
		set.Size = now.Size
		c.log.Info("volume reverted", "qube", string(id), "volume", name, "revision", revision)
		return err
	})
}

// maxKept bounds how many old states of one volume people keep.
const maxKept = 64

// KeepRevision makes an old state of a volume one that stays until it is let
// go, however many newer ones there are; or lets it go, so that it is removed
// in its turn.
func (c *Core) KeepRevision(ctx context.Context, id qube.UUID, name, revision string, keep bool) error {
	unlock, err := c.lock(ctx, id) // no commit removes it meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	info, err := c.VolumeInfo(ctx, id, name)
	if err != nil {
		return err
	}
	if !slices.Contains(info.Revisions, revision) {
		return Failf(NoRevision, "the volume %s has no revision %q", name, revision)
	}
	q, err := c.find(id)
	if err != nil {
		return err
	}
	set := q.e.rec.Volumes[name]
	// What is gone, such as with an older pool, need not be kept.
	var kept []string
	for _, r := range info.Revisions {
		if r != revision && slices.Contains(set.Kept, r) || r == revision && keep {
			kept = append(kept, r)
		}
	}
	if len(kept) > maxKept {
		return Failf(BadValue, "at most %d revisions of a volume can be kept: let another go", maxKept)
	}
	set.Kept = kept
	return c.saveVolume(id, name, set)
}

// ClearVolume empties the volume of a halted qube.
func (c *Core) ClearVolume(ctx context.Context, id qube.UUID, name string) error {
	return c.editVolume(ctx, id, name, "clear", false, func(p storage.Pool, v Volume, set *store.Volume) error {
		set.Foreign = false
		return p.Clear(ctx, v.Spec)
	})
}

// CloneVolume makes the volume of a halted qube hold what another one holds,
// and tells of it.
func (c *Core) CloneVolume(ctx context.Context, id qube.UUID, name string, fromID qube.UUID, fromName string) error {
	source, from, err := c.volumeOf(fromID, fromName)
	if err != nil {
		return err
	}
	if !from.Spec.SaveOnStop {
		return Failf(PoolFailure, "the volume %s of %s is made anew at each start: nothing can be copied", fromName, source.Name())
	}
	if id == fromID && name == fromName {
		return Failf(VolumeCopyInUse, "a volume cannot be copied to itself")
	}
	fromPool, err := c.pool(from.Pool)
	if err != nil {
		return err
	}
	err = c.editVolume(ctx, id, name, "copy to", from.Spec.Foreign, func(p storage.Pool, v Volume, set *store.Volume) error {
		image, err := freshImport(p)
		if err != nil {
			return err
		}
		defer os.Remove(image) // is gone once it was imported
		if err := fromPool.Export(ctx, from.Spec, image); err != nil {
			return err
		}
		info, err := os.Stat(image)
		if err != nil {
			return err
		}
		set.Size, set.Foreign = info.Size(), from.Spec.Foreign
		return p.Import(ctx, v.Spec, image)
	})
	if err != nil {
		return err
	}
	c.tell(id, "domain-import-volume", Arg{"name", name}, Arg{"source", string(from.Spec.VID)})
	return nil
}

// tell emits an event about a qube that changes nothing in the View.
func (c *Core) tell(id qube.UUID, name string, args ...Arg) {
	c.must(func(t *tx) {
		if q, ok := t.v.Lookup(id); ok {
			t.emit(q.e, name, args...)
		}
	})
}

// Announce tells of something that happened to a qube and changed nothing in
// the View, by upstream's name.
func (c *Core) Announce(id qube.UUID, name string, args ...Arg) { c.tell(id, name, args...) }

// freshImport names a new file in a pool's folder for imports.
func freshImport(p storage.Pool) (string, error) {
	f, err := os.CreateTemp(p.ImportDir(), "import-*")
	if err != nil {
		return "", err
	}
	// Whoever fills it makes it anew.
	return f.Name(), errors.Join(f.Close(), os.Remove(f.Name()))
}

// importTime is how long nobody may write to an import's file before another
// import may take its place.
const importTime = 10 * time.Minute

// BeginImport makes a sparse file that the caller shall fill with the new
// contents of a halted qube's volume, and EndImport then takes. Size is in
// bytes; 0 is the volume's own.
func (c *Core) BeginImport(ctx context.Context, id qube.UUID, name string, size int64) (path string, bytes int64, err error) {
	q, v, err := c.volumeOf(id, name)
	if err != nil {
		return "", 0, err
	}
	if size == 0 {
		size = v.Spec.Size
	}
	switch {
	case !q.isDown():
		return "", 0, Failf(NotHalted, "shut %s down first: its volume %s is in use", q.Name(), name)
	case !v.Spec.SaveOnStop:
		return "", 0, Failf(PoolFailure, "the volume %s of %s is made anew at each start", name, q.Name())
	case size < 0 || size > maxVolume:
		return "", 0, Failf(BadValue, "a volume has at most %d TiB", maxVolume>>40)
	}
	p, err := c.pool(v.Pool)
	if err != nil {
		return "", 0, err
	}
	key := volumeKey{id, name}
	c.mu.Lock()
	old, busy := c.imports[key]
	c.mu.Unlock()
	if busy && c.alive(old) {
		return "", 0, Failf(PoolFailure, "another import into the volume %s of %s is under way", name, q.Name())
	}
	if path, err = freshImport(p); err != nil {
		return "", 0, wrap(err, "import into volume %s of %s", name, q.Name())
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(file.Truncate(size), file.Close())
	}
	if err != nil {
		os.Remove(path)
		return "", 0, advise(wrap(err, "import into volume %s of %s", name, q.Name()))
	}
	c.mu.Lock()
	again, taken := c.imports[key]
	if taken = taken && again != old; !taken {
		c.imports[key] = importing{path, size}
	}
	c.mu.Unlock()
	if taken {
		os.Remove(path)
		return "", 0, Failf(PoolFailure, "another import into the volume %s of %s is under way", name, q.Name())
	}
	if busy {
		os.Remove(old.path)
	}
	c.tell(id, "domain-volume-import-begin", Arg{"volume", name}, Arg{"size", strconv.FormatInt(size, 10)})
	return path, size, nil
}

// alive reports whether somebody still writes the file of an import.
func (c *Core) alive(i importing) bool {
	info, err := os.Stat(i.path)
	return err == nil && c.clock.Now().Sub(info.ModTime()) < importTime
}

// EndImport makes what was written since BeginImport the contents of the
// volume, or with a failure drops it and returns that failure.
func (c *Core) EndImport(ctx context.Context, id qube.UUID, name string, failure error) error {
	key := volumeKey{id, name}
	c.mu.Lock()
	i, ok := c.imports[key]
	delete(c.imports, key)
	c.mu.Unlock()
	if !ok {
		return Failf(General, "no import into the volume %q has begun", name)
	}
	defer os.Remove(i.path)
	err := failure
	if err == nil {
		err = c.editVolume(ctx, id, name, "import into", true, func(p storage.Pool, v Volume, set *store.Volume) error {
			if filepath.Dir(i.path) != filepath.Clean(p.ImportDir()) {
				return Failf(PoolFailure, "the volume moved to another pool meanwhile")
			}
			if info, err := os.Lstat(i.path); err != nil || info.Size() != i.size {
				return Failf(PoolFailure, "the file to import has not the %d bytes that it was to have", i.size)
			}
			set.Size = i.size
			return p.Import(ctx, v.Spec, i.path)
		})
	}
	success := "True"
	if err != nil {
		success = "False"
	}
	c.tell(id, "domain-volume-import-end", Arg{"volume", name}, Arg{"success", success})
	if failure != nil {
		return Failf(General, "Data import failed: %v", failure)
	}
	return err
}

// SetVolumeRevisions sets how many old states a volume keeps; -1 for none,
// and no copy while it is in use.
func (c *Core) SetVolumeRevisions(id qube.UUID, name string, n int) error {
	q, v, err := c.volumeOf(id, name)
	if err != nil {
		return err
	}
	switch {
	case n < -1:
		return Failf(BadValue, "%d is not a number of revisions", n)
	case !v.Spec.SaveOnStop && n == -1:
		return Failf(PoolFailure, "the volume %s of %s is made anew at each start", name, q.Name())
	case (n == -1) != (v.Spec.Revisions == -1):
		if err := q.idle(); err != nil {
			return err
		}
	}
	set := q.e.rec.Volumes[name]
	set.Revisions = &n
	return c.saveVolume(id, name, set)
}

// idle tells why the volumes of a qube may be in use: by itself, or by
// disposables that are based on it.
func (q Qube) idle() error {
	if !q.isDown() {
		return Failf(NotHalted, "shut %s down first", q.Name())
	}
	for _, o := range q.v.Qubes() {
		if o.Class() == qube.DispVM && o.TemplateName() == q.Name() && !o.isDown() {
			return Failf(NotHalted, "shut %s down first: it is based on %s", o.Name(), q.Name())
		}
	}
	return nil
}

// SetVolumeReadOnly says whether a halted qube may write to a volume.
func (c *Core) SetVolumeReadOnly(id qube.UUID, name string, readOnly bool) error {
	q, _, err := c.volumeOf(id, name)
	if err != nil {
		return err
	}
	if !q.isDown() {
		return Failf(NotHalted, "shut %s down first", q.Name())
	}
	set := q.e.rec.Volumes[name]
	set.ReadOnly = readOnly
	return c.saveVolume(id, name, set)
}
