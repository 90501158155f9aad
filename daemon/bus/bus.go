// Package bus serves the core over D-Bus as org.cubicle.Qubes1: one object
// per qube, label and job, described by one table (surface.go). Clients take
// a snapshot with GetManagedObjects and follow signals; package
// daemon/bus/client does that.
//
// The server keeps a mirror of what it has told. After every event it renders
// what may have changed again and tells the difference, so that no change is
// told twice and none is forgotten. Jobs are told when they begin and end, and
// in between as often as the loop comes round.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/calls"
	"cubicle/daemon/core"
	"cubicle/daemon/policy"
)

const (
	// mergeTime is how long changes are gathered after some were told: short
	// enough that nobody sees it.
	mergeTime = 15 * time.Millisecond
	// redialTime is the pause before a lost bus is dialled again.
	redialTime = time.Second
)

// Server serves one core on one bus.
type Server struct {
	// RecentCalls are the last calls of a qube or to it, or of all for an
	// empty name, the newest first; nil: there are none. It is set before Run.
	RecentCalls func(qube string, limit int) []calls.Entry
	// Permissions are the calls from a qube and to it that the policy allows;
	// nil: there is no policy. It is set before Run.
	Permissions func(qube string) ([]policy.Edge, error)
	// Explain tells what would become of a call; nil: there is no policy. It is
	// set before Run.
	Explain func(policy.Question) (policy.Explanation, error)

	core    *core.Core
	address string
	allowed map[uint32]bool
	log     *slog.Logger
}

// New returns a server. Root and the users with these ids may call it.
func New(c *core.Core, address string, uids []int, log *slog.Logger) *Server {
	s := &Server{core: c, address: address, allowed: map[uint32]bool{0: true}, log: log}
	for _, uid := range uids {
		s.allowed[uint32(uid)] = true
	}
	return s
}

// Run serves until the context ends. A bus that is not there yet, or goes, is
// dialled again and again; another owner of the name is an error.
func (s *Server) Run(ctx context.Context, ready func()) error {
	for {
		err := s.serve(ctx, ready)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errNameTaken) {
			return err
		}
		s.log.Warn("no bus", "address", s.address, "error", err)
		select {
		case <-time.After(redialTime):
		case <-ctx.Done():
			return nil
		}
	}
}

var errNameTaken = errors.New("another process owns " + client.BusName)

// session is the service on one connection.
type session struct {
	*Server
	ctx  context.Context
	conn *dbus.Conn

	mu      sync.Mutex // guards what follows, and the order of signals
	mirror  map[dbus.ObjectPath]object
	manager properties
	uids    map[string]uint32 // by unique name, which a bus never gives again
	readers map[string]func() // unique names that follow us; each stops its statistics
}

func (s *Server) serve(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ses := &session{Server: s, ctx: ctx, uids: map[string]uint32{}, readers: map[string]func(){}}
	conn, err := dbus.Dial(s.address, dbus.WithHandler(ses), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Auth(nil); err != nil {
		return err
	}
	if err := conn.Hello(); err != nil {
		return err
	}
	ses.conn = conn
	defer ses.forgetReaders()

	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(2, "")); err != nil {
		return err
	}
	go ses.followNames(signals)

	sub := s.core.Subscribe()
	defer sub.Close()
	v := s.core.View()
	ses.mu.Lock()
	ses.mirror, ses.manager = s.everything(v), renderManager(v)
	ses.mu.Unlock()

	reply, err := conn.RequestName(client.BusName, dbus.NameFlagDoNotQueue)
	if err != nil {
		return err
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return errNameTaken
	}
	ready()

	go func() {
		select {
		case <-conn.Context().Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		batch, v, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if err := ses.tell(batch, v); err != nil {
			return err
		}
		sub.Gather(ctx, mergeTime)
	}
}

// tell signals how the objects that a batch of events is about differ from
// the mirror: qubes first, so that whoever hears that a job is done has heard
// what it did.
func (s *session) tell(batch []core.Event, v *core.View) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	qubes, jobs := map[dbus.ObjectPath]bool{}, map[dbus.ObjectPath]bool{}
	system, named := false, false
	for _, e := range batch {
		system = system || e.Qube == "" && e.Job == 0
		named = named || e.Name != ""
		if e.Qube != "" {
			qubes[client.QubePath(string(e.Qube))] = true
		}
		if e.Job != 0 {
			jobs[client.JobPath(e.Job)] = true
		}
	}
	if system {
		if err := s.tellAll(s.labelsAndPools(v), &labelSpec, &poolSpec); err != nil {
			return err
		}
	}
	if named {
		if err := s.tellAll(devices(v), &deviceSpec); err != nil {
			return err
		}
	}
	for _, paths := range []map[dbus.ObjectPath]bool{qubes, jobs} {
		for path := range paths {
			now, has := s.lookup(v, path)
			if err := s.tellObject(path, now, has); err != nil {
				return err
			}
		}
	}
	now := renderManager(v)
	if err := s.changed(client.RootPath, managerSpec.name, s.manager, now); err != nil {
		return err
	}
	s.manager = now
	for _, e := range batch {
		if err := s.event(e); err != nil {
			return err
		}
	}
	return nil
}

// event tells one of upstream's events, at the object that it is about.
func (s *session) event(e core.Event) error {
	if e.Name == "" {
		return nil
	}
	args := make(map[string]string, len(e.Args))
	for _, a := range e.Args {
		args[a.Key] = a.Value
	}
	path, iface := client.RootPath, client.ManagerInterface
	if e.Qube != "" {
		path, iface = client.QubePath(string(e.Qube)), client.QubeInterface
	}
	return s.conn.Emit(path, iface+".Event", e.Name, args)
}

// tellAll signals how all objects of some interfaces differ from the mirror.
func (s *session) tellAll(now map[dbus.ObjectPath]object, specs ...*interfaceSpec) error {
	for path, o := range s.mirror {
		if _, still := now[path]; !still && slices.Contains(specs, o.spec) {
			if err := s.tellObject(path, object{}, false); err != nil {
				return err
			}
		}
	}
	for path, o := range now {
		if err := s.tellObject(path, o, true); err != nil {
			return err
		}
	}
	return nil
}

// tellObject signals how an object, which is now, or has gone, differs from
// the mirror.
func (s *session) tellObject(path dbus.ObjectPath, now object, has bool) error {
	old, had := s.mirror[path]
	switch {
	case has && !had:
		s.mirror[path] = now
		return s.conn.Emit(client.RootPath, "org.freedesktop.DBus.ObjectManager.InterfacesAdded", path,
			map[string]map[string]dbus.Variant{now.spec.name: variants(now.props)})
	case had && !has:
		delete(s.mirror, path)
		return s.conn.Emit(client.RootPath, "org.freedesktop.DBus.ObjectManager.InterfacesRemoved", path, []string{old.spec.name})
	case has:
		s.mirror[path] = now
		return s.changed(path, now.spec.name, old.props, now.props)
	}
	return nil
}

func (s *session) changed(path dbus.ObjectPath, iface string, old, now properties) error {
	diff := properties{}
	for name, v := range now {
		if !reflect.DeepEqual(old[name], v) {
			diff[name] = v
		}
	}
	if len(diff) == 0 {
		return nil
	}
	return s.conn.Emit(path, "org.freedesktop.DBus.Properties.PropertiesChanged", iface, variants(diff), []string{})
}

// follow counts a client that took the snapshot as one who wants statistics,
// until it leaves the bus.
func (s *session) follow(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.readers[name]; !ok && s.ctx.Err() == nil {
		s.readers[name] = s.core.WatchStats()
	}
}

func (s *session) followNames(signals <-chan *dbus.Signal) {
	for sig := range signals {
		var name, old, now string
		if sig.Name != "org.freedesktop.DBus.NameOwnerChanged" || dbus.Store(sig.Body, &name, &old, &now) != nil || now != "" {
			continue
		}
		s.mu.Lock()
		if stop, ok := s.readers[name]; ok {
			stop()
			delete(s.readers, name)
		}
		delete(s.uids, name)
		s.mu.Unlock()
	}
}

func (s *session) forgetReaders() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, stop := range s.readers {
		stop()
		delete(s.readers, name)
	}
}

// authorise admits root and the owners.
func (s *session) authorise(sender string, m methodSpec) error {
	if m.access == anybody {
		return nil
	}
	s.mu.Lock()
	uid, known := s.uids[sender]
	s.mu.Unlock()
	if !known {
		if err := s.conn.BusObject().CallWithContext(s.ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid); err != nil {
			return dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{fmt.Sprintf("who is %s: %v", sender, err)})
		}
		s.mu.Lock()
		s.uids[sender] = uid
		s.mu.Unlock()
	}
	if !s.allowed[uid] {
		s.log.Warn("refused", "uid", uid, "method", m.name)
		return dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{fmt.Sprintf("user %d may not call %s", uid, m.name)})
	}
	return nil
}
