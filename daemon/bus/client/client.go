// Package client is the way of dom0's programs to qubesd: one snapshot of the
// whole state, then events, and a method for everything that can be asked.
//
// Most callers use Connect, then Watch. Where qubesd is, whether it is there
// yet, and what happens when it is restarted is hidden here, in one place:
//
//   - Connect and the goroutine behind a Client dial the bus again and again
//     (after 50 ms at first, 1 s at most) until the client is closed.
//   - While qubesd is away, watchers have got Lost; Connected with a fresh
//     Snapshot follows when it is back.
//   - A method that is called while qubesd is away waits up to 5 s for it and
//     then fails with the exception QubesDaemonCommunicationError. A method
//     that was under way when qubesd went is never repeated.
package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
	patience   = 5 * time.Second
)

// communicationError is upstream's name for "the daemon cannot be reached"
// (spec/admin-api.md §1.2).
const communicationError = "QubesDaemonCommunicationError"

// Error is a failure that qubesd reports.
type Error struct {
	Name    string // the Admin API's exception name, such as QubesVMNotFoundError
	Message string
}

func (e *Error) Error() string { return e.Message }

// ErrorName is the exception name of an error of this package, or empty.
func ErrorName(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Name
	}
	return ""
}

// Client follows one qubesd. Its methods are safe for concurrent use.
type Client struct {
	address string
	stop    context.CancelFunc
	done    chan struct{}

	mu       sync.Mutex // guards what follows
	conn     *dbus.Conn // nil while there is no bus
	state    *Snapshot  // nil while qubesd is away
	changed  chan struct{}
	watchers map[*queue]struct{}
}

// Connect returns a client of the qubesd on the bus at that address (see
// Address). It waits until the bus answers; qubesd itself may come later. The
// context bounds the wait alone: end the client with Close.
func Connect(ctx context.Context, address string) (*Client, error) {
	life, stop := context.WithCancel(context.Background())
	c := &Client{
		address:  address,
		stop:     stop,
		done:     make(chan struct{}),
		changed:  make(chan struct{}),
		watchers: map[*queue]struct{}{},
	}
	first := make(chan struct{})
	go c.run(life, first)
	select {
	case <-first:
		return c, nil
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("connect to the bus at %s: %w", address, ctx.Err())
	}
}

// Close ends the client and the streams of its watchers.
func (c *Client) Close() error {
	c.stop()
	<-c.done
	return nil
}

// Watch delivers Connected as soon as qubesd is there and every event after
// it, in order; changes of one object that wait to be read are merged. The
// channel closes when the context ends or the client is closed.
func (c *Client) Watch(ctx context.Context) <-chan Event {
	q := newQueue()
	c.mu.Lock()
	if c.state != nil {
		q.push(Connected{c.state.clone()})
	}
	c.watchers[q] = struct{}{}
	c.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	out := make(chan Event)
	go func() {
		defer close(out)
		defer cancel()
		q.drain(ctx, out)
		c.mu.Lock()
		delete(c.watchers, q)
		c.mu.Unlock()
	}()
	go func() {
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return out
}

// Snapshot is the state as it is known now, waiting for qubesd if need be.
func (c *Client) Snapshot(ctx context.Context) (Snapshot, error) {
	var s Snapshot
	_, err := c.ready(ctx, &s)
	return s, err
}

// run keeps the connection until the client is closed.
func (c *Client) run(ctx context.Context, first chan struct{}) {
	defer close(c.done)
	pause := firstPause
	for {
		conn, err := dial(ctx, c.address)
		if err == nil {
			pause = firstPause
			if first != nil {
				close(first)
				first = nil
			}
			err = c.follow(ctx, conn)
			conn.Close()
		}
		if ctx.Err() != nil {
			return // we were closed; nothing was lost
		}
		c.lose(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, lastPause)
	}
}

func dial(ctx context.Context, address string) (*dbus.Conn, error) {
	// The sequential handler keeps signals in order and never drops one.
	conn, err := dbus.Dial(address, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()), dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth(nil); err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.Hello(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// follow mirrors qubesd until the connection ends.
func (c *Client) follow(ctx context.Context, conn *dbus.Conn) error {
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, BusName)},
		{dbus.WithMatchSender(BusName), dbus.WithMatchInterface("org.freedesktop.DBus.ObjectManager")},
		{dbus.WithMatchSender(BusName), dbus.WithMatchInterface("org.freedesktop.DBus.Properties")},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}

	var owned bool
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, BusName).Store(&owned); err != nil {
		return fmt.Errorf("ask for %s: %w", BusName, err)
	}
	if owned {
		if err := c.load(ctx, conn); err != nil {
			return err
		}
	}
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return errors.New("the bus closed the connection")
			}
			if err := c.signal(ctx, conn, s); err != nil {
				return err
			}
		case <-conn.Context().Done():
			return errors.New("the bus closed the connection")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// load takes the snapshot. Signals that were emitted before it was made may
// still be waiting; applying them once more in order ends at the same state.
func (c *Client) load(ctx context.Context, conn *dbus.Conn) error {
	var objects map[dbus.ObjectPath]map[string]properties
	call := conn.Object(BusName, RootPath).CallWithContext(ctx, "org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0)
	if err := call.Store(&objects); err != nil {
		var e dbus.Error
		if errors.As(err, &e) && (e.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || e.Name == "org.freedesktop.DBus.Error.NoReply") {
			return nil // it went again; NameOwnerChanged tells the rest
		}
		return fmt.Errorf("take the snapshot: %w", err)
	}
	// The manager sits at the ObjectManager's own path, which a snapshot does
	// not have to contain.
	if _, ok := objects[RootPath]; !ok {
		var p properties
		call := conn.Object(BusName, RootPath).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, ManagerInterface)
		if err := call.Store(&p); err != nil {
			return fmt.Errorf("read the manager's properties: %w", err)
		}
		objects[RootPath] = map[string]properties{ManagerInterface: p}
	}
	state := newSnapshot()
	for path, ifaces := range objects {
		for iface, p := range ifaces {
			state.put(path, iface, p, true)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.state = conn, state
	c.tell(Connected{state.clone()})
	return nil
}

func (c *Client) signal(ctx context.Context, conn *dbus.Conn, s *dbus.Signal) error {
	switch s.Name {
	case "org.freedesktop.DBus.NameOwnerChanged":
		var name, old, now string
		if s.Sender != "org.freedesktop.DBus" || dbus.Store(s.Body, &name, &old, &now) != nil || name != BusName {
			return nil
		}
		c.lose(errors.New("qubesd left the bus"))
		if now != "" {
			return c.load(ctx, conn)
		}
	case "org.freedesktop.DBus.ObjectManager.InterfacesAdded":
		var path dbus.ObjectPath
		var ifaces map[string]properties
		if dbus.Store(s.Body, &path, &ifaces) != nil {
			return nil
		}
		c.apply(func(state *Snapshot) (events []Event) {
			for iface, p := range ifaces {
				events = append(events, state.put(path, iface, p, true))
			}
			return events
		})
	case "org.freedesktop.DBus.ObjectManager.InterfacesRemoved":
		var path dbus.ObjectPath
		var ifaces []string
		if dbus.Store(s.Body, &path, &ifaces) != nil {
			return nil
		}
		c.apply(func(state *Snapshot) []Event { return []Event{state.drop(path)} })
	case "org.freedesktop.DBus.Properties.PropertiesChanged":
		var iface string
		var p properties
		var gone []string
		if dbus.Store(s.Body, &iface, &p, &gone) != nil {
			return nil
		}
		c.apply(func(state *Snapshot) []Event { return []Event{state.put(s.Path, iface, p, false)} })
	}
	return nil
}

func (c *Client) apply(change func(*Snapshot) []Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return // a late word of a qubesd that is gone
	}
	for _, e := range change(c.state) {
		if e != nil {
			c.tell(e)
		}
	}
}

func (c *Client) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return
	}
	c.conn, c.state = nil, nil
	c.tell(Lost{err})
}

// tell passes an event to the watchers and wakes those who wait for a state.
// The caller holds mu.
func (c *Client) tell(e Event) {
	for q := range c.watchers {
		q.push(e)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// ready returns the connection once qubesd is there, and a copy of the state
// when snap is given.
func (c *Client) ready(ctx context.Context, snap *Snapshot) (*dbus.Conn, error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		conn, changed := c.conn, c.changed
		if conn != nil {
			if snap != nil {
				*snap = c.state.clone()
			}
			c.mu.Unlock()
			return conn, nil
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-c.done:
			return nil, &Error{communicationError, "the connection to qubesd is closed"}
		case <-deadline.C:
			return nil, &Error{communicationError, "qubesd does not run"}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// call invokes a method of qubesd and stores what it returns.
func (c *Client) call(ctx context.Context, path dbus.ObjectPath, method string, results []any, args ...any) error {
	conn, err := c.ready(ctx, nil)
	if err != nil {
		return err
	}
	call := conn.Object(BusName, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
	if call.Err != nil {
		return named(ctx, call.Err)
	}
	if err := call.Store(results...); err != nil {
		return &Error{communicationError, fmt.Sprintf("%s: unexpected reply: %v", method, err)}
	}
	return nil
}

// named turns a failure of a call into an Error.
func named(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e dbus.Error
	if !errors.As(err, &e) {
		return &Error{communicationError, err.Error()}
	}
	if name, ok := strings.CutPrefix(e.Name, ErrorPrefix); ok {
		return &Error{name, e.Error()}
	}
	switch e.Name {
	case "org.freedesktop.DBus.Error.AccessDenied":
		return &Error{"PermissionDenied", e.Error()}
	case "org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.NoSuchObject": // godbus' word
		return &Error{"QubesVMNotFoundError", e.Error()}
	}
	return &Error{communicationError, e.Error()}
}
