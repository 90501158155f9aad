package core

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"cubicle/daemon/device"
	"cubicle/daemon/engine"
	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

// View is the whole state at one moment. It never changes: keep it as long as
// you like, and ask Core.View for the next.
type View struct {
	qubes   map[qube.UUID]*entry
	names   map[qube.Name]*entry
	order   []qube.UUID // of qubes, by name
	system  store.System
	dom0    *entry
	jobs    map[uint64]Job
	engines []EngineInfo
	facts   map[string]string // of the system
	change  uint64
}

// EngineInfo is a way of running qubes on this machine.
type EngineInfo struct {
	Name string
	engine.Capabilities
}

// entry is a qube in a View. It is never changed once the View is published.
type entry struct {
	rec      store.Record
	state    qube.State
	xid      int // -1 when off
	engine   string
	started  time.Time // zero when off
	broken   string    // why its files cannot be used
	damaged  bool      // its own file is what cannot be used
	ended    string    // why the last run ended, if not as asked
	memory   int64     // bytes in use
	cpu      float64   // percent of one core
	disk     int64     // bytes
	outdated bool
	offered  map[device.Class][]device.Info // sorted by port; never changed
}

// Qube is a qube in a View, a source of the property table.
type Qube struct {
	v *View
	e *entry
}

var (
	_ qube.Source = Qube{}
	_ qube.Source = System{}
)

// Lookup returns the qube with that UUID; dom0 is one of them.
func (v *View) Lookup(id qube.UUID) (Qube, bool) {
	if id == qube.Dom0UUID {
		return Qube{v, v.dom0}, true
	}
	e, ok := v.qubes[id]
	return Qube{v, e}, ok
}

// Named returns the qube of that name; dom0 is one of them.
func (v *View) Named(n qube.Name) (Qube, bool) {
	if n == qube.Dom0 {
		return Qube{v, v.dom0}, true
	}
	e, ok := v.names[n]
	return Qube{v, e}, ok
}

// Qubes are all qubes but dom0, by name.
func (v *View) Qubes() []Qube {
	list := make([]Qube, len(v.order))
	for i, id := range v.order {
		list[i] = Qube{v, v.qubes[id]}
	}
	return list
}

// sort puts all qubes in order.
func (v *View) sort() {
	v.order = slices.SortedFunc(maps.Keys(v.qubes), func(a, b qube.UUID) int {
		return cmp.Compare(v.qubes[a].rec.Name, v.qubes[b].rec.Name)
	})
}

// Jobs are the jobs that run, and those that ended within the last minute.
func (v *View) Jobs() map[uint64]Job { return maps.Clone(v.jobs) }

// Job is one of them.
func (v *View) Job(id uint64) (Job, bool) { j, ok := v.jobs[id]; return j, ok }

// Engines are the ways of running qubes, strongest first.
func (v *View) Engines() []EngineInfo { return slices.Clone(v.engines) }

// Engine is the one of that name.
func (v *View) Engine(name string) (EngineInfo, bool) {
	i := slices.IndexFunc(v.engines, func(e EngineInfo) bool { return e.Name == name })
	if i < 0 {
		return EngineInfo{}, false
	}
	return v.engines[i], true
}

// Labels are all labels, the built-in ones first, by index.
func (v *View) Labels() []qube.Label { return append(slices.Clone(qube.Labels[:]), v.system.Labels...) }

// Label is the one of that name, or with that index in digits.
func (v *View) Label(text string) (qube.Label, bool) {
	if l, ok := qube.FindLabel(qube.Labels[:], text); ok {
		return l, true
	}
	return qube.FindLabel(v.system.Labels, text)
}

// System is the source of the global properties.
func (v *View) System() System { return System{v} }

// Identity.

func (q Qube) Name() qube.Name   { return q.e.rec.Name }
func (q Qube) UUID() qube.UUID   { return q.e.rec.UUID }
func (q Qube) QID() int          { return q.e.rec.QID }
func (q Qube) Class() qube.Class { return q.e.rec.Class }
func (q Qube) IsAdmin() bool     { return q.e.rec.Class == qube.AdminVM }

// Volatile facts.

// State is what the qube is doing.
func (q Qube) State() qube.State { return q.e.state }

// XID is the domain id of the running qube, -1 when it is off.
func (q Qube) XID() int { return q.e.xid }

// Started is when the qube was started; zero when it is off.
func (q Qube) Started() time.Time { return q.e.started }

// MemoryUsed is in bytes, CPUUsage in percent of one core, DiskUsage in bytes.
func (q Qube) MemoryUsed() int64 { return q.e.memory }
func (q Qube) CPUUsage() float64 { return q.e.cpu }
func (q Qube) DiskUsage() int64  { return q.e.disk }

// Outdated tells that the qube runs on an older version of its template.
func (q Qube) Outdated() bool { return q.e.outdated }

// Trouble says why the qube is broken, why its last run ended by itself, or
// what this run lacks; empty when all is well.
func (q Qube) Trouble() string { return cmp.Or(q.e.broken, q.e.ended) }

// Engine is the engine that runs the qube, or would.
func (q Qube) Engine() string {
	if q.e.engine != "" {
		return q.e.engine
	}
	return q.Property("engine")
}

// Label is the qube's label.
func (q Qube) Label() qube.Label {
	l, ok := q.v.Label(q.Property("label"))
	if !ok {
		return qube.Labels[0] // red: of a broken qube nothing is known
	}
	return l
}

// TemplateName is the name of the template, or empty.
func (q Qube) TemplateName() qube.Name { return qube.Name(q.e.rec.Properties["template"]) }

// Features are the qube's own.
func (q Qube) Features() map[string]string { return maps.Clone(q.e.rec.Features) }

// Tags are the qube's, sorted, with those that follow its properties: these
// are computed, so that they cannot be wrong.
func (q Qube) Tags() []string {
	tags := slices.DeleteFunc(slices.Clone(q.e.rec.Tags), isMirror)
	for _, p := range mirrors() {
		if tag := q.mirrorOf(p); tag != "" {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return tags
}

// isDown reports whether the qube has no machine and may be changed.
func (q Qube) isDown() bool {
	return q.e.state == qube.Halted || q.e.state == qube.NA || !q.e.rec.Class.HasMachine() && !q.IsAdmin()
}

// Explicit implements qube.Source.
func (q Qube) Explicit(name string) (string, bool) {
	switch name {
	case "name":
		return string(q.e.rec.Name), true
	case "uuid":
		return string(q.e.rec.UUID), true
	case "qid":
		return strconv.Itoa(q.e.rec.QID), true
	case "label":
		if q.IsAdmin() {
			return "black", true
		}
	}
	v, ok := q.e.rec.Properties[name]
	return v, ok
}

// Property implements qube.Source.
func (q Qube) Property(name string) string { return qube.ValueOf(q.Class(), name, q) }

// Number is a numeric property.
func (q Qube) Number(name string) int { n, _ := strconv.Atoi(q.Property(name)); return n }

// Feature implements qube.Source.
func (q Qube) Feature(name string) (string, bool) { v, ok := q.e.rec.Features[name]; return v, ok }

// Fact implements qube.Source.
func (q Qube) Fact(name string) string {
	switch name {
	case "klass":
		return string(q.Class())
	case "xid":
		return strconv.Itoa(q.e.xid)
	case "trouble":
		return q.Trouble()
	case "pci":
		if slices.ContainsFunc(q.e.rec.Devices, func(a device.Assignment) bool { return a.Class == device.PCI }) {
			return "1"
		}
	case "start_time":
		if q.e.started.IsZero() {
			return ""
		}
		return strconv.FormatFloat(float64(q.e.started.UnixMilli())/1000, 'f', -1, 64)
	}
	return ""
}

// Refer implements qube.Source.
func (q Qube) Refer(property string) qube.Source { return asSource(q.Referent(property)) }

// Referent is the qube that a VM property names, and false for none.
func (q Qube) Referent(property string) (Qube, bool) {
	return q.v.Named(qube.Name(q.Property(property)))
}

func asSource(q Qube, ok bool) qube.Source {
	if !ok {
		return nil
	}
	return q
}

// Template implements qube.Source.
func (q Qube) Template() qube.Source { return asSource(q.v.Named(q.TemplateName())) }

// System implements qube.Source.
func (q Qube) System() qube.Source { return System{q.v} }

// System is the source of the global properties.
type System struct{ v *View }

// Explicit implements qube.Source.
func (s System) Explicit(name string) (string, bool) {
	v, ok := s.v.system.Properties[name]
	return v, ok
}

// Property implements qube.Source.
func (s System) Property(name string) string { return qube.SystemValue(name, s) }

// Feature implements qube.Source; the system has none.
func (s System) Feature(string) (string, bool) { return "", false }

// Fact implements qube.Source.
func (s System) Fact(name string) string { return s.v.facts[name] }

// Refer implements qube.Source.
func (s System) Refer(property string) qube.Source {
	return asSource(s.v.Named(qube.Name(s.Property(property))))
}

// Template implements qube.Source.
func (s System) Template() qube.Source { return nil }

// System implements qube.Source.
func (s System) System() qube.Source { return s }
