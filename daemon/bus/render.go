package bus

import (
	"maps"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// properties are those of one interface of one object.
type properties = map[string]any

// object is what is at a path: always exactly one interface of ours.
type object struct {
	spec  *interfaceSpec
	props properties
}

// engineTuple is an element of Manager.Engines.
type engineTuple struct{ Name, Isolation, Weakness string }

func renderManager(v *core.View) properties {
	engines := []engineTuple{}
	for _, e := range v.Engines() {
		engines = append(engines, engineTuple{e.Name, string(e.Isolation), e.Weakness})
	}
	return properties{
		"DefaultTemplate": v.System().Property("default_template"),
		"DefaultEngine":   v.System().Property("default_engine"),
		"Engines":         engines,
	}
}

func renderQube(v *core.View, q core.Qube) properties {
	label := q.Label()
	engine, _ := v.Engine(q.Engine())
	updates, _ := q.Feature("updates-available")
	var started uint64
	if t := q.Started(); !t.IsZero() {
		started = uint64(t.Unix())
	}
	return properties{
		"Name": string(q.Name()), "UUID": string(q.UUID()), "QID": uint32(q.QID()), "Class": string(q.Class()),
		"Label": label.Name, "LabelColor": label.Color, "LabelIndex": uint32(label.Index), "Icon": q.Property("icon"),
		"State": string(q.State()), "Template": string(q.TemplateName()), "NetVM": q.Property("netvm"), "XID": int32(q.XID()),
		"Engine": q.Engine(), "Isolation": string(engine.Isolation), "Weakness": engine.Weakness,
		"Memory": uint32(q.Number("memory")), "VCPUs": uint32(q.Number("vcpus")), "DefaultUser": q.Property("default_user"),
		"StartTime": started, "MemoryUsed": uint64(q.MemoryUsed()), "CPUUsage": q.CPUUsage(), "DiskUsage": uint64(q.DiskUsage()),
		"Error": q.Trouble(), "Outdated": q.Outdated(), "ProvidesNetwork": q.Property("provides_network") == "True",
		"DisposableTemplate": q.Property("template_for_dispvms") == "True", "UpdatesAvailable": updates != "",
		"LastBackup": uint64(max(q.Number("backup_timestamp"), 0)),
	}
}

func renderLabel(l qube.Label) properties {
	return properties{"Name": l.Name, "Color": l.Color, "Index": uint32(l.Index)}
}

func renderPool(p core.PoolState) properties {
	trouble := ""
	if p.Err != nil {
		trouble = p.Err.Error()
	}
	return properties{"Name": p.Name, "Driver": p.Driver, "Revisions": int32(p.Revisions), "Error": trouble}
}

// assignmentTuple is an element of Device.Assignments.
type assignmentTuple struct {
	Frontend, Mode string
	Options        map[string]string
}

func renderDevice(d core.DeviceState) properties {
	assignments := []assignmentTuple{}
	for _, a := range d.Assignments {
		options := maps.Clone(a.Options)
		if options == nil {
			options = map[string]string{}
		}
		assignments = append(assignments, assignmentTuple{string(a.Frontend), string(a.Mode), options})
	}
	parent := ""
	if d.Parent.Port != "" {
		parent = string(d.Parent.Class) + ":" + d.Parent.Port
	}
	return properties{
		"Class": string(d.Class), "Backend": d.Backend, "Port": d.Port, "ID": d.ID, "Offered": d.Offered,
		"Vendor": d.Vendor, "Product": d.Product, "Manufacturer": d.Manufacturer, "Name": d.Name, "Serial": d.Serial,
		"Interfaces": append([]string{}, d.Interfaces...), "Parent": parent, "Attached": d.Attachment,
		"ReadOnly": d.ReadOnly, "Size": uint64(d.Size), "Assignments": assignments,
	}
}

// devices are those that are offered or assigned: few.
func devices(v *core.View) map[dbus.ObjectPath]object {
	all := map[dbus.ObjectPath]object{}
	for _, d := range v.Devices() {
		all[client.DevicePath(d.Device)] = object{&deviceSpec, renderDevice(d)}
	}
	return all
}

func renderJob(j core.Job) properties {
	return properties{
		"Kind": j.Kind, "Qube": string(j.Qube), "Text": j.Text, "Progress": j.Progress, "State": string(j.State),
		"ErrorName": string(j.ErrKind), "Error": j.Err,
	}
}

// lookup renders the object at a path as it is now.
func (s *Server) lookup(v *core.View, path dbus.ObjectPath) (object, bool) {
	rest, ok := strings.CutPrefix(string(path), string(client.RootPath))
	if !ok {
		return object{}, false
	}
	if rest == "" {
		return object{&managerSpec, renderManager(v)}, true
	}
	kind, name, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	switch kind {
	case "qube":
		id, err := qube.ParseUUID(strings.ReplaceAll(name, "_", "-"))
		if err != nil {
			return object{}, false
		}
		q, ok := v.Lookup(id)
		if !ok {
			return object{}, false
		}
		return object{&qubeSpec, renderQube(v, q)}, true
	case "device":
		obj, ok := devices(v)[path]
		return obj, ok
	case "label", "pool":
		obj, ok := s.labelsAndPools(v)[path]
		return obj, ok
	case "job":
		id, err := strconv.ParseUint(name, 10, 64)
		if err != nil || client.JobPath(id) != path {
			return object{}, false
		}
		j, ok := v.Job(id)
		if !ok {
			return object{}, false
		}
		return object{&jobSpec, renderJob(j)}, true
	}
	return object{}, false
}

// labelsAndPools are few and change rarely.
func (s *Server) labelsAndPools(v *core.View) map[dbus.ObjectPath]object {
	all := map[dbus.ObjectPath]object{}
	for _, l := range v.Labels() {
		all[client.LabelPath(l.Name)] = object{&labelSpec, renderLabel(l)}
	}
	for _, p := range s.core.PoolStates() {
		all[client.PoolPath(p.Name)] = object{&poolSpec, renderPool(p)}
	}
	return all
}

// everything renders all objects but the manager.
func (s *Server) everything(v *core.View) map[dbus.ObjectPath]object {
	all := s.labelsAndPools(v)
	maps.Copy(all, devices(v))
	admin, _ := v.Lookup(qube.Dom0UUID)
	for _, q := range append(v.Qubes(), admin) {
		all[client.QubePath(string(q.UUID()))] = object{&qubeSpec, renderQube(v, q)}
	}
	for id, j := range v.Jobs() {
		all[client.JobPath(id)] = object{&jobSpec, renderJob(j)}
	}
	return all
}

func variants(p properties) map[string]dbus.Variant {
	out := make(map[string]dbus.Variant, len(p))
	for k, v := range p {
		out[k] = dbus.MakeVariant(v)
	}
	return out
}
