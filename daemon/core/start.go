package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/vchan"
)

const (
	// lastDomain is the highest domain id of our own: upstream's tools and
	// Xen reserve 0x7FF0 to 0x7FFF, so ours lie above.
	lastDomain vchan.Domain = 0xfffe
	// routerTime is how long qrexecd may take to offer a qube's link.
	routerTime = 15 * time.Second
)

// run is one life of a machine, from the start of its volumes until all that
// it needed is freed.
type run struct {
	facts  facts
	engine engine.Engine
	ready  chan struct{} // closed: the agent said hello once
	gone   chan struct{} // closed: the machine has ended; reason is set
	done   chan struct{} // closed: the end is dealt with
	// told is closed when qrexecd has been told of a machine that ran before
	// us; nil for others. Only then may it be told of the machine's end.
	told   chan struct{}
	end    engine.Event // after gone
	killed bool         // we ended it: guarded by Core.mu
}

func newRun(f facts, e engine.Engine) *run {
	return &run{facts: f, engine: e, ready: make(chan struct{}), gone: make(chan struct{}), done: make(chan struct{})}
}

// isReady reports whether the agent said hello once.
func (r *run) isReady() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}

// isForeign reports whether the machine is somebody else's.
func (r *run) isForeign() bool { return r.engine.Capabilities().Foreign }

// isGone reports whether the machine has ended.
func (r *run) isGone() bool {
	select {
	case <-r.gone:
		return true
	default:
		return false
	}
}

// Start starts a halted qube; the job of a qube that is up already ends at
// once.
func (c *Core) Start(id qube.UUID) (uint64, error) {
	q, err := c.find(id)
	if err != nil {
		return 0, err
	}
	if q.IsAdmin() {
		return 0, Failf(NotHalted, "dom0 is always running")
	}
	if _, err := c.findMachine(id); err != nil {
		return 0, err
	}
	return c.begin("start", q.Name(), "Starting "+string(q.Name()), func(ctx context.Context, p *progress) error {
		return c.bring(ctx, id, p)
	}), nil
}

// bring makes sure that the qube runs and its agent answers, and before it
// the one that gives it network.
func (c *Core) bring(ctx context.Context, id qube.UUID, p *progress) error {
	err := c.keepTrying(ctx, id, p)
	if err != nil {
		c.discard(id)
	}
	return err
}

// discard removes a disposable that could not be started.
func (c *Core) discard(id qube.UUID) {
	unlock, err := c.lock(c.life, id)
	if err != nil {
		return // the core closes
	}
	defer unlock()
	if q, err := c.find(id); err == nil && q.isThrowaway() && q.isDown() {
		c.throwAway(id)
	}
}

func (c *Core) keepTrying(ctx context.Context, id qube.UUID, p *progress) error {
	for {
		if err := c.bringNetVM(ctx, id, p); err != nil {
			return err
		}
		wait, err := c.tryStart(ctx, id, p)
		if err != nil || wait == nil {
			return err
		}
		// The last run is about to end.
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// bringNetVM makes sure that the netvm of a halted qube runs. No lock is held:
// otherwise two starts might wait for each other.
func (c *Core) bringNetVM(ctx context.Context, id qube.UUID, p *progress) error {
	q, err := c.findMachine(id)
	if err != nil || !q.isDown() || q.mayStart() != nil {
		return err // what else is to be said, the start itself says
	}
	net, ok := q.Referent("netvm")
	if !ok || !net.isDown() && net.State() != qube.Transient && net.State() != qube.Halting && net.State() != qube.Dying {
		return nil
	}
	if err := c.bring(ctx, net.UUID(), p); err != nil {
		return wrap(err, "start %s, which gives network to %s", net.Name(), q.Name())
	}
	return nil
}

// mayStart tells why a qube must not be started whatever is there.
func (q Qube) mayStart() error {
	if why, ok := q.Feature("prohibit-start"); ok && why != "" {
		return Failf(VMError, "%s must not be started: %s", q.Name(), why)
	}
	if slices.Contains(q.e.rec.Tags, "backup-restore-in-progress") {
		return Failf(VMError, "%s is being restored from a backup and must not be started", q.Name())
	}
	if name := q.Property("netvm"); name != "" {
		if _, ok := q.v.Named(qube.Name(name)); !ok {
			return Failf(VMError, "%s has the netvm %s, which is gone: choose another one", q.Name(), name)
		}
	}
	return nil
}

// tryStart starts the qube. It returns a channel when the qube is just
// halting, and the start must be tried again after it.
func (c *Core) tryStart(ctx context.Context, id qube.UUID, p *progress) (<-chan struct{}, error) {
	unlock, err := c.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	q, err := c.findMachine(id)
	if err != nil {
		return nil, err
	}
	switch q.State() {
	case qube.Halting, qube.Dying:
		c.mu.Lock()
		r := c.runs[id]
		c.mu.Unlock()
		if r != nil {
			return r.done, nil
		}
		return nil, Failf(VMError, "%s is shutting down", q.Name())
	case qube.NA:
		return nil, Failf(VMError, "%s cannot be started: %s", q.Name(), q.Trouble())
	case qube.Transient:
		return nil, c.awaitAgent(ctx, q)
	case qube.Halted:
	default:
		return nil, nil // it is up
	}
	if net, ok := q.Referent("netvm"); ok && net.isDown() && q.mayStart() == nil {
		again := make(chan struct{}) // it was started for us, and ended meanwhile
		close(again)
		return again, nil
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.starts[id] = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.starts, id)
		r := c.runs[id]
		c.mu.Unlock()
		if r != nil && r.isReady() {
			c.started(id) // a hello during a start that did not wait for it
		}
	}()
	if err := c.startMachine(ctx, q, p); err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errKilled) {
			err = cause // rather than what it led to
		}
		c.must(func(t *tx) {
			if e := t.edit(id); e != nil {
				e.state, e.xid, e.engine, e.started = qube.Halted, -1, "", time.Time{}
				t.emit(e, "domain-start-failed", Arg{"reason", err.Error()})
				t.offerNothing(e)
			}
		})
		return nil, err
	}
	return nil, nil
}

// throwAway removes a disposable that has ended. The caller holds its lock.
func (c *Core) throwAway(id qube.UUID) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.demolish(ctx, id); err != nil {
		c.log.Error("remove a disposable", "qube", string(id), "error", err)
	}
}

// startMachine does the start, or undoes all of it. The caller holds the
// qube's lock.
func (c *Core) startMachine(ctx context.Context, q Qube, p *progress) error {
	id, name := q.UUID(), q.Name()
	say := func(f float64, what string) { p.report(f, fmt.Sprintf("Starting %s — %s", name, what)) }
	if err := q.mayStart(); err != nil {
		return err
	}
	if err := c.requiredDevices(q); err != nil {
		return err
	}
	eng, err := c.engineOf(q)
	if err != nil {
		return err
	}
	undo := &undo{log: c.log.With("qube", string(name))}
	defer undo.run()

	c.must(func(t *tx) {
		e := t.edit(id)
		e.state, e.ended, e.engine = qube.Transient, "", eng.Name()
		t.emit(e, "domain-pre-start", withGUID, Arg{"mem_required", "None"})
	})
	say(0.05, "preparing its volumes")
	f := facts{UUID: id, Name: name, Engine: eng.Name(), Started: c.clock.Now()}
	foreign := eng.Capabilities().Foreign
	var images map[string]storage.Attachment
	if !foreign {
		if images, err = c.startVolumes(ctx, q, &f, undo); err != nil {
			return err
		}
	}

	f.Domain, err = c.allocateDomain(q, foreign)
	if err != nil {
		return err
	}
	link := ""
	if !foreign {
		if link, err = c.makeLink(f.Domain); err != nil {
			return wrap(err, "start %s", name)
		}
		undo.push("remove the link folder", func(context.Context) error { return os.RemoveAll(link) })
	}
	if err := c.saveFacts(f); err != nil {
		return wrap(err, "start %s", name)
	}
	undo.push("forget the run", func(context.Context) error { return c.dropFacts(id) })

	say(0.2, "opening its link")
	r := newRun(f, eng)
	c.mu.Lock()
	c.runs[id] = r
	c.mu.Unlock()
	undo.push("forget the machine", func(context.Context) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.runs, id)
		close(r.done)
		return nil
	})
	// qrexecd opens the link while the machine is prepared.
	linked := make(chan error, 1)
	go func() { linked <- c.announce(ctx, q, f.Domain, link) }()
	undo.push("take the link back", func(context.Context) error { c.cfg.Router.Down(f.Domain); return nil })

	say(0.3, "preparing the machine")
	m := engine.Machine{
		UUID: string(id), Name: name, Domain: f.Domain,
		Memory: q.Number("memory"), VCPUs: q.Number("vcpus"),
		Root: images[rootVolume], Private: images[privateVolume], Volatile: images[volatileVolume],
		LinkDir: link, AgentDir: c.cfg.AgentDir,
	}
	undo.push("release the machine", func(ctx context.Context) error { return eng.Release(ctx, string(id)) })
	prepared := eng.Prepare(ctx, m)
	if err := <-linked; err != nil {
		return wrap(err, "start %s: its link", name)
	}
	if prepared != nil {
		return wrap(prepared, "prepare %s", name)
	}
	c.must(func(t *tx) { t.emit(t.edit(id), "domain-pre-spawn", withGUID) })
	say(0.5, "booting")
	if err := eng.Start(ctx, string(id)); err != nil {
		return wrap(err, "start %s", name)
	}
	undo.push("kill the machine", func(ctx context.Context) error {
		if err := eng.Kill(ctx, string(id)); err != nil && !errors.Is(err, engine.ErrNotRunning) {
			return err
		}
		// The word of its end must not be taken for that of the next run.
		select {
		case <-r.gone:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the engine did not tell of its end: %w", ctx.Err())
		}
	})
	c.must(func(t *tx) {
		e := t.edit(id)
		e.xid, e.started = int(f.Domain), f.Started
		t.newRun(e)
		t.emit(e, "domain-spawn", withGUID)
	})
	if foreign {
		undo.disarm()
		return nil // whose agents come when they come
	}
	say(0.6, "waiting for its agent")
	if err := c.awaitHello(ctx, q, r); err != nil {
		return err
	}
	undo.disarm()
	c.started(id)
	c.measureFamily(id)
	return nil
}

// withGUID tells in the events of a start that the qube's windows are wanted.
var withGUID = Arg{"start_guid", "True"}

// started tells that a qube's agent has said hello, and the qube's network that
// it has come.
func (c *Core) started(id qube.UUID) {
	c.must(func(t *tx) {
		if old, ok := t.v.qubes[id]; !ok || old.state != qube.Transient {
			return
		}
		e := t.edit(id)
		e.state = qube.Running
		t.emit(e, "domain-start", withGUID)
		if net, ok := (Qube{t.v, e}).Referent("netvm"); ok {
			t.emit(net.e, "net-domain-connect", Arg{"vm", string(e.rec.Name)})
		}
	})
}

// newRun tells of the properties that belong to a run.
func (t *tx) newRun(e *entry) {
	for _, name := range []string{"xid", "start_time"} {
		t.emit(e, "property-reset:"+name, Arg{"name", name})
	}
}

// engineOf is the engine that shall run the qube.
func (c *Core) engineOf(q Qube) (engine.Engine, error) {
	name := q.Property("engine")
	e, ok := c.engines[name]
	if !ok {
		return nil, Failf(VMError, "%s shall be run by %q, which this machine does not have", q.Name(), name)
	}
	return e, nil
}

// startVolumes starts root and private; what a sandbox writes outside them
// goes to the overlay that comes with the root. They start at the same time:
// one copies, the other makes an overlay.
func (c *Core) startVolumes(ctx context.Context, q Qube, f *facts, undo *undo) (map[string]storage.Attachment, error) {
	var volumes []Volume
	var pools []storage.Pool
	for _, v := range q.Volumes() {
		if v.Name == volatileVolume {
			continue
		}
		p, err := c.pool(v.Pool)
		if err != nil {
			return nil, err
		}
		volumes, pools = append(volumes, v), append(pools, p)
	}
	attached, errs := make([]storage.Attachment, len(volumes)), make([]error, len(volumes))
	var starts sync.WaitGroup
	for i, v := range volumes {
		starts.Go(func() { attached[i], errs[i] = pools[i].Start(ctx, v.Spec) })
	}
	starts.Wait()
	images := map[string]storage.Attachment{}
	var failed error
	for i, v := range volumes {
		if errs[i] != nil {
			failed = cmp.Or(failed, wrap(errs[i], "start volume %s of %s", v.Name, q.Name()))
			continue
		}
		images[v.Name] = attached[i]
		img := startedImage{v.Pool, v.Spec, v.Spec.SaveOnStop && q.Class() != qube.TemplateVM}
		f.Volumes = append(f.Volumes, img)
		undo.push("stop volume "+v.Name, func(ctx context.Context) error { return pools[i].Stop(ctx, v.Spec, img.Always) })
	}
	return images, failed
}

// allocateDomain returns an id that no running qube has, not soon used again;
// for a foreign machine the one that it was given, if it was.
func (c *Core) allocateDomain(q Qube, foreign bool) (vchan.Domain, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := map[vchan.Domain]bool{}
	for _, r := range c.runs {
		used[r.facts.Domain] = true
	}
	if d := vchan.Domain(q.Number("external_domain")); foreign && d != 0 {
		if used[d] {
			return 0, Failf(InUse, "the domain id %d of %s is that of another running qube", d, q.Name())
		}
		return d, nil
	}
	for range lastDomain - vchan.FirstDomain + 1 {
		if c.lastDom++; c.lastDom < vchan.FirstDomain || c.lastDom > lastDomain {
			c.lastDom = vchan.FirstDomain
		}
		if !used[c.lastDom] {
			return c.lastDom, nil
		}
	}
	return 0, Failf(VMError, "all domain ids are in use")
}

func (c *Core) linkDir(d vchan.Domain) string {
	return filepath.Join(c.cfg.Links, strconv.Itoa(int(d)))
}

// makeLink makes the folder in which qrexecd listens for a qube.
func (c *Core) makeLink(d vchan.Domain) (string, error) {
	dir := c.linkDir(d)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask was
		return "", err
	}
	if err := os.Chown(dir, c.cfg.QrexecUID, -1); err != nil {
		return "", err
	}
	return dir, nil
}

func (c *Core) announce(ctx context.Context, q Qube, d vchan.Domain, link string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, routerTime, errors.New("qrexecd does not answer"))
	defer cancel()
	err := c.cfg.Router.Up(ctx, control.Qube{
		Domain: d, Name: string(q.Name()), UUID: string(q.UUID()),
		DefaultUser: q.Property("default_user"), LinkDir: link,
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// awaitHello waits until the qube's agent answers.
func (c *Core) awaitHello(ctx context.Context, q Qube, r *run) error {
	seconds := q.Number("qrexec_timeout")
	select {
	case <-r.ready:
		return nil
	case <-r.gone:
		return Failf(VMError, "%s ended while it was starting: %s", q.Name(), describe(r.end))
	case <-c.clock.After(time.Duration(seconds) * time.Second):
		return Failf(VMError, "the agent of %s did not answer within %d s", q.Name(), seconds)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitAgent is for a qube that is up without an agent, as after a restart of
// qubesd.
func (c *Core) awaitAgent(ctx context.Context, q Qube) error {
	c.mu.Lock()
	r := c.runs[q.UUID()]
	c.mu.Unlock()
	if r == nil {
		return Failf(VMError, "%s is in transition", q.Name())
	}
	if r.isForeign() {
		return nil
	}
	return c.awaitHello(ctx, q, r)
}

// describe is the end of a machine in words.
func describe(e engine.Event) string {
	switch {
	case e.Detail == "":
		return string(e.Reason)
	case strings.Contains(e.Detail, string(e.Reason)):
		return e.Detail
	}
	return string(e.Reason) + ": " + e.Detail
}
