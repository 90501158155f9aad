package core

import (
	"context"
	"errors"

	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// Default sizes (spec/platform.md §1.1).
const (
	defaultRoot     = 10 << 30
	defaultPrivate  = 2 << 30
	defaultVolatile = 10 << 30
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

// Volumes are the qube's volumes; dom0 and a broken qube have none.
func (q Qube) Volumes() []Volume {
	if q.IsAdmin() || q.e.broken != "" {
		return nil
	}
	root := q.volume(rootVolume, defaultRoot)
	if q.Class() == qube.AppVM {
		root.Spec.SnapOnStart, root.Spec.SaveOnStop, root.Spec.Revisions = true, false, 0
		if t, ok := q.v.Named(q.TemplateName()); ok && !t.IsAdmin() {
			source := t.volume(rootVolume, defaultRoot)
			root.Pool = source.Pool // a snapshot lives beside its source
			root.Spec.Source, root.Spec.Size = source.Spec.VID, max(root.Spec.Size, source.Spec.Size)
		}
	}
	volatile := q.volume(volatileVolume, defaultVolatile)
	volatile.Spec.SaveOnStop, volatile.Spec.Revisions = false, 0
	return []Volume{root, q.volume(privateVolume, defaultPrivate), volatile}
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
	return Volume{Name: name, Pool: pool, Spec: storage.Spec{
		VID:        storage.VID(store.Path(q.Class(), q.Name()) + "/" + name),
		Size:       size,
		SaveOnStop: true,
		ReadWrite:  true,
		Revisions:  revisions,
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

// createVolumes makes all volumes of a new qube, those in copies from there.
func (c *Core) createVolumes(ctx context.Context, q Qube, copies map[string]storage.VID, undo *undo) error {
	for _, v := range q.Volumes() {
		p, err := c.pool(v.Pool)
		if err != nil {
			return err
		}
		if src, ok := copies[v.Name]; ok {
			err = p.Clone(ctx, v.Spec, src)
		} else {
			err = p.Create(ctx, v.Spec)
		}
		if err != nil {
			return wrap(err, "make volume %s of %s", v.Name, q.Name())
		}
		undo.push("remove the volume", func(ctx context.Context) error { return p.Remove(ctx, v.Spec) })
	}
	return nil
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
