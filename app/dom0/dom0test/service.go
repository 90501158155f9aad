package dom0test

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/qube"
)

type properties = map[string]dbus.Variant

// Service is the daemon's face on a bus: objects, signals and methods of
// org.cubicle.Qubes1, over qubes that exist only here. Starting and stopping
// take Step per stage.
type Service struct {
	Step time.Duration

	conn    *dbus.Conn
	mu      sync.Mutex
	objects map[dbus.ObjectPath]map[string]properties
	jobs    uint64
	qids    uint32
	calls   []string
	refused map[string]string // why the start of a qube fails, by name
	wait    sync.WaitGroup
	quit    chan struct{}
}

// Serve takes the daemon's name on the bus at address.
func Serve(address string) (*Service, error) {
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	s := &Service{
		Step:    100 * time.Millisecond,
		refused: map[string]string{},
		conn:    conn,
		objects: map[dbus.ObjectPath]map[string]properties{},
		quit:    make(chan struct{}),
	}
	s.objects[client.RootPath] = map[string]properties{client.ManagerInterface: {
		"DefaultTemplate": dbus.MakeVariant("debian-12"),
		"DefaultEngine":   dbus.MakeVariant("runsc"),
		"Engines": dbus.MakeVariant([]client.Engine{
			{Name: "runsc", Isolation: "gVisor", Weakness: "The qube has a kernel of its own in user space; a flaw in it or in the host's kernel reaches dom0."},
			{Name: "crun", Isolation: "namespaces", Weakness: "The qube shares the host's kernel: one flaw in that kernel reaches dom0."},
		}),
	}}
	for _, l := range qube.Labels {
		s.objects[client.LabelPath(l.Name)] = map[string]properties{client.LabelInterface: {
			"Name": dbus.MakeVariant(l.Name), "Color": dbus.MakeVariant(l.Color), "Index": dbus.MakeVariant(uint32(l.Index)),
		}}
	}
	for iface, object := range map[string]any{
		"org.freedesktop.DBus.ObjectManager": objectManager{s},
		"org.freedesktop.DBus.Properties":    allProperties{s},
		client.ManagerInterface:              managerMethods{s},
		client.QubeInterface:                 qubeMethods{s},
		client.JobInterface:                  jobMethods{s},
	} {
		if err := conn.ExportSubtree(object, client.RootPath, iface); err != nil {
			conn.Close()
			return nil, fmt.Errorf("export %s: %w", iface, err)
		}
	}
	reply, err := conn.RequestName(client.BusName, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner {
		err = fmt.Errorf("the name is taken")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("request %s: %w", client.BusName, err)
	}
	return s, nil
}

// Close leaves the bus.
func (s *Service) Close() error {
	close(s.quit)
	s.wait.Wait()
	return s.conn.Close()
}

// Calls returns the actions so far and forgets them.
func (s *Service) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// uuidOf makes a qube's number its UUID.
func uuidOf(qid uint32) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", qid) }

// Add makes a qube; template is empty for a template.
func (s *Service) Add(name string, class qube.Class, labelName, template string) string {
	l, err := qube.ParseLabel(labelName)
	if err != nil {
		l = qube.Labels[0]
	}
	s.mu.Lock()
	s.qids++
	qid := s.qids
	s.mu.Unlock()
	uuid := uuidOf(qid)
	p := properties{
		"Name": dbus.MakeVariant(name), "UUID": dbus.MakeVariant(uuid), "QID": dbus.MakeVariant(qid), "Class": dbus.MakeVariant(string(class)),
		"Label": dbus.MakeVariant(l.Name), "LabelColor": dbus.MakeVariant(l.Color), "LabelIndex": dbus.MakeVariant(uint32(l.Index)),
		"Icon": dbus.MakeVariant("appvm-" + l.Name), "State": dbus.MakeVariant("Halted"), "Template": dbus.MakeVariant(template),
		"NetVM": dbus.MakeVariant(""), "XID": dbus.MakeVariant(int32(-1)), "Engine": dbus.MakeVariant("runsc"),
		"Isolation": dbus.MakeVariant("gVisor"), "Weakness": dbus.MakeVariant("The qube has a kernel of its own in user space; a flaw in it or in the host's kernel reaches dom0."),
		"Memory": dbus.MakeVariant(uint32(400)), "VCPUs": dbus.MakeVariant(uint32(2)), "DefaultUser": dbus.MakeVariant("user"),
		"StartTime": dbus.MakeVariant(uint64(0)), "MemoryUsed": dbus.MakeVariant(uint64(0)), "CPUUsage": dbus.MakeVariant(0.0),
		"DiskUsage": dbus.MakeVariant(uint64(300_000_000)), "Error": dbus.MakeVariant(""), "Outdated": dbus.MakeVariant(false), "ProvidesNetwork": dbus.MakeVariant(false),
		"LastBackup": dbus.MakeVariant(uint64(0)), "DisposableTemplate": dbus.MakeVariant(false), "UpdatesAvailable": dbus.MakeVariant(false),
	}
	s.add(client.QubePath(uuid), client.QubeInterface, p)
	return uuid
}

// Set changes properties of a qube; values have the surface's own types.
func (s *Service) Set(uuid string, values map[string]any) {
	changed := properties{}
	for k, v := range values {
		changed[k] = dbus.MakeVariant(v)
	}
	s.change(client.QubePath(uuid), client.QubeInterface, changed)
}

// RemoveQube takes a qube away.
func (s *Service) RemoveQube(uuid string) { s.remove(client.QubePath(uuid), client.QubeInterface) }

// FailStart makes the start of the qube of that name fail with the text.
func (s *Service) FailStart(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[name] = text
}

func (s *Service) failOf(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[name]
}

// Job adds a running job.
func (s *Service) Job(kind, name, text string) uint64 {
	s.mu.Lock()
	s.jobs++
	id := s.jobs
	s.mu.Unlock()
	s.add(client.JobPath(id), client.JobInterface, properties{
		"Kind": dbus.MakeVariant(kind), "Qube": dbus.MakeVariant(name), "Text": dbus.MakeVariant(text), "Progress": dbus.MakeVariant(0.0),
		"State": dbus.MakeVariant("running"), "ErrorName": dbus.MakeVariant(""), "Error": dbus.MakeVariant(""),
	})
	return id
}

// SetJob changes properties of a job.
func (s *Service) SetJob(id uint64, values map[string]any) {
	changed := properties{}
	for k, v := range values {
		changed[k] = dbus.MakeVariant(v)
	}
	s.change(client.JobPath(id), client.JobInterface, changed)
}

func (s *Service) add(path dbus.ObjectPath, iface string, p properties) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[path] = map[string]properties{iface: p}
	s.emit(client.RootPath, "org.freedesktop.DBus.ObjectManager.InterfacesAdded", path, map[string]properties{iface: maps.Clone(p)})
}

func (s *Service) change(path dbus.ObjectPath, iface string, changed properties) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.objects[path][iface]
	if !ok {
		return
	}
	maps.Copy(p, changed)
	s.emit(path, "org.freedesktop.DBus.Properties.PropertiesChanged", iface, changed, []string{})
}

func (s *Service) remove(path dbus.ObjectPath, iface string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, path)
	s.emit(client.RootPath, "org.freedesktop.DBus.ObjectManager.InterfacesRemoved", path, []string{iface})
}

// emit sends a signal; a bus that is gone shows in the next call. The caller
// holds mu, so that signals leave in the order of the changes.
func (s *Service) emit(path dbus.ObjectPath, name string, values ...any) {
	if err := s.conn.Emit(path, name, values...); err != nil {
		s.calls = append(s.calls, "emit failed: "+err.Error())
	}
}

// text is a string property of the object at path.
func (s *Service) text(path dbus.ObjectPath, iface, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, _ := s.objects[path][iface][name].Value().(string)
	return value
}

func (s *Service) note(format string, values ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, values...))
}

func failure(name, text string) *dbus.Error {
	return &dbus.Error{Name: client.ErrorPrefix + name, Body: []any{text}}
}

// stage is a step of a job.
type stage struct {
	text string
	then map[string]any // changes of the qube
}

// work runs a job over stages in the background.
func (s *Service) work(kind, name string, path dbus.ObjectPath, stages []stage, fail string, end func()) dbus.ObjectPath {
	id := s.Job(kind, name, stages[0].text)
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		for i, one := range stages {
			changed := properties{}
			for k, v := range one.then {
				changed[k] = dbus.MakeVariant(v)
			}
			if len(changed) > 0 {
				s.change(path, client.QubeInterface, changed)
			}
			s.SetJob(id, map[string]any{"Text": one.text, "Progress": float64(i+1) / float64(len(stages)+1)})
			select {
			case <-time.After(s.Step):
			case <-s.quit:
				return
			}
		}
		if fail != "" {
			s.change(path, client.QubeInterface, properties{"State": dbus.MakeVariant("Halted")})
			s.SetJob(id, map[string]any{"State": "failed", "ErrorName": "QubesException", "Error": fail})
			return
		}
		end()
		s.SetJob(id, map[string]any{"State": "done", "Progress": 1.0})
	}()
	return client.JobPath(id)
}
