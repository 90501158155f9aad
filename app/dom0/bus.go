package dom0

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"cubicle/app/words"
	"cubicle/daemon/bus/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
)

// Address is the bus of the system below a root folder
// (daemon/bus/client.Address). An empty folder means the one that CUBICLE_ROOT
// names; another goes there, for the programs that this one starts.
func Address(folder string) (string, error) {
	if folder != "" {
		if err := os.Setenv(paths.Env, folder); err != nil {
			return "", fmt.Errorf("root folder %q: %w", folder, err)
		}
	}
	root, err := paths.FromEnv()
	if err != nil {
		return "", err
	}
	return client.Address(root), nil
}

// Bus is the Client that speaks to the daemon over D-Bus. It looks for the
// daemon for as long as it lives.
type Bus struct {
	*feed
	address string
	stop    context.CancelFunc
	done    chan struct{}
	ready   chan struct{} // closed once conn is set
	heard   chan struct{} // closed once there is a snapshot of the daemon's
	conn    *client.Client
}

var _ Client = (*Bus)(nil)

// Connect returns at once; the first snapshots say Connecting until the
// daemon answers. Close ends it.
func Connect(address string) *Bus {
	ctx, stop := context.WithCancel(context.Background())
	b := &Bus{
		feed:    newFeed(wallClock),
		address: address,
		stop:    stop,
		done:    make(chan struct{}),
		ready:   make(chan struct{}),
		heard:   make(chan struct{}),
	}
	go b.run(ctx)
	return b
}

// Close ends the connection; the last snapshot stays.
func (b *Bus) Close() error {
	b.stop()
	<-b.done
	return nil
}

// Hear waits until the daemon has spoken, or for so long.
func (b *Bus) Hear(limit time.Duration) {
	select {
	case <-b.heard:
	case <-b.done:
	case <-time.After(limit):
	}
}

// patience is how long the daemon may take before its absence is worth a
// sentence, batchQuiet and batchMax bound how long events are gathered.
const (
	patience   = 700 * time.Millisecond
	batchQuiet = 2 * time.Millisecond
	batchMax   = 40 * time.Millisecond
)

func (b *Bus) run(ctx context.Context) {
	defer close(b.done)
	busSilent := time.AfterFunc(patience, func() {
		b.complain(words.T("Nothing answers on the bus at %s.", b.address))
	})
	conn, err := client.Connect(ctx, b.address)
	busSilent.Stop()
	if err != nil {
		return // closed before the bus was there
	}
	defer conn.Close()
	b.conn = conn
	close(b.ready)

	daemonSilent := time.AfterFunc(patience, func() {
		b.complain(words.T("The bus is there, but qubesd is not running on it."))
	})
	defer daemonSilent.Stop()
	events := conn.Watch(ctx)
	spoken := sync.OnceFunc(func() { close(b.heard) })
	go b.watchDisk(ctx)
	for e := range events {
		batch := []client.Event{e}
		if _, whole := e.(client.Connected); !whole { // nothing is close behind that
			batch = gather(e, events)
		}
		b.change(func() weight {
			w := nothing
			for _, e := range batch {
				w = max(w, b.apply(e))
			}
			return w
		})
		spoken()
	}
}

// diskPause is how long what is known of the disk is good enough.
const diskPause = 30 * time.Second

// watchDisk keeps the state's Disk until the context ends.
func (b *Bus) watchDisk(ctx context.Context) {
	next := time.NewTimer(diskPause / 30) // the first picture needs no disk
	defer next.Stop()
	for {
		select {
		case <-next.C:
			next.Reset(diskPause)
		case <-ctx.Done():
			return
		}
		ask, cancel := context.WithTimeout(ctx, diskPause)
		size, used, err := b.conn.DiskSpace(ask)
		cancel()
		if err != nil {
			size, used = 0, 0
		}
		b.change(func() weight {
			if b.state.Link != Connected || b.state.Disk == (Disk{size, used}) {
				return nothing
			}
			b.state.Disk = Disk{size, used}
			return chatter
		})
	}
}

// gather adds to first what follows close behind it, so that a burst of
// events makes one snapshot.
func gather(first client.Event, events <-chan client.Event) []client.Event {
	batch := []client.Event{first}
	quiet, full := time.NewTimer(batchQuiet), time.NewTimer(batchMax)
	defer quiet.Stop()
	defer full.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return batch
			}
			batch = append(batch, e)
			quiet.Reset(batchQuiet)
		case <-quiet.C:
			return batch
		case <-full.C:
			return batch
		}
	}
}

// complain explains a link that is not there; one that came meanwhile wins.
func (b *Bus) complain(why string) {
	b.change(func() weight {
		if b.state.Link != Connecting {
			return nothing
		}
		b.state.Problem = why
		return important
	})
}

// apply takes one event into the state; the caller is inside change.
func (b *Bus) apply(e client.Event) weight {
	switch e := e.(type) {
	case client.Connected:
		b.clear()
		s := e.Snapshot
		b.state.Link = Connected
		b.takeDefaults(s.DefaultTemplate, s.DefaultEngine)
		b.state.Engines = engines(s.Engines)
		b.setLabels(s.Labels)
		b.state.Devices = fromDevices(s.Devices)
		for _, q := range s.Qubes {
			b.takeQube(q)
		}
		for _, id := range sortedJobs(s.Jobs) {
			b.takeJob(s.Jobs[id])
		}
		return important
	case client.Lost:
		b.state.Link = Lost
		b.state.Problem = words.T("The connection to qubesd was lost.")
		if e.Err != nil {
			b.state.Problem = words.T("The connection to qubesd was lost: %v.", e.Err)
		}
		return important
	case client.QubeAdded:
		return b.takeQube(e.Qube)
	case client.QubeChanged:
		return b.takeQube(e.Qube)
	case client.QubeRemoved:
		delete(b.qubes, QubeID(e.Qube.UUID))
		return important
	case client.JobAdded:
		return b.takeJob(e.Job)
	case client.JobChanged:
		return b.takeJob(e.Job)
	case client.JobRemoved:
		b.dropJob(jobID(e.Job.ID))
		return important
	case client.LabelsChanged:
		b.setLabels(e.Labels)
		return important
	case client.DevicesChanged:
		devices := fromDevices(e.Devices)
		if slices.EqualFunc(devices, b.state.Devices, Device.Equal) {
			return nothing
		}
		b.state.Devices = devices
		return important
	case client.DefaultsChanged:
		b.takeDefaults(e.Template, e.Engine)
		b.state.Engines = engines(e.Engines)
		return important
	}
	return nothing
}

// takeQube puts a qube into the state, and takeJob a job; what the daemon
// cannot have said in earnest is left out.
func (b *Bus) takeQube(q client.Qube) weight {
	checked, err := fromQube(q)
	if err != nil {
		slog.Warn("the daemon tells of a qube that cannot be", "error", err)
		return nothing
	}
	return b.putQube(checked)
}

func (b *Bus) takeJob(j client.Job) weight {
	checked, err := fromJob(j)
	if err != nil {
		slog.Warn("the daemon tells of a job that cannot be", "error", err)
		return nothing
	}
	return b.putJob(checked)
}

func (b *Bus) takeDefaults(template, engine string) {
	name, err := maybeName(template)
	if err != nil {
		slog.Warn("the daemon tells of a default template that cannot be", "error", err)
	}
	b.state.DefaultTemplate, b.state.DefaultEngine = name, oneLine(engine)
}

func (b *Bus) setLabels(list []client.Label) {
	clear(b.labels)
	for _, l := range list {
		if err := qube.CheckLabelName(l.Name); err != nil {
			slog.Warn("the daemon tells of a label that cannot be", "error", err)
			continue
		}
		b.labels[l.Name] = Label{Name: l.Name, Index: int(l.Index), Color: l.Color}
	}
}

// daemon is the connection, waiting for the bus if it is not there yet.
func (b *Bus) daemon(ctx context.Context) (*client.Client, error) {
	select {
	case <-b.ready:
		return b.conn, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("nothing answers on the bus at %s", b.address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// act runs an action that starts a job.
func (b *Bus) act(ctx context.Context, op, subject string, call func(*client.Client) (uint64, error)) (JobID, error) {
	conn, err := b.daemon(ctx)
	if err != nil {
		return "", refusal(op, subject, err)
	}
	id, err := call(conn)
	if err != nil {
		return "", refusal(op, subject, err)
	}
	return jobID(id), nil
}

func refusal(op, subject string, err error) error {
	e := &Error{Op: op, Subject: subject, Name: client.ErrorName(err), Reason: err.Error(), Err: err}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Reason = words.T("qubesd did not answer in time")
	case errors.Is(err, context.Canceled):
		e.Reason = words.T("it was called off")
	}
	return e
}

// called is the qube's name for messages.
func (b *Bus) called(id QubeID) string {
	if q, ok := b.Snapshot().ByID(id); ok {
		return string(q.Name)
	}
	return string(id)
}

// Create implements Client.
func (b *Bus) Create(ctx context.Context, w NewQube) (JobID, error) {
	return b.act(ctx, "create", string(w.Name), func(c *client.Client) (uint64, error) {
		properties := maps.Clone(w.Properties)
		if properties == nil {
			properties = map[string]string{}
		}
		sizes := map[string]uint64{}
		if w.Private > 0 {
			sizes["private"] = w.Private
		}
		if w.Template != "" {
			properties["template"] = string(w.Template)
		}
		return c.CreateSized(ctx, string(w.Name), string(w.Class), w.Label.Name, properties, sizes)
	})
}

// Clone implements Client.
func (b *Bus) Clone(ctx context.Context, id QubeID, name Name) (JobID, error) {
	return b.act(ctx, "clone", b.called(id), func(c *client.Client) (uint64, error) { return c.Clone(ctx, string(id), string(name)) })
}

// Remove implements Client.
func (b *Bus) Remove(ctx context.Context, id QubeID) (JobID, error) {
	return b.act(ctx, "remove", b.called(id), func(c *client.Client) (uint64, error) { return c.Remove(ctx, string(id)) })
}

// Start implements Client.
func (b *Bus) Start(ctx context.Context, id QubeID) (JobID, error) {
	return b.act(ctx, "start", b.called(id), func(c *client.Client) (uint64, error) { return c.Start(ctx, string(id)) })
}

// Shutdown implements Client.
func (b *Bus) Shutdown(ctx context.Context, id QubeID, force bool) (JobID, error) {
	return b.act(ctx, "shutdown", b.called(id), func(c *client.Client) (uint64, error) { return c.Shutdown(ctx, string(id), force) })
}

// Kill implements Client.
func (b *Bus) Kill(ctx context.Context, id QubeID) (JobID, error) {
	return b.act(ctx, "kill", b.called(id), func(c *client.Client) (uint64, error) { return c.Kill(ctx, string(id)) })
}

// Pause implements Client.
func (b *Bus) Pause(ctx context.Context, id QubeID) (JobID, error) {
	return b.act(ctx, "pause", b.called(id), func(c *client.Client) (uint64, error) { return c.Pause(ctx, string(id)) })
}

// Unpause implements Client.
func (b *Bus) Unpause(ctx context.Context, id QubeID) (JobID, error) {
	return b.act(ctx, "unpause", b.called(id), func(c *client.Client) (uint64, error) { return c.Unpause(ctx, string(id)) })
}

// StartApp implements Client.
func (b *Bus) StartApp(ctx context.Context, id QubeID, app AppID) (JobID, error) {
	return b.act(ctx, "app", b.called(id), func(c *client.Client) (uint64, error) { return c.StartApp(ctx, string(id), string(app)) })
}

// Run implements Client.
func (b *Bus) Run(ctx context.Context, id QubeID, command, user string) (JobID, error) {
	return b.act(ctx, "run", b.called(id), func(c *client.Client) (uint64, error) { return c.Run(ctx, string(id), command, user, true) })
}

// Cancel implements Client.
func (b *Bus) Cancel(ctx context.Context, id JobID) error {
	n, err := jobNumber(id)
	if err != nil {
		return refusal("cancel", string(id), err)
	}
	conn, err := b.daemon(ctx)
	if err != nil {
		return refusal("cancel", string(id), err)
	}
	if err := conn.Cancel(ctx, n); err != nil {
		return refusal("cancel", string(id), err)
	}
	return nil
}

// oneLine keeps a text of the daemon's on one line of a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
