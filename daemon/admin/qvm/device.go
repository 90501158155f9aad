package qvm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
	nouns "cubicle/daemon/device"
)

// device is qvm-device and, with a class, qvm-block and the like.
type device struct {
	verbosity
	class    nouns.Class
	List     deviceList     `cmd:"" aliases:"ls,l" default:"withargs" help:"List devices."`
	Info     deviceInfo     `cmd:"" aliases:"i" help:"Describe a device."`
	Attach   deviceAttach   `cmd:"" aliases:"at,a" help:"Give a device to a running qube, for now."`
	Detach   deviceDetach   `cmd:"" aliases:"dt,d" help:"Take a device from a running qube."`
	Assign   deviceAssign   `cmd:"" aliases:"s" help:"Give a device to a qube for good."`
	Unassign deviceUnassign `cmd:"" aliases:"u" help:"Take an assignment back."`
}

type deviceAction interface {
	run(ctx context.Context, e *env, class nouns.Class) error
}

type deviceList struct {
	Assignments bool     `short:"s" help:"Also what is assigned, with * before the qube's name."`
	WithSBDF    bool     `name:"with-sbdf" aliases:"resolve-paths" help:"Of PCI devices also the path that lspci shows."`
	All         bool     `help:"The devices of all qubes; so it is anyway."`
	Exclude     []string `placeholder:"VMNAME" help:"Not those of this qube. May be given several times." sep:"none" complete:"qube"`
	VMNames     []string `arg:"" optional:"" name:"VMNAME" help:"Only devices that these qubes have or offer." complete:"qube"`
}

type deviceInfo struct {
	Words []string `arg:"" name:"DEVICE" help:"The device, after a qube's name if wished." complete:"device"`
}

// given are options of an attachment or an assignment.
type given struct {
	Option []string `short:"o" placeholder:"NAME=VALUE" sep:"none" help:"Option of the device's class. May be given several times."`
	RO     bool     `name:"ro" help:"Short for --option read-only=yes."`
}

type deviceAttach struct {
	given
	Persistent bool   `short:"p" help:"Also assign it as required."`
	VMName     string `arg:"" name:"VMNAME" help:"The qube that gets the device." complete:"qube"`
	Device     string `arg:"" name:"DEVICE" help:"The device." complete:"device"`
}

type deviceDetach struct {
	VMName string `arg:"" name:"VMNAME" help:"The qube that has the device." complete:"qube"`
	Device string `arg:"" optional:"" name:"DEVICE" help:"The device; none: all of the class." complete:"device"`
}

// part says which part of a device's name counts.
type part struct {
	OnlyPort   bool `name:"port" aliases:"only-port" help:"Whatever is plugged in at this port." xor:"part"`
	OnlyDevice bool `name:"device" aliases:"only-device" help:"This device, at whatever port." xor:"part"`
}

func (p part) of(d nouns.Device) nouns.Device {
	if p.OnlyPort {
		d.ID = nouns.Any
	}
	if p.OnlyDevice {
		d.Port = nouns.Any
	}
	return d
}

type deviceAssign struct {
	given
	part
	Required bool   `short:"r" help:"The qube does not start without it." xor:"mode"`
	Ask      bool   `aliases:"ask-to-attach" help:"Ask before it is attached." xor:"mode"`
	VMName   string `arg:"" name:"VMNAME" help:"The qube that gets the device." complete:"qube"`
	Device   string `arg:"" name:"DEVICE" help:"The device." complete:"device"`
}

type deviceUnassign struct {
	part
	VMName string `arg:"" name:"VMNAME" help:"The qube that the device is assigned to." complete:"qube"`
	Device string `arg:"" optional:"" name:"DEVICE" help:"The device; none: all of the class." complete:"device"`
}

func (d *device) run(ctx context.Context, e *env) error {
	return e.command.(deviceAction).run(ctx, e, d.class)
}

// deviceTool is the tool for "qvm-device CLASS …".
func deviceTool(r *row, args []string) (*row, string, []string, error) {
	if len(args) > 0 && args[0] == "--list-device-classes" {
		listing := *r
		listing.new = func() tool { return &deviceClasses{} }
		return &listing, r.name, args[1:], nil
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
			return r, r.name, args, nil
		}
		return nil, "", nil, usage("a device class is needed: qvm-device CLASS …; --list-device-classes says which there are")
	}
	class := nouns.Class(args[0])
	if strings.Trim(args[0], "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return nil, "", nil, usage("%q is not a device class", args[0])
	}
	of := *r
	of.name = r.name + " " + args[0]
	of.new = func() tool { return &device{class: class} }
	return &of, r.name, args[1:], nil
}

// deviceClasses is qvm-device --list-device-classes.
type deviceClasses struct{ verbosity }

func (*deviceClasses) run(ctx context.Context, e *env) error {
	classes, err := e.DeviceClasses(ctx)
	if err != nil {
		return err
	}
	slices.Sort(classes)
	for _, c := range classes {
		fmt.Fprintln(e.Out, c)
	}
	return nil
}

// portName is BACKEND:PORT.
func portName(d nouns.Device) string { return d.Backend + ":" + d.Port }

func (l *deviceList) run(ctx context.Context, e *env, class nouns.Class) error {
	if l.All && len(l.VMNames) > 0 {
		return usage("--all and VMNAME exclude each other")
	}
	all, err := e.List(ctx)
	if err != nil {
		return err
	}
	if _, err := named(all, l.VMNames); err != nil {
		return err
	}
	type found struct {
		devices            []client.Device
		attached, assigned []nouns.Assignment
	}
	of := make([]found, len(all))
	err = e.Each(ctx, len(all), func(ctx context.Context, i int) (err error) {
		f := &of[i]
		if f.devices, err = e.Devices(ctx, all[i].Name, class); err != nil {
			return err
		}
		if f.attached, err = e.Attached(ctx, all[i].Name, class); err != nil || !l.Assignments {
			return err
		}
		f.assigned, err = e.Assigned(ctx, all[i].Name, class)
		return err
	})
	if client.Missing(err) {
		return fmt.Errorf("there is no device class %q, or it may not be listed", class)
	}
	if err != nil {
		return err
	}
	wanted := func(names ...string) bool {
		for _, n := range names {
			if slices.Contains(l.Exclude, n) {
				return false
			}
		}
		return len(l.VMNames) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(l.VMNames, n) })
	}
	t := table{}
	withSBDF := l.WithSBDF && class == nouns.PCI
	add := func(name, sbdf, text string, users []string) {
		row := []string{oneLine(name), oneLine(text), oneLine(strings.Join(users, ", "))}
		if withSBDF {
			row = slices.Insert(row, 1, oneLine(sbdf))
		}
		t.rows = append(t.rows, row)
	}
	for i := range all {
		for _, d := range of[i].devices {
			var users []string
			names := []string{all[i].Name}
			for j := range all {
				for _, a := range of[j].attached {
					if portName(a.Device) == portName(d.Device) {
						users = append(users, use("", all[j].Name, "attached", a))
						names = append(names, all[j].Name)
					}
				}
			}
			if wanted(names...) {
				add(portName(d.Device), d.Info["_sbdf"], describe(d), users)
			}
		}
	}
	for i := range all {
		for _, a := range of[i].assigned {
			if wanted(all[i].Name, a.Backend) {
				add(portName(a.Device), "", a.ID, []string{use("*", all[i].Name, string(a.Mode), a)})
			}
		}
	}
	slices.SortFunc(t.rows, slices.Compare)
	if isTerminal(e.Out) {
		t.head = []string{"BACKEND:DEVID", "DESCRIPTION", "USED BY"}
		if withSBDF {
			t.head = slices.Insert(t.head, 1, "SBDF")
		}
	}
	return t.write(e.Out)
}

// use says who has a device, and how.
func use(mark, vm, how string, a nouns.Assignment) string {
	var words []string
	for _, name := range sortedNames(a.Options) {
		words = append(words, name+"="+a.Options[name])
	}
	if len(words) > 0 {
		how += ": " + strings.Join(words, ", ")
	}
	return mark + vm + " (" + how + ")"
}

// describe is a device in a few words.
func describe(d client.Device) string {
	known := func(key string) string {
		if v := d.Info[key]; v != "unknown" {
			return v
		}
		return ""
	}
	text := strings.TrimSpace(known("vendor") + " " + known("product"))
	if text == "" {
		text = strings.TrimSpace(known("manufacturer") + " " + known("name"))
	}
	if text == "" {
		text = d.ID
	}
	if s := known("serial"); s != "" && len(s) <= 32 {
		text += " (" + s + ")"
	}
	return text
}

// find is the device that a text names, as its backend offers it.
func (e *env) find(ctx context.Context, class nouns.Class, text string) (client.Device, error) {
	pattern, err := client.ParseDevice(class, text)
	if err != nil {
		return client.Device{}, usage("%w", err)
	}
	if _, err := e.one(ctx, pattern.Backend); err != nil {
		return client.Device{}, err
	}
	list, err := e.Devices(ctx, pattern.Backend, class)
	if err != nil {
		return client.Device{}, err
	}
	for _, d := range list {
		if client.Matches(pattern, d.Device) {
			return d, nil
		}
	}
	return client.Device{}, fmt.Errorf("%s offers no %s device %s", pattern.Backend, class, text)
}

func (i *deviceInfo) run(ctx context.Context, e *env, class nouns.Class) error {
	d, err := e.find(ctx, class, i.Words[len(i.Words)-1])
	if err != nil {
		return err
	}
	rows := [][2]string{{"device", oneLine(portName(d.Device))}, {"device ID", oneLine(d.ID)}, {"description", oneLine(describe(d))}}
	for _, key := range sortedNames(d.Info) {
		switch key {
		case "device_id", "port_id", "devclass", "backend_domain":
		default:
			rows = append(rows, [2]string{oneLine(strings.ReplaceAll(strings.TrimPrefix(key, "_"), "_", " ")), oneLine(d.Info[key])})
		}
	}
	return pairs(rows).writeWhole(e.Out)
}

// options reads the options of an attachment or an assignment.
func (g given) options() (map[string]string, error) {
	list, err := options(g.Option)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, o := range list {
		if o[0] == "ro" { // the older name
			o[0] = "read-only"
		}
		all[o[0]] = o[1]
	}
	if g.RO {
		all["read-only"] = "yes"
	}
	if v, ok := all["read-only"]; ok {
		switch strings.ToLower(v) {
		case "1", "true", "yes", "on":
			all["read-only"] = "yes"
		case "0", "false", "no", "off":
			all["read-only"] = "no"
		default:
			return nil, usage("read-only is yes or no, not %q", v)
		}
	}
	return all, nil
}

func (a *deviceAttach) run(ctx context.Context, e *env, class nouns.Class) error {
	options, err := a.options()
	if err != nil {
		return err
	}
	if _, err := e.one(ctx, a.VMName); err != nil {
		return err
	}
	d, err := e.find(ctx, class, a.Device)
	if err != nil {
		return err
	}
	err = e.Attach(ctx, a.VMName, nouns.Assignment{Device: d.Device, Mode: nouns.Manual, Options: options})
	if !a.Persistent {
		return err
	}
	// For later it is assigned all the same.
	return e.Assign(ctx, a.VMName, nouns.Assignment{Device: d.Device, Mode: nouns.Required, Options: options})
}

func (t *deviceDetach) run(ctx context.Context, e *env, class nouns.Class) error {
	list, err := e.Attached(ctx, t.VMName, class)
	return e.eachDevice(list, err, class, t.Device, "attached to "+t.VMName, func(d nouns.Device) error {
		return e.Detach(ctx, t.VMName, d)
	})
}

// eachDevice does something with those of a list that a text names; empty: all.
func (e *env) eachDevice(list []nouns.Assignment, err error, class nouns.Class, text, how string, do func(nouns.Device) error) error {
	if err != nil {
		return err
	}
	pattern := nouns.Device{}
	if text != "" {
		if pattern, err = client.ParseDevice(class, text); err != nil {
			return usage("%w", err)
		}
	}
	done := 0
	for _, a := range list {
		if text != "" && !client.Matches(pattern, a.Device) {
			continue
		}
		done++
		if err := do(a.Device); err != nil {
			return err
		}
	}
	if done == 0 && text != "" {
		return fmt.Errorf("%s is not %s", text, how)
	}
	return nil
}

func (a *deviceAssign) run(ctx context.Context, e *env, class nouns.Class) error {
	options, err := a.options()
	if err != nil {
		return err
	}
	q, err := e.one(ctx, a.VMName)
	if err != nil {
		return err
	}
	target, err := client.ParseDevice(class, a.Device)
	if err != nil {
		return usage("%w", err)
	}
	// What is plugged in now says which device is meant, unless that is said.
	explicit := strings.Count(a.Device, ":") > 1
	if !explicit && !a.OnlyPort {
		d, err := e.find(ctx, class, a.Device)
		if err != nil {
			return err
		}
		target = d.Device
	}
	mode := nouns.Auto
	switch {
	case a.Required:
		mode = nouns.Required
	case a.Ask:
		mode = nouns.Ask
	}
	if err := e.Assign(ctx, a.VMName, nouns.Assignment{Device: a.of(target), Mode: mode, Options: options}); err != nil {
		return err
	}
	if !q.IsDown() && class != nouns.PCI && target.Port != nouns.Any {
		e.tell("Assigned. To attach it now: qvm-device %s attach %s %s", class, a.VMName, portName(target))
	}
	return nil
}

func (u *deviceUnassign) run(ctx context.Context, e *env, class nouns.Class) error {
	list, err := e.Assigned(ctx, u.VMName, class)
	list = slices.DeleteFunc(list, func(a nouns.Assignment) bool {
		return u.OnlyPort && a.ID != nouns.Any || u.OnlyDevice && a.Port != nouns.Any
	})
	text := u.Device
	if u.OnlyDevice && text != "" { // its port is any
		backend, rest, _ := strings.Cut(text, ":")
		_, id, _ := strings.Cut(rest, ":")
		text = backend + ":" + nouns.Any + ":" + id
	}
	return e.eachDevice(list, err, class, text, "assigned to "+u.VMName, func(d nouns.Device) error {
		return e.Unassign(ctx, u.VMName, d)
	})
}
