package notifier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Watcher is the register of tray icons for a session in which nobody else is
// it. It waits in the queue for the watcher's name, so that it has the name
// only while no other program has it; and when another program comes whose
// watcher waits behind ours, ours makes room.
type Watcher struct {
	conn    *dbus.Conn
	changed func(Register)

	mu    sync.Mutex // guards what follows
	owner bool
	items []Address
	hosts []string // unique names of other programs' hosts
}

// Address is where an icon is: a connection's name and an object's path.
type Address struct {
	Bus  string // unique name
	Name string // the name that the program gave, unique or not
	Path dbus.ObjectPath
}

// service is the address as the watcher's clients write it.
func (a Address) service() string { return a.Name + string(a.Path) }

// Register is what a watcher knows at one moment.
type Register struct {
	Owner   bool // ours is the session's watcher
	Foreign bool // another program shows the icons that are registered with ours
	Items   []Address
}

// Visible tells whether it is up to us to show the icons.
func (r Register) Visible() bool { return r.Owner && !r.Foreign }

// NewWatcher exports a watcher on a connection of its own, which it takes
// over. changed is called from Run, with every change; it must not block.
func NewWatcher(conn *dbus.Conn, changed func(Register)) (*Watcher, error) {
	w := &Watcher{conn: conn, changed: changed}
	for name, object := range map[string]any{watcherFace: watcherMethods{w}, propertiesFace: watcherProperties{w}} {
		if err := conn.Export(object, watcherPath, name); err != nil {
			return nil, fmt.Errorf("export the tray's watcher: %w", err)
		}
	}
	return w, nil
}

// yieldChecks are the times after a program's coming at which it is looked
// whether it waits behind ours: the bus tells nobody who joins a queue.
var yieldChecks = [...]time.Duration{300 * time.Millisecond, 2 * time.Second, 10 * time.Second}

// Run takes part until ctx ends or the bus is gone.
func (w *Watcher) Run(ctx context.Context) error {
	signals := make(chan *dbus.Signal, 256)
	w.conn.Signal(signals)
	defer w.conn.RemoveSignal(signals)
	any := ownerOf("")[:4] // of any name: programs that leave, hosts that come
	if err := w.conn.AddMatchSignalContext(ctx, any...); err != nil {
		return fmt.Errorf("tray's watcher: follow the bus: %w", err)
	}
	if err := w.join(); err != nil {
		return err
	}
	yield := make(chan struct{}, 1)
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("tray's watcher: the session bus is gone")
			}
			if w.hear(s) {
				for _, wait := range yieldChecks {
					time.AfterFunc(wait, func() {
						select {
						case yield <- struct{}{}:
						default: // one look is as good as two
						}
					})
				}
			}
		case <-yield:
			if err := w.makeRoom(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			if _, err := w.conn.ReleaseName(WatcherName); err != nil {
				return fmt.Errorf("tray's watcher: give its name back: %w", err)
			}
			return nil
		}
	}
}

// join asks for the watcher's name. Whoever wants it instead may have it.
func (w *Watcher) join() error {
	reply, err := w.conn.RequestName(WatcherName, dbus.NameFlagAllowReplacement)
	if err != nil {
		return fmt.Errorf("tray's watcher: ask for its name: %w", err)
	}
	w.own(reply == dbus.RequestNameReplyPrimaryOwner || reply == dbus.RequestNameReplyAlreadyOwner)
	return nil
}

// own takes up the office, or gives it up. Icons register anew with every
// watcher, so an old register is worth nothing; a new one may have entries
// already, from programs that saw the new owner before we did.
func (w *Watcher) own(owner bool) {
	w.mu.Lock()
	if w.owner == owner {
		w.mu.Unlock()
		return
	}
	w.owner = owner
	if !owner {
		w.items, w.hosts = nil, nil
	}
	w.mu.Unlock()
	if owner {
		w.emit("StatusNotifierHostRegistered")
	}
	w.tell()
}

// makeRoom gives the name to another watcher that waits for it.
func (w *Watcher) makeRoom(ctx context.Context) error {
	var queue []string
	err := w.conn.BusObject().CallWithContext(ctx, busName+".ListQueuedOwners", 0, WatcherName).Store(&queue)
	if err != nil || len(queue) < 2 || queue[0] != w.conn.Names()[0] {
		return nil // nobody has the name, or it is not ours to give
	}
	if _, err := w.conn.ReleaseName(WatcherName); err != nil {
		return fmt.Errorf("tray's watcher: give its name away: %w", err)
	}
	w.own(false)
	return w.join()
}

// hear follows the bus and reports whether a program came, or a name that
// hosts have.
func (w *Watcher) hear(s *dbus.Signal) (came bool) {
	if s.Sender == busName && (s.Name == busName+".NameAcquired" || s.Name == busName+".NameLost") {
		var name string
		if dbus.Store(s.Body, &name) == nil && name == WatcherName {
			w.own(s.Name == busName+".NameAcquired")
		}
		return false
	}
	name, was, now, ok := ownerChange(s)
	switch {
	case !ok:
		return false
	case was == "" && (name == now || strings.HasPrefix(name, hostName+"-")):
		return true
	case was != "" && now == "":
		w.left(name, was)
	}
	return false
}

// left forgets what belonged to a name that is gone.
func (w *Watcher) left(name, was string) {
	w.mu.Lock()
	var gone []Address
	w.items = slices.DeleteFunc(w.items, func(a Address) bool {
		if a.Bus == was && (name == was || a.Name == name) {
			gone = append(gone, a)
			return true
		}
		return false
	})
	hosts := len(w.hosts)
	w.hosts = slices.DeleteFunc(w.hosts, func(h string) bool { return h == was && name == was })
	changed := len(gone) > 0 || hosts != len(w.hosts)
	w.mu.Unlock()
	for _, a := range gone {
		w.emit("StatusNotifierItemUnregistered", a.service())
	}
	if changed {
		w.tell()
	}
}

// emit sends a signal; a bus that is gone ends Run.
func (w *Watcher) emit(name string, values ...any) {
	_ = w.conn.Emit(watcherPath, watcherFace+"."+name, values...)
}

// tell hands the register out. Only Run and the methods' goroutines do, one
// at a time.
func (w *Watcher) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed(Register{w.owner, len(w.hosts) > 0, slices.Clone(w.items)})
}

type watcherMethods struct{ w *Watcher }

// RegisterStatusNotifierItem implements org.kde.StatusNotifierWatcher: service
// is a bus name, or the path of an object of the caller.
func (m watcherMethods) RegisterStatusNotifierItem(sender dbus.Sender, service string) *dbus.Error {
	w := m.w
	a := Address{Bus: string(sender), Name: string(sender), Path: itemPath}
	if strings.HasPrefix(service, "/") {
		a.Path = dbus.ObjectPath(service)
	} else if service != string(sender) {
		var owner string
		err := w.conn.BusObject().Call(busName+".GetNameOwner", 0, service).Store(&owner)
		if err != nil || owner != string(sender) {
			return dbus.MakeFailedError(fmt.Errorf("%q is not a name of the caller", service))
		}
		a.Name = service
	}
	if !a.Path.IsValid() {
		return dbus.MakeFailedError(fmt.Errorf("%q is no object path", service))
	}
	w.mu.Lock()
	known := slices.ContainsFunc(w.items, func(o Address) bool { return o.Bus == a.Bus && o.Path == a.Path })
	full := len(w.items) >= maxItems
	if !known && !full {
		w.items = append(w.items, a)
	}
	w.mu.Unlock()
	switch {
	case known:
		return nil
	case full:
		return dbus.MakeFailedError(fmt.Errorf("the tray holds %d icons at most", maxItems))
	}
	w.emit("StatusNotifierItemRegistered", a.service())
	w.tell()
	return nil
}

// RegisterStatusNotifierHost implements org.kde.StatusNotifierWatcher.
func (m watcherMethods) RegisterStatusNotifierHost(sender dbus.Sender, _ string) *dbus.Error {
	w := m.w
	w.mu.Lock()
	fresh := !slices.Contains(w.hosts, string(sender)) && len(w.hosts) < maxItems
	if fresh {
		w.hosts = append(w.hosts, string(sender))
	}
	w.mu.Unlock()
	if fresh {
		w.emit("StatusNotifierHostRegistered")
		w.tell()
	}
	return nil
}

type watcherProperties struct{ w *Watcher }

func (p watcherProperties) all() map[string]dbus.Variant {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	items := []string{}
	for _, a := range p.w.items {
		items = append(items, a.service())
	}
	return map[string]dbus.Variant{
		"RegisteredStatusNotifierItems": dbus.MakeVariant(items),
		// We show the icons ourselves where no other host does.
		"IsStatusNotifierHostRegistered": dbus.MakeVariant(true),
		"ProtocolVersion":                dbus.MakeVariant(int32(0)),
	}
}

// Get implements org.freedesktop.DBus.Properties.
func (p watcherProperties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	return pick(p.all(), name)
}

// GetAll implements org.freedesktop.DBus.Properties.
func (p watcherProperties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	return p.all(), nil
}
