package client

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/qube"
)

// Qube is a qube as qubesd last told it.
type Qube struct {
	Name       string
	UUID       string
	QID        uint32
	Class      qube.Class
	Label      string
	LabelColor uint32 // 0x00RRGGBB
	LabelIndex uint32
	Icon       string
	State      qube.State
	Template   string // name, or empty
	NetVM      string // name, or empty when offline
	// ProvidesNetwork tells whether others may have their network from it.
	ProvidesNetwork bool
	XID             int32 // domain id, -1 when off
	Engine          string
	Isolation       string
	Weakness        string // what the isolation does not protect from; empty for the strongest
	Memory          uint32 // MiB
	VCPUs           uint32
	DefaultUser     string
	StartTime       time.Time // zero when off
	MemoryUsed      uint64    // bytes
	CPUUsage        float64   // percent of one core
	DiskUsage       uint64    // bytes
	Error           string    // why the qube is broken, else empty
	Outdated        bool      // runs on an older version of its template
	LastBackup      time.Time // zero: never
	// DisposableTemplate tells whether disposables are made from it.
	DisposableTemplate bool
	UpdatesAvailable   bool // it has said so
}

// Label is a colour that qubes can have.
type Label struct {
	Name  string
	Color uint32 // 0x00RRGGBB
	Index uint32
}

// JobState is how far a job is.
type JobState string

// The states of a job.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Job is something that takes longer than a blink.
type Job struct {
	ID        uint64
	Kind      string // "start", "shutdown", "create", …
	Qube      string // name
	Text      string // what it is doing, for people
	Progress  float64
	State     JobState
	ErrorName string // the Admin API's exception name, when failed
	Error     string
}

// Err is the job's failure, or nil while it runs and when it is done.
func (j Job) Err() error {
	switch j.State {
	case JobFailed:
		return &Error{Name: j.ErrorName, Message: j.Error}
	case JobCancelled:
		return &Error{Name: "JobCancelled", Message: j.Text}
	}
	return nil
}

// Engine is a way of running qubes on this machine.
type Engine struct {
	Name, Isolation, Weakness string
}

// Snapshot is everything that qubesd tells, at one moment.
type Snapshot struct {
	Qubes           map[string]Qube // by UUID
	Labels          []Label         // by index
	Jobs            map[uint64]Job
	Devices         map[dbus.ObjectPath]Device
	DefaultTemplate string
	DefaultEngine   string
	Engines         []Engine
}

// Named returns the qube of that name.
func (s *Snapshot) Named(name string) (Qube, bool) {
	for _, q := range s.Qubes {
		if q.Name == name {
			return q, true
		}
	}
	return Qube{}, false
}

func newSnapshot() *Snapshot {
	return &Snapshot{Qubes: map[string]Qube{}, Jobs: map[uint64]Job{}, Devices: map[dbus.ObjectPath]Device{}}
}

func (s *Snapshot) clone() Snapshot {
	c := *s
	c.Qubes, c.Jobs, c.Devices = maps.Clone(s.Qubes), maps.Clone(s.Jobs), maps.Clone(s.Devices)
	c.Labels, c.Engines = slices.Clone(s.Labels), slices.Clone(s.Engines)
	return c
}

type properties = map[string]dbus.Variant

// put merges what was said about one object into the snapshot and returns
// the event that follows from it, or nil. A signal about an object that is
// not known (its removal overtook it) is no news.
func (s *Snapshot) put(path dbus.ObjectPath, iface string, p properties, added bool) Event {
	switch iface {
	case ManagerInterface:
		load(&s.DefaultTemplate, p["DefaultTemplate"])
		load(&s.DefaultEngine, p["DefaultEngine"])
		if v, ok := p["Engines"]; ok {
			var engines []Engine
			if dbus.Store([]any{v.Value()}, &engines) == nil {
				s.Engines = engines
			}
		}
		return DefaultsChanged{s.DefaultTemplate, s.DefaultEngine, slices.Clone(s.Engines)}
	case LabelInterface:
		var l Label
		load(&l.Name, p["Name"])
		load(&l.Color, p["Color"])
		load(&l.Index, p["Index"])
		s.Labels = slices.DeleteFunc(s.Labels, func(o Label) bool { return o.Name == l.Name })
		s.Labels = append(s.Labels, l)
		slices.SortFunc(s.Labels, func(a, b Label) int { return cmp.Compare(a.Index, b.Index) })
		return LabelsChanged{slices.Clone(s.Labels)}
	case QubeInterface:
		uuid, ok := uuidOf(path)
		if !ok {
			return nil
		}
		q, known := s.Qubes[uuid]
		if !known && !added {
			return nil
		}
		q.UUID = uuid
		q.load(p)
		s.Qubes[uuid] = q
		if known {
			return QubeChanged{q}
		}
		return QubeAdded{q}
	case DeviceInterface:
		return s.putDevice(path, p, added)
	case JobInterface:
		id, ok := jobOf(path)
		if !ok {
			return nil
		}
		j, known := s.Jobs[id]
		if !known && !added {
			return nil
		}
		j.ID = id
		j.load(p)
		s.Jobs[id] = j
		if known {
			return JobChanged{j}
		}
		return JobAdded{j}
	}
	return nil
}

// drop forgets an object and returns the event that follows from it, or nil.
func (s *Snapshot) drop(path dbus.ObjectPath) Event {
	if uuid, ok := uuidOf(path); ok {
		if q, known := s.Qubes[uuid]; known {
			delete(s.Qubes, uuid)
			return QubeRemoved{q}
		}
	}
	if id, ok := jobOf(path); ok {
		if j, known := s.Jobs[id]; known {
			delete(s.Jobs, id)
			return JobRemoved{j}
		}
	}
	if e := s.dropDevice(path); e != nil {
		return e
	}
	n := len(s.Labels)
	s.Labels = slices.DeleteFunc(s.Labels, func(l Label) bool { return LabelPath(l.Name) == path })
	if len(s.Labels) < n {
		return LabelsChanged{slices.Clone(s.Labels)}
	}
	return nil
}

func (q *Qube) load(p properties) {
	load(&q.Name, p["Name"])
	load(&q.QID, p["QID"])
	load(&q.Class, p["Class"])
	load(&q.Label, p["Label"])
	load(&q.LabelColor, p["LabelColor"])
	load(&q.LabelIndex, p["LabelIndex"])
	load(&q.Icon, p["Icon"])
	load(&q.State, p["State"])
	load(&q.Template, p["Template"])
	load(&q.NetVM, p["NetVM"])
	load(&q.ProvidesNetwork, p["ProvidesNetwork"])
	load(&q.XID, p["XID"])
	load(&q.Engine, p["Engine"])
	load(&q.Isolation, p["Isolation"])
	load(&q.Weakness, p["Weakness"])
	load(&q.Memory, p["Memory"])
	load(&q.VCPUs, p["VCPUs"])
	load(&q.DefaultUser, p["DefaultUser"])
	load(&q.MemoryUsed, p["MemoryUsed"])
	load(&q.CPUUsage, p["CPUUsage"])
	load(&q.DiskUsage, p["DiskUsage"])
	load(&q.Error, p["Error"])
	load(&q.Outdated, p["Outdated"])
	load(&q.DisposableTemplate, p["DisposableTemplate"])
	load(&q.UpdatesAvailable, p["UpdatesAvailable"])
	loadTime(&q.StartTime, p, "StartTime")
	loadTime(&q.LastBackup, p, "LastBackup")
}

// loadTime takes a moment in seconds since 1970; 0 is none.
func loadTime(to *time.Time, p properties, name string) {
	v, ok := p[name]
	if !ok {
		return
	}
	var sec uint64
	load(&sec, v)
	*to = time.Time{}
	if sec != 0 {
		*to = time.Unix(int64(sec), 0)
	}
}

func (j *Job) load(p properties) {
	load(&j.Kind, p["Kind"])
	load(&j.Qube, p["Qube"])
	load(&j.Text, p["Text"])
	load(&j.Progress, p["Progress"])
	load(&j.State, p["State"])
	load(&j.ErrorName, p["ErrorName"])
	load(&j.Error, p["Error"])
}

// load stores a variant of exactly the expected type; an absent or differently
// typed value changes nothing.
func load[T any](to *T, v dbus.Variant) {
	switch x := any(to).(type) {
	case *qube.Class:
		load((*string)(x), v)
	case *qube.State:
		load((*string)(x), v)
	case *JobState:
		load((*string)(x), v)
	default:
		if val, ok := v.Value().(T); ok {
			*to = val
		}
	}
}
