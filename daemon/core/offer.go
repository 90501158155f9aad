package core

import (
	"context"
	"maps"
	"slices"

	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// Offered are the devices of a class that the qube offers, by port; of a
// qube that is off there are none.
func (q Qube) Offered(c device.Class) []device.Info { return slices.Clone(q.e.offered[c]) }

// Attached are the devices of a class that backends say the qube has now, with
// the mode and the options of the assignment that fits best
// (spec/admin-api.md §2.6, §6.3).
func (q Qube) Attached(c device.Class) []device.Assignment {
	var list []device.Assignment
	for _, b := range append(q.v.Qubes(), Qube{q.v, q.v.dom0}) {
		for _, i := range b.e.offered[c] {
			if i.Attachment != string(q.Name()) || b.UUID() == q.UUID() || q.XID() < 0 {
				continue
			}
			a := device.Assignment{Device: i.Device, Mode: device.Manual}
			if fits, ok := q.assignmentOf(i); ok {
				a.Mode, a.Options = fits.Mode, maps.Clone(fits.Options)
			}
			list = append(list, a)
		}
	}
	slices.SortFunc(list, device.Compare)
	return list
}

// assignmentOf is the assignment that fits a device best: one of its port and
// id, before one of its port, of its id, and of any.
func (q Qube) assignmentOf(i device.Info) (best device.Assignment, found bool) {
	rank := func(a device.Assignment) int {
		n := 0
		if a.Port != device.Any {
			n += 2
		}
		if a.ID != device.Any {
			n++
		}
		return n
	}
	for _, a := range q.e.rec.Devices {
		if i.Is(a.Device) && (!found || rank(a) > rank(best)) {
			best, found = a, true
		}
	}
	return best, found
}

// AttachDevice gives a running qube a device for now. As no engine of this
// system passes devices on, it tells why that cannot be.
func (c *Core) AttachDevice(id qube.UUID, d device.Device) error {
	v := c.View()
	q, ok := v.Lookup(id)
	if !ok {
		return Failf(NotFound, "the qube %s does not exist", id)
	}
	if err := q.canHaveDevices(); err != nil {
		return err
	}
	found := v.offers(d)
	switch {
	case len(found) == 0:
		return Failf(ProtocolViolation, "nothing offers the %s device %s", d.Class, d)
	case len(found) > 1:
		return Failf(ProtocolViolation, "%s may be any of %d %s devices", d, len(found), d.Class)
	case found[0].Backend == string(q.Name()):
		return Failf(BadValue, "%s has that device anyway", q.Name())
	case found[0].Attachment != "":
		return Failf(DeviceAttached, "%s is attached to %s already", found[0].Device, found[0].Attachment)
	}
	denied, err := device.ParseInterfaces(q.Property("devices_denied"))
	if err != nil {
		return wrap(err, "attach %s", d)
	}
	for _, code := range found[0].Interfaces {
		if i := slices.IndexFunc(denied, func(pattern string) bool { return device.InterfaceFits(pattern, code) }); i >= 0 {
			return Failf(PermissionDenied, "%s must not have devices with the interface %s, as %s has", q.Name(), denied[i], found[0].Device)
		}
	}
	return c.NoDevices(q, d.Class)
}

// offers are the devices that d names.
func (v *View) offers(d device.Device) (found []device.Info) {
	for _, b := range append(v.Qubes(), Qube{v, v.dom0}) {
		for _, i := range b.e.offered[d.Class] {
			if i.Is(d) {
				found = append(found, i)
			}
		}
	}
	return found
}

// detaching are the services of a backend that take a device back, and what
// they read (spec/admin-api.md §6.3).
func detaching(i device.Info) (service, input string, ok bool) {
	switch i.Class {
	case device.USB:
		return "qubes.USBDetach", i.Port + "\n", true
	case device.Webcam:
		return "qvc.WebcamDetach+" + i.Port, "", true
	}
	return "", "", false
}

// DetachDevice has the backend of a device take it back from a qube.
func (c *Core) DetachDevice(ctx context.Context, id qube.UUID, d device.Device) error {
	v := c.View()
	q, ok := v.Lookup(id)
	if !ok {
		return Failf(NotFound, "the qube %s does not exist", id)
	}
	found := slices.DeleteFunc(v.offers(d), func(i device.Info) bool { return i.Attachment != string(q.Name()) || i.Backend == i.Attachment })
	if len(found) == 0 || q.XID() < 0 {
		return Failf(DeviceNotAssigned, "%s is not attached to %s", d, q.Name())
	}
	for _, i := range found {
		if a, ok := q.assignmentOf(i); ok && a.Mode == device.Required {
			return Failf(NotHalted, "%s requires the device %s while it runs", q.Name(), i.Device)
		}
		backend, ok := v.Named(qube.Name(i.Backend))
		service, input, can := detaching(i)
		if !ok || !can {
			return Failf(NotImplemented, "%s devices cannot be taken from %s", i.Class, q.Name())
		}
		r, err := c.current(backend)
		if err != nil {
			return wrap(err, "take %s from %s", i.Device, q.Name())
		}
		exit, err := c.cfg.Caller.Call(ctx, Service{To: r.facts.Domain, User: "root", Name: service, Input: input})
		if err == nil && exit != 0 {
			err = Failf(General, "%s ended with status %d in %s", service, exit, i.Backend)
		}
		if err != nil {
			return wrap(err, "take %s from %s", i.Device, q.Name())
		}
	}
	return nil
}

// NoteDevices takes note of the devices of a class that a qube offers in the
// run with that domain id, 0 for dom0, and tells of what is new. What was read
// in an earlier run is passed over.
func (c *Core) NoteDevices(id qube.UUID, xid int, class device.Class, list []device.Info) {
	if q, ok := c.View().Lookup(id); !ok || slices.EqualFunc(q.e.offered[class], list, device.Info.Equal) {
		return // the usual case, without a change
	}
	c.must(func(t *tx) {
		if q, ok := t.v.Lookup(id); !ok || q.e.xid != xid {
			return
		}
		t.offer(t.edit(id), class, list)
	})
}

// offer makes list the devices of a class that a qube offers.
func (t *tx) offer(e *entry, class device.Class, list []device.Info) {
	was := e.offered[class]
	if slices.EqualFunc(was, list, device.Info.Equal) {
		return
	}
	e.offered = maps.Clone(e.offered)
	if e.offered == nil {
		e.offered = map[device.Class][]device.Info{}
	}
	e.offered[class] = slices.Clone(list)
	t.emit(e, "device-list-change:"+string(class))
	port := func(i device.Info) Arg { return Arg{"port", i.Backend + ":" + i.Port} }
	frontend := func(i device.Info) *entry {
		if f := t.v.names[qube.Name(i.Attachment)]; f != nil && f.xid >= 0 && f != e {
			return f
		}
		return nil
	}
	for _, i := range was {
		now, still := at(list, i)
		if !still {
			t.emit(e, "device-removed:"+string(class), port(i))
		}
		if f := frontend(i); f != nil && now.Attachment != i.Attachment {
			t.emit(f, "device-detach:"+string(class), port(i))
		}
	}
	for _, i := range list {
		old, known := at(was, i)
		if !known {
			t.emit(e, "device-added:"+string(class), Arg{"device", i.String()})
		}
		if f := frontend(i); f != nil && old.Attachment != i.Attachment {
			t.emit(f, "device-attach:"+string(class), Arg{"device", i.String()}, Arg{"options", device.Assignment{}.OptionsText()})
		}
	}
}

// at finds the same device in a list: at the same port, with the same id.
func at(list []device.Info, i device.Info) (device.Info, bool) {
	n := slices.IndexFunc(list, func(o device.Info) bool { return o.Device == i.Device })
	if n < 0 {
		return device.Info{}, false
	}
	return list[n], true
}

// offerNothing takes back what a qube offered: it is off.
func (t *tx) offerNothing(e *entry) {
	for _, class := range slices.Sorted(maps.Keys(e.offered)) {
		t.offer(e, class, nil)
	}
	e.offered = nil
}

// DeviceState is a device that is offered, assigned to qubes, or both.
type DeviceState struct {
	// Info of a device that nobody offers now has but its name, which may have
	// device.Any in it.
	device.Info
	Offered     bool
	Assignments []FrontendAssignment // by frontend
}

// FrontendAssignment is an assignment of a device to a qube.
type FrontendAssignment struct {
	Frontend qube.Name
	device.Assignment
}

// Devices are all devices that are offered or assigned.
func (v *View) Devices() []DeviceState {
	all := append(v.Qubes(), Qube{v, v.dom0})
	var list []DeviceState
	for _, b := range all {
		for _, class := range slices.Sorted(maps.Keys(b.e.offered)) {
			for _, i := range b.e.offered[class] {
				list = append(list, DeviceState{Info: i, Offered: true})
			}
		}
	}
	absent := map[device.Device]int{} // where they are in list
	for _, f := range all {
		for _, a := range f.e.rec.Devices {
			found := false
			assigned := FrontendAssignment{f.Name(), a}
			for n := range list {
				if list[n].Offered && list[n].Is(a.Device) && list[n].Backend != string(f.Name()) {
					list[n].Assignments = append(list[n].Assignments, assigned)
					found = true
				}
			}
			if found {
				continue
			}
			n, known := absent[a.Device]
			if !known {
				n = len(list)
				absent[a.Device] = n
				list = append(list, DeviceState{Info: device.Info{Device: a.Device}})
			}
			list[n].Assignments = append(list[n].Assignments, assigned)
		}
	}
	return list
}
