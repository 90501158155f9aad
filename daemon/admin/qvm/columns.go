package qvm

import (
	"context"
	"strconv"
	"strings"

	"cubicle/daemon/admin/client"
)

// sheet is what qvm-ls knows of all qubes.
type sheet struct {
	qubes []lsQube
	has   map[string]bool // columns that some qube has
}

// lsQube is a qube with the columns that were asked for.
type lsQube struct {
	client.Qube
	values  map[string]client.Value
	volumes map[string]volumeUse
}

// volumeUse is in bytes.
type volumeUse struct{ size, usage int64 }

func (q lsQube) value(column string) string  { return q.values[column].Text }
func (q lsQube) property(name string) string { return q.value(client.PropertyColumn(name)) }

// sheet asks for columns of all qubes, in one call where that is possible.
func (e *env) sheet(ctx context.Context, needs []string) (*sheet, error) {
	rows, err := e.Table(ctx, needs...)
	if err != nil {
		return nil, err
	}
	s := &sheet{has: map[string]bool{}}
	for _, r := range rows {
		q := lsQube{Qube: r.Qube, values: make(map[string]client.Value, len(needs))}
		for i, v := range r.Values {
			q.values[needs[i]] = v
			if v.Known {
				s.has[needs[i]] = true
			}
		}
		s.qubes = append(s.qubes, q)
	}
	byName := map[string]lsQube{}
	for _, q := range s.qubes {
		byName[q.Name] = q
	}
	for _, q := range s.qubes { // a column of another qube
		if netvm, ok := byName[q.property("netvm")]; ok {
			q.values["netvm.gateway"] = netvm.values[client.PropertyColumn("gateway")]
			q.values["netvm.ip"] = netvm.values[client.PropertyColumn("ip")]
		}
	}
	return s, nil
}

// addVolumes asks for sizes of volumes if a column shows them.
func (s *sheet) addVolumes(ctx context.Context, e *env, columns []lsColumn, qubes []lsQube) error {
	wanted := false
	for _, c := range columns {
		wanted = wanted || c.volumes
	}
	if !wanted {
		return nil
	}
	return e.Each(ctx, len(qubes), func(ctx context.Context, i int) error {
		q := &qubes[i]
		q.volumes = map[string]volumeUse{}
		names, err := e.Words(ctx, q.Name, "admin.vm.volume.List", "")
		if err != nil {
			return err
		}
		for _, name := range names {
			info, err := e.VolumeInfo(ctx, q.Name, name)
			if err != nil {
				return err
			}
			size, _ := strconv.ParseInt(client.Lookup(info, "size"), 10, 64)
			usage, _ := strconv.ParseInt(client.Lookup(info, "usage"), 10, 64)
			q.volumes[name] = volumeUse{size, usage}
		}
		return nil
	})
}

// lsColumn is a column of qvm-ls.
type lsColumn struct {
	head     string
	help     string
	property string   // the property that it shows, if any
	needs    []string // what to ask for
	volumes  bool     // and the volumes
	cell     func(lsQube) string
}

// columnOf is the column of that head: a computed one, or a property.
func columnOf(head string) lsColumn {
	if c, ok := computedColumns()[head]; ok {
		c.head = head
		return c
	}
	c := shows(propertyOf(head), "")
	c.head = head
	return c
}

// propertyOf is the property that a head names.
func propertyOf(head string) string {
	return strings.ToLower(strings.ReplaceAll(head, "-", "_"))
}

// shows is the column of a property.
func shows(property, help string) lsColumn {
	column := client.PropertyColumn(property)
	return lsColumn{help: help, property: property, needs: []string{column}, cell: func(q lsQube) string { return q.value(column) }}
}

// computedColumns are the columns that are more than a property of the same
// name, by their head.
func computedColumns() map[string]lsColumn {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	volume := func(help, name string, show func(volumeUse) int64) lsColumn {
		return lsColumn{help: help, volumes: true, cell: func(q lsQube) string {
			return number(show(q.volumes[name]))
		}}
	}
	mib := func(pick func(volumeUse) int64) func(volumeUse) int64 {
		return func(v volumeUse) int64 { return pick(v) >> 20 }
	}
	size := func(v volumeUse) int64 { return v.size }
	usage := func(v volumeUse) int64 { return v.usage }
	percent := func(v volumeUse) int64 {
		if v.size <= 0 {
			return 0
		}
		return int64(float64(v.usage) * 100 / float64(v.size))
	}
	lookedUp := func(help, column string, needs ...string) lsColumn {
		return lsColumn{help: help, needs: needs, cell: func(q lsQube) string { return q.value(column) }}
	}
	property, feature := client.PropertyColumn, client.FeatureColumn
	initial := shows("memory", "Memory that the qube starts with, in MiB.")
	initial.property = ""
	return map[string]lsColumn{
		"NAME":       {help: "Name.", cell: func(q lsQube) string { return q.Name }},
		"STATE":      {help: "What the qube is doing: Running, Halted, Paused, …", cell: func(q lsQube) string { return q.State }},
		"CLASS":      {help: "Class: AppVM, TemplateVM, …", cell: func(q lsQube) string { return q.Class }},
		"UUID":       {help: "Identifier that never changes.", cell: func(q lsQube) string { return q.UUID }},
		"LABEL":      shows("label", "Colour label."),
		"TEMPLATE":   optional(shows("template", "Template.")),
		"NETVM":      optional(shows("netvm", "Qube that gives network access.")),
		"IP":         optional(shows("ip", "Address.")),
		"IPBACK":     lookedUp("Address of the netvm.", "netvm.ip", property("netvm"), property("ip")),
		"GATEWAY":    lookedUp("Gateway: the netvm's address as this qube sees it.", "netvm.gateway", property("netvm"), property("gateway")),
		"MEMORY":     {help: "Memory in use, in MiB.", needs: []string{client.MemoryColumn}, cell: func(q lsQube) string { return inMiB(q.value(client.MemoryColumn)) }},
		"INITIALMEM": initial,
		"CPU":        lookedUp("Processor time, in percent of one processor.", client.CPUColumn, client.CPUColumn),
		"TAGS":       lookedUp("Tags.", client.TagsColumn, client.TagsColumn),
		"DISK": {help: "Disk space in use, in MiB.", volumes: true, cell: func(q lsQube) string {
			sum := int64(0)
			for _, v := range q.volumes {
				sum += v.usage
			}
			return number(sum >> 20)
		}},
		"PRIV-CURR": volume("Space used in the private volume, in MiB.", "private", mib(usage)),
		"PRIV-MAX":  volume("Size of the private volume, in MiB.", "private", mib(size)),
		"PRIV-USED": volume("Space used in the private volume, in percent.", "private", percent),
		"ROOT-CURR": volume("Space used in the root volume, in MiB.", "root", mib(usage)),
		"ROOT-MAX":  volume("Size of the root volume, in MiB.", "root", mib(size)),
		"ROOT-USED": volume("Space used in the root volume, in percent.", "root", percent),
		"FLAGS": {
			help: "Letters: class (0 a d s t, capital for hvm), state (r t p s h d c), Updateable, provides Network, installed by Rpm, internal, Debug, Autostart.",
			needs: []string{property("virt_mode"), property("updateable"), property("provides_network"), property("installed_by_rpm"),
				feature("internal"), property("debug"), property("autostart")},
			cell: flags,
		},
	}
}

// optional makes a column one that need not exist: no qube may have it.
func optional(c lsColumn) lsColumn {
	c.property = ""
	return c
}

func inMiB(kib string) string {
	n, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		return ""
	}
	return strconv.FormatInt(n>>10, 10)
}

// flags are a qube's traits, a letter each.
func flags(q lsQube) string {
	class := map[string]string{"AdminVM": "0", "TemplateVM": "t", "AppVM": "a", "StandaloneVM": "s", "DispVM": "d", "RemoteVM": "r"}[q.Class]
	if class == "" {
		class = "-"
	}
	if q.property("virt_mode") == "hvm" {
		class = strings.ToUpper(class)
	}
	state := "-"
	switch q.State {
	case "Running", "Transient", "Paused", "Suspended", "Halting", "Dying", "Crashed":
		state = strings.ToLower(q.State[:1])
	case "NA":
		state = "?"
	}
	letter := func(on bool, l string) string {
		if on {
			return l
		}
		return "-"
	}
	is := func(name string) bool { return q.property(name) == "True" }
	return class + state + letter(is("updateable"), "U") + letter(is("provides_network"), "N") + letter(is("installed_by_rpm"), "R") +
		letter(q.value(client.FeatureColumn("internal")) != "", "i") + letter(is("debug"), "D") + letter(is("autostart"), "A")
}
