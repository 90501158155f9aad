package bus

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"cubicle/daemon/bus/client"
)

// The surface is data: what is served, described and authorised comes from
// here. Signatures are D-Bus type strings.

// access says who may call a method.
type access int

const (
	anybody access = iota // on the bus
	owner                 // root and the desktop user
)

type methodSpec struct {
	name    string
	in, out []param
	access  access
}

type param struct{ name, sig string }

type propertySpec struct{ name, sig string }

type signalSpec struct {
	name string
	args []param
}

type interfaceSpec struct {
	name       string
	methods    []methodSpec
	properties []propertySpec
	signals    []signalSpec
}

var (
	jobOut = []param{{"job", "o"}}
	// rowsOut are rows of the property table: name, type, value, whether that
	// is the default, whether it can be set now, help.
	rowsOut = []param{{"properties", "a(sssbbs)"}}

	// An event is one of upstream's (spec/admin-api.md §7), about the system or
	// a qube: what the properties here do not show changes with one.
	eventSignal = []signalSpec{{"Event", []param{{"name", "s"}, {"arguments", "a{ss}"}}}}

	managerSpec = interfaceSpec{
		name: client.ManagerInterface,
		methods: []methodSpec{
			{"AddPool", []param{{"name", "s"}, {"driver", "s"}, {"options", "a{ss}"}}, nil, owner},
			{"CheckProperty", []param{{"class", "s"}, {"template", "s"}, {"name", "s"}, {"value", "s"}}, []param{{"value", "s"}}, owner},
			{"CreateDisposable", []param{{"template", "s"}}, []param{{"qube", "o"}, {"job", "o"}}, owner},
			{"CreateLabel", []param{{"name", "s"}, {"color", "u"}}, nil, owner},
			{"CreateQube", []param{{"name", "s"}, {"class", "s"}, {"label", "s"}, {"properties", "a{sv}"}}, jobOut, owner},
			{"CreateTemplate", []param{{"name", "s"}, {"recipe", "s"}}, jobOut, owner},
			// DiskSpace is the size of the default pool and what is used of it, in bytes.
			{"DiskSpace", nil, []param{{"size", "t"}, {"used", "t"}}, owner},
			{"DraftProperties", []param{{"class", "s"}, {"template", "s"}}, rowsOut, owner},
			// ExplainCall tells what would become of a call: allow, ask, deny or
			// error; where it goes; what could be chosen; FILE:LINE; why not.
			{"ExplainCall", []param{{"source", "s"}, {"target", "s"}, {"service", "s"}},
				[]param{{"result", "s"}, {"target", "s"}, {"targets", "as"}, {"rule", "s"}, {"reason", "s"}}, owner},
			// Permissions: source, target, service, whether a person is asked first.
			{"Permissions", []param{{"qube", "s"}}, []param{{"permissions", "a(sssb)"}}, owner},
			{"Properties", nil, rowsOut, owner},
			{"RecentCalls", []param{{"qube", "s"}, {"limit", "u"}}, []param{{"calls", "aa{sv}"}}, owner},
			{"RemoveLabel", []param{{"name", "s"}}, nil, owner},
			{"RemovePool", []param{{"name", "s"}}, nil, owner},
			{"ResetProperty", []param{{"name", "s"}}, nil, owner},
			{"SetPoolRevisions", []param{{"name", "s"}, {"revisions", "i"}}, nil, owner},
			{"SetProperty", []param{{"name", "s"}, {"value", "s"}}, nil, owner},
		},
		properties: []propertySpec{{"DefaultEngine", "s"}, {"DefaultTemplate", "s"}, {"Engines", "a(sss)"}},
		signals:    eventSignal,
	}
	qubeSpec = interfaceSpec{
		name: client.QubeInterface,
		methods: []methodSpec{
			{"AddTag", []param{{"tag", "s"}}, nil, owner},
			{"Apps", nil, []param{{"apps", "a(sss)"}}, owner},
			{"AssignDevice", []param{{"class", "s"}, {"device", "s"}, {"mode", "s"}, {"options", "a{ss}"}}, nil, owner},
			{"Clone", []param{{"name", "s"}}, jobOut, owner},
			{"Console", []param{{"lines", "u"}}, []param{{"text", "ay"}}, owner},
			// DeviceLacks: class of devices, why the qube's engine cannot attach them.
			{"DeviceLacks", nil, []param{{"lacks", "a{ss}"}}, owner},
			{"Devices", nil, []param{{"assignments", "a(sssa{ss})"}}, owner},
			{"Features", nil, []param{{"features", "a{ss}"}}, owner},
			{"Firewall", nil, []param{{"rules", "as"}}, owner},
			{"KeepRevision", []param{{"volume", "s"}, {"revision", "s"}, {"keep", "b"}}, nil, owner},
			{"Kill", nil, jobOut, owner},
			{"Messages", []param{{"lines", "u"}}, []param{{"messages", "as"}}, owner},
			{"Notes", nil, []param{{"text", "s"}}, owner},
			{"Pause", nil, jobOut, owner},
			{"Properties", nil, rowsOut, owner},
			{"Remove", nil, jobOut, owner},
			{"RemoveFeature", []param{{"name", "s"}}, nil, owner},
			{"RemoveTag", []param{{"tag", "s"}}, nil, owner},
			{"ResetProperty", []param{{"name", "s"}}, nil, owner},
			{"Resize", []param{{"volume", "s"}, {"bytes", "t"}}, nil, owner},
			{"Revert", []param{{"volume", "s"}, {"revision", "s"}}, nil, owner},
			{"Run", []param{{"command", "s"}, {"user", "s"}, {"wait_for_session", "b"}}, jobOut, owner},
			{"SetDeviceMode", []param{{"class", "s"}, {"device", "s"}, {"mode", "s"}}, nil, owner},
			{"SetFeature", []param{{"name", "s"}, {"value", "s"}}, nil, owner},
			{"SetFirewall", []param{{"rules", "as"}}, nil, owner},
			{"SetNotes", []param{{"text", "s"}}, nil, owner},
			{"SetProperty", []param{{"name", "s"}, {"value", "s"}}, nil, owner},
			{"Shutdown", []param{{"force", "b"}}, jobOut, owner},
			{"Start", nil, jobOut, owner},
			{"StartApp", []param{{"app", "s"}}, jobOut, owner},
			{"Tags", nil, []param{{"tags", "as"}}, owner},
			{"UnassignDevice", []param{{"class", "s"}, {"device", "s"}}, nil, owner},
			{"Unpause", nil, jobOut, owner},
			{"Volumes", nil, []param{{"volumes", "aa{sv}"}}, owner},
		},
		properties: []propertySpec{
			{"CPUUsage", "d"}, {"Class", "s"}, {"DefaultUser", "s"}, {"DiskUsage", "t"}, {"DisposableTemplate", "b"}, {"Engine", "s"}, {"Error", "s"},
			{"Icon", "s"}, {"Isolation", "s"}, {"Label", "s"}, {"LabelColor", "u"}, {"LabelIndex", "u"}, {"LastBackup", "t"}, {"Memory", "u"},
			{"MemoryUsed", "t"}, {"Name", "s"}, {"NetVM", "s"}, {"Outdated", "b"}, {"ProvidesNetwork", "b"}, {"QID", "u"}, {"StartTime", "t"},
			{"State", "s"}, {"Template", "s"}, {"UUID", "s"}, {"UpdatesAvailable", "b"}, {"VCPUs", "u"}, {"Weakness", "s"}, {"XID", "i"},
		},
		signals: eventSignal,
	}
	labelSpec = interfaceSpec{
		name:       client.LabelInterface,
		properties: []propertySpec{{"Color", "u"}, {"Index", "u"}, {"Name", "s"}},
	}
	poolSpec = interfaceSpec{
		name: client.PoolInterface,
		methods: []methodSpec{
			// Usage asks the pool: bytes in all and in use, 0 when it cannot
			// tell.
			{"Usage", nil, []param{{"size", "t"}, {"used", "t"}}, owner},
			{"Volumes", nil, []param{{"vids", "as"}}, owner},
		},
		properties: []propertySpec{{"Driver", "s"}, {"Error", "s"}, {"Name", "s"}, {"Revisions", "i"}},
	}
	// deviceSpec is a device that a qube or dom0 offers, that is assigned to
	// qubes (then its port and id may be *), or both.
	deviceSpec = interfaceSpec{
		name: client.DeviceInterface,
		properties: []propertySpec{
			// Assignments are frontend, mode and options.
			{"Assignments", "a(ssa{ss})"}, {"Attached", "s"}, {"Backend", "s"}, {"Class", "s"}, {"ID", "s"}, {"Interfaces", "as"},
			{"Manufacturer", "s"}, {"Name", "s"}, {"Offered", "b"}, {"Parent", "s"}, {"Port", "s"}, {"Product", "s"}, {"ReadOnly", "b"},
			{"Serial", "s"}, {"Size", "t"}, {"Vendor", "s"},
		},
	}
	jobSpec = interfaceSpec{
		name:    client.JobInterface,
		methods: []methodSpec{{"Cancel", nil, nil, owner}},
		properties: []propertySpec{{"Error", "s"}, {"ErrorName", "s"}, {"Kind", "s"}, {"Progress", "d"}, {"Qube", "s"},
			{"State", "s"}, {"Text", "s"}},
	}

	introspectableSpec = interfaceSpec{
		name:    "org.freedesktop.DBus.Introspectable",
		methods: []methodSpec{{"Introspect", nil, []param{{"xml_data", "s"}}, anybody}},
	}
	propertiesSpec = interfaceSpec{
		name: "org.freedesktop.DBus.Properties",
		methods: []methodSpec{
			{"Get", []param{{"interface_name", "s"}, {"property_name", "s"}}, []param{{"value", "v"}}, owner},
			{"GetAll", []param{{"interface_name", "s"}}, []param{{"properties", "a{sv}"}}, owner},
			{"Set", []param{{"interface_name", "s"}, {"property_name", "s"}, {"value", "v"}}, nil, owner},
		},
		signals: []signalSpec{{"PropertiesChanged", []param{{"interface_name", "s"}, {"changed_properties", "a{sv}"}, {"invalidated_properties", "as"}}}},
	}
	objectManagerSpec = interfaceSpec{
		name:    "org.freedesktop.DBus.ObjectManager",
		methods: []methodSpec{{"GetManagedObjects", nil, []param{{"objects", "a{oa{sa{sv}}}"}}, owner}},
		signals: []signalSpec{
			{"InterfacesAdded", []param{{"object_path", "o"}, {"interfaces", "a{sa{sv}}"}}},
			{"InterfacesRemoved", []param{{"object_path", "o"}, {"interfaces", "as"}}},
		},
	}
)

func (i interfaceSpec) method(name string) (methodSpec, bool) {
	n := slices.IndexFunc(i.methods, func(m methodSpec) bool { return m.name == name })
	if n < 0 {
		return methodSpec{}, false
	}
	return i.methods[n], true
}

func signature(params []param) string {
	var b strings.Builder
	for _, p := range params {
		b.WriteString(p.sig)
	}
	return b.String()
}

const introspectHead = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
`

// introspection describes an object with these interfaces and child nodes.
func introspection(specs []interfaceSpec, children []string) string {
	var b strings.Builder
	b.WriteString(introspectHead)
	arg := func(p param, direction string) {
		fmt.Fprintf(&b, "      <arg name=%q type=%q", p.name, p.sig)
		if direction != "" {
			fmt.Fprintf(&b, " direction=%q", direction)
		}
		b.WriteString("/>\n")
	}
	for _, i := range specs {
		fmt.Fprintf(&b, "  <interface name=%q>\n", i.name)
		for _, m := range i.methods {
			fmt.Fprintf(&b, "    <method name=%q>\n", m.name)
			for _, p := range m.in {
				arg(p, "in")
			}
			for _, p := range m.out {
				arg(p, "out")
			}
			b.WriteString("    </method>\n")
		}
		for _, p := range i.properties {
			fmt.Fprintf(&b, "    <property name=%q type=%q access=\"read\"/>\n", p.name, p.sig)
		}
		for _, s := range i.signals {
			fmt.Fprintf(&b, "    <signal name=%q>\n", s.name)
			for _, p := range s.args {
				arg(p, "")
			}
			b.WriteString("    </signal>\n")
		}
		b.WriteString("  </interface>\n")
	}
	for _, c := range children {
		b.WriteString("  <node name=\"")
		// Writing to a strings.Builder cannot fail.
		_ = xml.EscapeText(&b, []byte(c))
		b.WriteString("\"/>\n")
	}
	b.WriteString("</node>\n")
	return b.String()
}
