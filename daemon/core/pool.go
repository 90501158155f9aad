package core

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cubicle/daemon/storage"
	"cubicle/daemon/store"
)

// poolSet are the pools of volumes that can be used now.
type poolSet struct {
	change sync.Mutex // serialises adding and removing

	mu   sync.RWMutex // guards what follows
	list []storage.Pool
	lost map[string]error // pools that are known and cannot be opened, and why
}

func (s *poolSet) get(name string) (storage.Pool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.list {
		if p.Name() == name {
			return p, nil
		}
	}
	if err := s.lost[name]; err != nil {
		return nil, Failf(PoolFailure, "the pool %q cannot be used: %v", name, err)
	}
	return nil, Failf(PoolFailure, "there is no pool %q", name)
}

func (s *poolSet) has(name string) bool { _, err := s.get(name); return err == nil }

func (s *poolSet) all() []storage.Pool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.list)
}

func (s *poolSet) add(p storage.Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, p)
}

func (s *poolSet) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(p storage.Pool) bool { return p.Name() == name })
	delete(s.lost, name)
}

// lose takes a pool out that does not work.
func (s *poolSet) lose(name string, err error) {
	s.drop(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = map[string]error{}
	}
	s.lost[name] = err
}

// pool is the one of that name.
func (c *Core) pool(name string) (storage.Pool, error) { return c.pools.get(name) }

// Pools are the pools, the default one first.
func (c *Core) Pools() []storage.Pool { return c.pools.all() }

// openPools opens the pools that people have added. One that cannot be opened
// makes its own volumes unusable, and no others.
func (c *Core) openPools(sys store.System) {
	for _, name := range slices.Sorted(maps.Keys(sys.Pools)) {
		set := sys.Pools[name]
		if set.Driver == "" {
			continue // settings of a pool that is there anyway
		}
		p, err := c.openPool(set.Driver, name, set.Options, false)
		if err != nil {
			c.log.Error("open a pool", "pool", name, "error", err)
			c.pools.lose(name, err)
			continue
		}
		c.pools.add(p)
	}
}

// recoverPool cleans up after an earlier daemon. Without a pool that was
// added later the system can do.
func (c *Core) recoverPool(ctx context.Context, p storage.Pool, running []storage.VID) error {
	err := p.Recover(ctx, running)
	if err == nil || c.builtIn(p.Name()) {
		return err
	}
	c.log.Error("recover a pool", "pool", p.Name(), "error", err)
	c.pools.lose(p.Name(), err)
	return nil
}

func (c *Core) builtIn(pool string) bool {
	return slices.ContainsFunc(c.cfg.Pools, func(p storage.Pool) bool { return p.Name() == pool })
}

func (c *Core) openPool(driver, name string, options map[string]string, fresh bool) (storage.Pool, error) {
	d, ok := c.Driver(driver)
	if !ok {
		return nil, Failf(ProtocolViolation, "there is no storage driver %q", driver)
	}
	return d.Open(name, options, fresh)
}

// Drivers are the storage drivers that pools can be added with.
func (c *Core) Drivers() []storage.Driver { return slices.Clone(c.cfg.Drivers) }

// Driver is the one of that name.
func (c *Core) Driver(name string) (storage.Driver, bool) {
	i := slices.IndexFunc(c.cfg.Drivers, func(d storage.Driver) bool { return d.Name == name })
	if i < 0 {
		return storage.Driver{}, false
	}
	return c.cfg.Drivers[i], true
}

// PoolRevisions is how many old states the volumes of a pool keep that have
// no number of their own.
func (v *View) PoolRevisions(name string) int {
	if n := v.system.Pools[name].Revisions; n != nil {
		return *n
	}
	return revisions
}

// maxPoolName bounds the name of a pool in bytes.
const maxPoolName = 64

// NewPool says what pool to add.
type NewPool struct {
	Name    string
	Driver  string
	Options map[string]string // the driver's own
	// Revisions is for volumes that have no number of their own; nil: the
	// usual.
	Revisions *int
}

// AddPool adds a pool.
func (c *Core) AddPool(ctx context.Context, n NewPool) error {
	if n.Name == "" || len(n.Name) > maxPoolName || strings.Trim(n.Name, featureBytes) != "" {
		return Failf(BadValue, "%q is not a pool's name", n.Name)
	}
	d, ok := c.Driver(n.Driver)
	if !ok {
		return Failf(ProtocolViolation, "there is no storage driver %q", n.Driver)
	}
	if err := checkOptions(d, n.Options); err != nil {
		return err
	}
	c.pools.change.Lock()
	defer c.pools.change.Unlock()
	if _, known := c.View().system.Pools[n.Name]; known || c.pools.has(n.Name) {
		return Failf(PoolInUse, "a pool named %s exists already", n.Name)
	}
	p, err := d.Open(n.Name, n.Options, true)
	if err != nil {
		return &Error{Kind: PoolFailure, Text: "a pool cannot be added", Err: err}
	}
	err = p.Recover(ctx, nil)
	if err == nil {
		err = c.update(func(t *tx) error {
			t.setPool(n.Name, store.Pool{Driver: n.Driver, Options: maps.Clone(n.Options), Revisions: n.Revisions})
			t.emit(nil, "pool-add", Arg{"pool", n.Name})
			return nil
		})
	}
	if err != nil {
		d.Forget(n.Name)
		return wrap(err, "add the pool %s", n.Name)
	}
	c.pools.add(p)
	return nil
}

func checkOptions(d storage.Driver, options map[string]string) error {
	for _, o := range d.Options {
		if _, ok := options[o.Name]; o.Required && !ok {
			return Failf(General, "the driver %s needs the option %s", d.Name, o.Name)
		}
	}
	for name := range options {
		if !slices.ContainsFunc(d.Options, func(o storage.Option) bool { return o.Name == name }) {
			return Failf(General, "the driver %s has no option %q", d.Name, name)
		}
	}
	return nil
}

func (t *tx) setPool(name string, p store.Pool) {
	t.v.system.Pools = maps.Clone(t.v.system.Pools)
	if t.v.system.Pools == nil {
		t.v.system.Pools = map[string]store.Pool{}
	}
	t.v.system.Pools[name] = p
	t.system = true
}

// RemovePool forgets a pool that nothing uses. What is in its folder stays.
func (c *Core) RemovePool(name string) error {
	c.pools.change.Lock()
	defer c.pools.change.Unlock()
	driver := ""
	err := c.update(func(t *tx) error {
		set, known := t.v.system.Pools[name]
		if !known || set.Driver == "" {
			if c.builtIn(name) {
				return Failf(PoolInUse, "the pool %s belongs to the system", name)
			}
			return noPool(name)
		}
		if err := t.v.poolInUse(name); err != nil {
			return err
		}
		driver = set.Driver
		t.v.system.Pools = maps.Clone(t.v.system.Pools)
		delete(t.v.system.Pools, name)
		t.system = true
		t.emit(nil, "pool-pre-delete", Arg{"pool", name})
		t.emit(nil, "pool-delete", Arg{"pool", name})
		return nil
	})
	if err != nil {
		return err
	}
	c.pools.drop(name)
	if d, ok := c.Driver(driver); ok {
		d.Forget(name)
	}
	return nil
}

// poolInUse tells what a pool is needed for.
func (v *View) poolInUse(name string) error {
	for _, property := range []string{"default_pool", "default_pool_root", "default_pool_private", "default_pool_volatile", "default_pool_kernel"} {
		if v.System().Property(property) == name {
			return Failf(PoolInUse, "the pool %s is the system's %s", name, property)
		}
	}
	for _, q := range v.Qubes() {
		if q.e.broken != "" {
			return Failf(PoolInUse, "nobody can tell whether %s has volumes in the pool %s: %s", q.Name(), name, q.Trouble())
		}
		for _, vol := range q.Volumes() {
			if vol.Pool == name {
				return Failf(PoolInUse, "the pool %s has the volume %s of %s", name, vol.Name, q.Name())
			}
		}
	}
	for _, j := range v.jobs {
		if j.State == JobRunning && (j.Kind == "create" || j.Kind == "clone") {
			return Failf(PoolInUse, "a qube is just being made: %s", j.Text)
		}
	}
	return nil
}

func noPool(name string) error { return Failf(PermissionDenied, "there is no pool %q", name) }

// SetPoolRevisions sets how many old states the volumes of a pool keep that
// have no number of their own; -1 for none, and no copy while they are in use.
func (c *Core) SetPoolRevisions(name string, n int) error {
	if n < -1 {
		return Failf(BadValue, "%d is not a number of revisions", n)
	}
	return c.update(func(t *tx) error {
		set, known := t.v.system.Pools[name]
		if !known && !c.builtIn(name) {
			return noPool(name)
		}
		set.Revisions = &n
		t.setPool(name, set)
		return nil
	})
}

// PoolInfo is what is known of a pool.
type PoolInfo struct {
	Name, Driver string
	// Options are the driver's options and those that every pool has.
	Options map[string]string
	// Size and Used are bytes; Known is false when the pool cannot tell.
	Size, Used int64
	Known      bool
}

// PoolInfo asks a pool about itself.
func (c *Core) PoolInfo(ctx context.Context, name string) (PoolInfo, error) {
	v := c.View()
	set, known := v.system.Pools[name]
	p, err := c.pool(name)
	if err != nil && (!known || set.Driver == "") {
		return PoolInfo{}, noPool(name)
	}
	info := PoolInfo{Name: name, Driver: set.Driver, Options: maps.Clone(set.Options)}
	if p != nil {
		info.Driver, info.Options = p.Driver(), p.Options()
		info.Size, info.Used, err = p.Usage(ctx)
		info.Known = err == nil
	}
	if info.Options == nil {
		info.Options = map[string]string{}
	}
	info.Options["revisions_to_keep"] = strconv.Itoa(v.PoolRevisions(name))
	info.Options["ephemeral_volatile"] = "False"
	return info, nil
}

// PoolNames are the names of all pools, the default one first, those that
// cannot be used among them.
func (c *Core) PoolNames() []string {
	var names []string
	for _, p := range c.Pools() {
		names = append(names, p.Name())
	}
	c.pools.mu.RLock()
	defer c.pools.mu.RUnlock()
	return append(names, slices.Sorted(maps.Keys(c.pools.lost))...)
}

// PoolVolumes are the ids of the volumes in a pool.
func (c *Core) PoolVolumes(name string) ([]storage.VID, error) {
	if !slices.Contains(c.PoolNames(), name) {
		return nil, noPool(name)
	}
	var ids []storage.VID
	for _, q := range c.View().Qubes() {
		for _, v := range q.Volumes() {
			if v.Pool == name {
				ids = append(ids, v.Spec.VID)
			}
		}
	}
	slices.SortFunc(ids, cmp.Compare)
	return ids, nil
}

// PoolState is what is known of a pool without asking it.
type PoolState struct {
	Name, Driver string
	Revisions    int   // of volumes that have no number of their own
	Err          error // why it cannot be used
}

// PoolStates are those of all pools, the default one first.
func (c *Core) PoolStates() []PoolState {
	v := c.View()
	var list []PoolState
	for _, p := range c.Pools() {
		list = append(list, PoolState{p.Name(), p.Driver(), v.PoolRevisions(p.Name()), nil})
	}
	c.pools.mu.RLock()
	defer c.pools.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(c.pools.lost)) {
		list = append(list, PoolState{name, v.system.Pools[name].Driver, v.PoolRevisions(name), c.pools.lost[name]})
	}
	return list
}
