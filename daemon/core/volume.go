package core

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"

	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// Default sizes (spec/platform.md §1.1).
const (
	defaultRoot     = 10 << 30
	defaultPrivate  = 2 << 30
	defaultVolatile = 10 << 30
	dispVolatile    = 12 << 30
)

// Bounds of a size that people choose, in bytes.
const (
	minVolume = 16 << 20
	maxVolume = 16 << 40
)

// The names of a qube's volumes.
const (
	rootVolume     = "root"
	privateVolume  = "private"
	volatileVolume = "volatile"
)

// revisions is how many old states an origin keeps (spec/platform.md §1.2).
const revisions = 1

// Volume is one volume of a qube.
type Volume struct {
	Name string
	Pool string
	Spec storage.Spec
}

// VolumeInfo is a volume with what its pool says of it.
type VolumeInfo struct {
	Volume
	storage.Info
}

// Volumes are the qube's volumes (spec/platform.md §1.1). What has no machine
// here has none, and neither has a broken qube.
func (q Qube) Volumes() []Volume {
	if !q.Class().HasMachine() || q.e.broken != "" {
		return nil
	}
	size := int64(defaultVolatile)
	if q.Class() == qube.DispVM {
		size = dispVolatile
	}
	volatile := q.volume(volatileVolume, size)
	volatile.Spec.SaveOnStop, volatile.Spec.Revisions, volatile.Spec.Kept = false, 0, nil
	return []Volume{q.root(), q.private(), volatile}
}

// root is the qube's own, or a snapshot of that of the template at the
// end of the chain.
func (q Qube) root() Volume {
	root := q.volume(rootVolume, defaultRoot)
	if !q.Class().HasTemplate() {
		return root
	}
	return snapshot(root, q.templateVolume(Qube.root))
}

// private is the qube's own; a disposable has a snapshot of its
// template's.
func (q Qube) private() Volume {
	private := q.volume(privateVolume, defaultPrivate)
	if q.Class() != qube.DispVM {
		return private
	}
	return snapshot(private, q.templateVolume(Qube.private))
}

// templateVolume is a volume of the qube's template, or nil.
func (q Qube) templateVolume(volume func(Qube) Volume) *Volume {
	t, ok := q.v.Named(q.TemplateName())
	if !ok || !t.Class().HasMachine() || t.Class() == qube.DispVM {
		return nil
	}
	v := volume(t)
	return &v
}

// origin is the volume of that name that the qube's is, or is in the end a
// snapshot of. The chain of templates is whole.
func (q Qube) origin(name string) Volume {
	v, _ := q.Volume(name)
	for v.Spec.SnapOnStart {
		q, _ = q.v.Named(q.TemplateName())
		v, _ = q.Volume(name)
	}
	return v
}

// snapshot makes a volume one that starts as the last state of another, or of
// what that is a snapshot of. It lives beside its source.
func snapshot(v Volume, of *Volume) Volume {
	v.Spec.SnapOnStart, v.Spec.SaveOnStop, v.Spec.Revisions, v.Spec.Kept = true, false, 0, nil
	if of == nil {
		return v
	}
	v.Pool, v.Spec.Size, v.Spec.Foreign = of.Pool, max(v.Spec.Size, of.Spec.Size), of.Spec.Foreign
	if v.Spec.Source = of.Spec.Source; v.Spec.Source == "" {
		v.Spec.Source = of.Spec.VID
	}
	return v
}

// volume is an origin with the qube's own settings.
func (q Qube) volume(name string, size int64) Volume {
	set := q.e.rec.Volumes[name]
	if set.Size != 0 {
		size = set.Size
	}
	pool := set.Pool
	if pool == "" {
		pool = q.System().Property("default_pool_" + name)
	}
	keep := q.v.PoolRevisions(pool)
	if set.Revisions != nil {
		keep = *set.Revisions
	}
	return Volume{Name: name, Pool: pool, Spec: storage.Spec{
		VID:        storage.VID(store.Path(q.Class(), q.Name()) + "/" + name),
		Size:       size,
		SaveOnStop: true,
		ReadWrite:  !set.ReadOnly,
		Revisions:  keep,
		Kept:       set.Kept,
		Foreign:    set.Foreign,
	}}
}

// Volume is the volume of that name.
func (q Qube) Volume(name string) (Volume, bool) {
	for _, v := range q.Volumes() {
		if v.Name == name {
			return v, true
		}
	}
	return Volume{}, false
}

// VolumeInfos asks the pools about a qube's volumes.
func (c *Core) VolumeInfos(ctx context.Context, id qube.UUID) ([]VolumeInfo, error) {
	q, err := c.find(id)
	if err != nil {
		return nil, err
	}
	var infos []VolumeInfo
	for _, v := range q.Volumes() {
		p, err := c.pool(v.Pool)
		if err != nil {
			return nil, err
		}
		info, err := p.Info(ctx, v.Spec)
		if err != nil {
			return nil, wrap(err, "volume %s of %s", v.Name, q.Name())
		}
		infos = append(infos, VolumeInfo{v, info})
	}
	return infos, nil
}

// ResizeVolume grows a volume of a halted qube to size bytes.
func (c *Core) ResizeVolume(ctx context.Context, id qube.UUID, name string, size int64) error {
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	q, err := c.findMachine(id)
	if err != nil {
		return err
	}
	v, ok := q.Volume(name)
	switch {
	case !ok:
		return Failf(PermissionDenied, "%s has no volume %q", q.Name(), name)
	case !q.isDown():
		return Failf(NotHalted, "shut %s down before its volume %s is resized", q.Name(), name)
	case size < v.Spec.Size:
		return Failf(PoolFailure, "volume %s of %s has %d bytes and cannot shrink to %d", name, q.Name(), v.Spec.Size, size)
	}
	if v.Spec.SaveOnStop {
		p, err := c.pool(v.Pool)
		if err != nil {
			return err
		}
		if err := p.Resize(ctx, v.Spec, size); err != nil {
			return advise(wrap(err, "resize volume %s of %s", name, q.Name()))
		}
	}
	return c.update(func(t *tx) error {
		e := t.edit(id)
		if e == nil {
			return Failf(NotFound, "%s was removed", q.Name())
		}
		e.rec = e.rec.Clone()
		set := e.rec.Volumes[name]
		set.Size = size
		e.rec.Volumes[name] = set
		t.events = append(t.events, Event{Qube: id})
		return c.cfg.Store.Save(e.rec)
	})
}

// createVolumes makes all volumes of a new qube, those in copies from there,
// and tells before each what share of them is done.
func (c *Core) createVolumes(ctx context.Context, q Qube, copies map[string]Volume, undo *undo, report func(done float64, what string)) error {
	volumes := q.Volumes()
	for i, v := range volumes {
		p, err := c.pool(v.Pool)
		if err != nil {
			return err
		}
		src, copied := copies[v.Name]
		report(float64(i)/float64(len(volumes)), making(v.Name, copied))
		if copied && src.Pool == v.Pool {
			err = p.Clone(ctx, v.Spec, src.Spec.VID)
		} else {
			err = p.Create(ctx, v.Spec)
		}
		if err != nil {
			return wrap(err, "make volume %s of %s", v.Name, q.Name())
		}
		undo.push("remove the volume", func(ctx context.Context) error { return p.Remove(ctx, v.Spec) })
		if copied && src.Pool != v.Pool {
			if err := c.carry(ctx, src, p, v.Spec); err != nil {
				return wrap(err, "copy volume %s to %s", v.Name, q.Name())
			}
		}
	}
	return nil
}

// making is what a job says that makes a volume.
func making(volume string, copied bool) string {
	switch {
	case copied && volume == rootVolume:
		return "copying its system"
	case copied && volume == privateVolume:
		return "copying its files"
	}
	return "making its volumes"
}

// carry copies what a volume holds to one in another pool.
func (c *Core) carry(ctx context.Context, src Volume, to storage.Pool, dst storage.Spec) error {
	from, err := c.pool(src.Pool)
	if err != nil {
		return err
	}
	image := filepath.Join(to.ImportDir(), rand.Text())
	defer os.Remove(image) // fails after the import, as it should
	if err := from.Export(ctx, src.Spec, image); err != nil {
		return err
	}
	return to.Import(ctx, dst, image)
}

// removeVolumes deletes the volumes of a qube; it goes on after an error.
func (c *Core) removeVolumes(ctx context.Context, q Qube) error {
	var errs []error
	for _, v := range q.Volumes() {
		p, err := c.pool(v.Pool)
		if err == nil {
			err = p.Remove(ctx, v.Spec)
		}
		if err != nil {
			errs = append(errs, wrap(err, "remove volume %s of %s", v.Name, q.Name()))
		}
	}
	return errors.Join(errs...)
}

// measure brings a qube's disk usage and outdatedness up to date.
func (c *Core) measure(ctx context.Context, id qube.UUID) {
	infos, err := c.VolumeInfos(ctx, id)
	if err != nil {
		c.log.Debug("measure volumes", "qube", string(id), "error", err)
		return
	}
	var used int64
	outdated := false
	for _, i := range infos {
		used += i.Usage
		outdated = outdated || i.Running && i.Spec.SnapOnStart && i.Outdated
	}
	c.must(func(t *tx) {
		if old, ok := t.v.qubes[id]; !ok || old.disk == used && old.outdated == outdated {
			return
		}
		e := t.edit(id)
		e.disk, e.outdated = used, outdated
		t.events = append(t.events, Event{Qube: id})
	})
}

// measureFamily measures a qube and, after a template was committed, those
// that run on it.
func (c *Core) measureFamily(id qube.UUID) {
	c.spawn(func() {
		c.measure(c.life, id)
		q, err := c.find(id)
		if err != nil || q.Class() != qube.TemplateVM {
			return
		}
		for _, o := range c.View().Qubes() {
			if o.TemplateName() == q.Name() && !o.isDown() {
				c.measure(c.life, o.UUID())
			}
		}
	})
}
