package dom0test

import (
	"maps"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/qube"
)

type objectManager struct{ s *Service }

// GetManagedObjects implements org.freedesktop.DBus.ObjectManager.
func (o objectManager) GetManagedObjects() (map[dbus.ObjectPath]map[string]properties, *dbus.Error) {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	all := map[dbus.ObjectPath]map[string]properties{}
	for path, ifaces := range o.s.objects {
		if path == client.RootPath {
			continue // the manager is read by GetAll
		}
		all[path] = map[string]properties{}
		for iface, p := range ifaces {
			all[path][iface] = maps.Clone(p)
		}
	}
	return all, nil
}

type allProperties struct{ s *Service }

// GetAll implements org.freedesktop.DBus.Properties.
func (a allProperties) GetAll(message dbus.Message, iface string) (properties, *dbus.Error) {
	path, _ := message.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	p, ok := a.s.objects[path][iface]
	if !ok {
		return nil, &dbus.ErrMsgUnknownInterface
	}
	return maps.Clone(p), nil
}

type managerMethods struct{ s *Service }

// DiskSpace implements org.cubicle.Qubes1.Manager.
func (managerMethods) DiskSpace() (size, used uint64, _ *dbus.Error) { return 100e9, 12e9, nil }

// CreateQube implements org.cubicle.Qubes1.Manager.
func (m managerMethods) CreateQube(name, class, label string, props properties) (dbus.ObjectPath, *dbus.Error) {
	s := m.s
	template, _ := props["template"].Value().(string)
	s.note("create %s %s %s %s", name, class, label, template)
	if _, err := qube.ParseName(name); err != nil {
		return "/", failure("QubesValueError", err.Error())
	}
	return s.work("create", name, "/", []stage{
		{text: "Creating " + name + " — making its volumes"},
		{text: "Creating " + name + " — writing it down"},
	}, "", func() { s.Add(name, qube.Class(class), label, template) }), nil
}

type qubeMethods struct{ s *Service }

// on finds the object that a message is for.
func (q qubeMethods) on(message dbus.Message, op string) (path dbus.ObjectPath, name string, refused *dbus.Error) {
	path, _ = message.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	name = q.s.text(path, client.QubeInterface, "Name")
	if name == "" {
		return path, name, failure("QubesVMNotFoundError", "no such qube")
	}
	q.s.note("%s %s", op, name)
	return path, name, nil
}

func (q qubeMethods) state(path dbus.ObjectPath) string {
	return q.s.text(path, client.QubeInterface, "State")
}

func up() map[string]any {
	return map[string]any{"State": "Running", "XID": int32(0x8000), "StartTime": uint64(time.Now().Unix()), "MemoryUsed": uint64(212_000_000), "CPUUsage": 12.0}
}

func off() map[string]any {
	return map[string]any{"State": "Halted", "XID": int32(-1), "StartTime": uint64(0), "MemoryUsed": uint64(0), "CPUUsage": 0.0}
}

// Start implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Start(message dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, "start")
	if refused != nil {
		return "/", refused
	}
	if q.state(path) != "Halted" {
		return "/", failure("QubesVMNotHaltedError", name+" is not halted")
	}
	return q.starting(path, name, "start"), nil
}

func (q qubeMethods) starting(path dbus.ObjectPath, name, kind string) dbus.ObjectPath {
	return q.s.work(kind, name, path, []stage{
		{text: "Starting " + name + " — preparing its volumes", then: map[string]any{"State": "Transient"}},
		{text: "Starting " + name + " — booting"},
		{text: "Starting " + name + " — waiting for its agent"},
	}, q.s.failOf(name), func() { q.s.change(path, client.QubeInterface, variants(up())) })
}

// Shutdown implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Shutdown(message dbus.Message, force bool) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, "shutdown")
	if refused != nil {
		return "/", refused
	}
	return q.s.work("shutdown", name, path, []stage{{text: "Shutting down " + name, then: map[string]any{"State": "Halting"}}},
		"", func() { q.s.change(path, client.QubeInterface, variants(off())) }), nil
}

// Kill implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Kill(message dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, "kill")
	if refused != nil {
		return "/", refused
	}
	return q.s.work("kill", name, path, []stage{{text: "Stopping " + name}}, "",
		func() { q.s.change(path, client.QubeInterface, variants(off())) }), nil
}

// Pause implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Pause(message dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	return q.turn(message, "pause", "Paused")
}

// Unpause implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Unpause(message dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	return q.turn(message, "unpause", "Running")
}

func (q qubeMethods) turn(message dbus.Message, op, state string) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, op)
	if refused != nil {
		return "/", refused
	}
	return q.s.work(op, name, path, []stage{{text: op + " " + name}}, "",
		func() { q.s.change(path, client.QubeInterface, variants(map[string]any{"State": state})) }), nil
}

// Remove implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Remove(message dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, "remove")
	if refused != nil {
		return "/", refused
	}
	return q.s.work("remove", name, path, []stage{{text: "Removing " + name}}, "", func() { q.s.remove(path, client.QubeInterface) }), nil
}

// Clone implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Clone(message dbus.Message, to string) (dbus.ObjectPath, *dbus.Error) {
	path, _, refused := q.on(message, "clone")
	if refused != nil {
		return "/", refused
	}
	s := q.s
	class, label, template := s.text(path, client.QubeInterface, "Class"), s.text(path, client.QubeInterface, "Label"), s.text(path, client.QubeInterface, "Template")
	return s.work("clone", to, "/", []stage{{text: "Cloning to " + to + " — copying its volumes"}}, "",
		func() { s.Add(to, qube.Class(class), label, template) }), nil
}

// StartApp implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) StartApp(message dbus.Message, app string) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, "app "+app)
	if refused != nil {
		return "/", refused
	}
	if q.state(path) == "Halted" {
		return q.starting(path, name, "app"), nil
	}
	return q.s.work("app", name, path, []stage{{text: "Opening " + app + " in " + name}}, "", func() {}), nil
}

// Run implements org.cubicle.Qubes1.Qube.
func (q qubeMethods) Run(message dbus.Message, command, user string, waitForSession bool) (dbus.ObjectPath, *dbus.Error) {
	path, name, refused := q.on(message, "run "+command)
	if refused != nil {
		return "/", refused
	}
	return q.s.work("run", name, path, []stage{{text: "Running a command in " + name}}, "", func() {}), nil
}

type jobMethods struct{ s *Service }

// Cancel implements org.cubicle.Qubes1.Job.
func (j jobMethods) Cancel(message dbus.Message) *dbus.Error {
	path, _ := message.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	j.s.note("cancel")
	j.s.change(path, client.JobInterface, properties{"State": dbus.MakeVariant("cancelled")})
	return nil
}

func variants(values map[string]any) properties {
	p := properties{}
	for k, v := range values {
		p[k] = dbus.MakeVariant(v)
	}
	return p
}
