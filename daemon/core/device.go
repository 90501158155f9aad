package core

import (
	"cmp"
	"slices"
	"strings"

	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// Devices are the devices that are assigned to the qube, sorted by
// device.Compare. Each backend but device.Any exists.
func (q Qube) Devices() []device.Assignment { return slices.Clone(q.e.rec.Devices) }

// canHaveDevices tells why a qube cannot: only what is on this computer has
// devices.
func (q Qube) canHaveDevices() error {
	if q.Class() == qube.RemoteVM {
		return Failf(VMError, "%s is on another computer: it has no devices here", q.Name())
	}
	return nil
}

// AssignDevice makes a device one that the qube shall have from now on
// (spec/admin-api.md §6.3).
func (c *Core) AssignDevice(id qube.UUID, a device.Assignment) error {
	return c.changeDevices(id, func(t *tx, q Qube, e *entry) error {
		switch {
		case a.Mode == device.Manual:
			return Failf(BadValue, "an assignment is required, auto-attach or ask-to-attach")
		case slices.ContainsFunc(e.rec.Devices, func(o device.Assignment) bool { return o.Same(a.Device) }):
			return Failf(DeviceAssigned, "%s is assigned to %s already", a.Device, q.Name())
		case a.Class == device.PCI && q.IsAdmin():
			return Failf(BadValue, "dom0 has its PCI devices anyway")
		case a.Class == device.PCI && q.e.rec.Properties["virt_mode"] == "pvh":
			return Failf(BadValue, "%s cannot have PCI devices while its virt_mode is pvh", q.Name())
		case a.Backend == string(q.Name()):
			return Failf(BadValue, "%s has that device anyway", q.Name())
		}
		if err := t.checkBackend(a.Device); err != nil {
			return err
		}
		t.emit(e, "device-pre-assign:"+string(a.Class), Arg{"device", a.String()}, Arg{"options", a.OptionsText()})
		e.rec.Devices = append(e.rec.Devices, a)
		slices.SortFunc(e.rec.Devices, device.Compare)
		t.emit(e, "device-assign:"+string(a.Class), Arg{"device", a.String()}, Arg{"options", a.OptionsText()})
		return nil
	})
}

// checkBackend tells why a qube cannot have that device.
func (t *tx) checkBackend(d device.Device) error {
	if d.Backend == device.Any {
		return nil
	}
	b, ok := t.v.Named(qube.Name(d.Backend))
	switch {
	case !ok:
		return Failf(NotFound, "there is no qube named %s", d.Backend)
	case (d.Class == device.PCI || d.Class == device.Mic) && !b.IsAdmin():
		return Failf(BadValue, "devices of the class %s belong to dom0, not to %s", d.Class, b.Name())
	}
	return b.canHaveDevices()
}

// UnassignDevice takes an assignment back. A device that is attached stays so.
func (c *Core) UnassignDevice(id qube.UUID, d device.Device) error {
	return c.changeDevices(id, func(t *tx, q Qube, e *entry) error {
		i := slices.IndexFunc(e.rec.Devices, func(o device.Assignment) bool { return o.Same(d) })
		if i < 0 {
			return Failf(DeviceNotAssigned, "%s is not assigned to %s", d, q.Name())
		}
		e.rec.Devices = slices.Delete(e.rec.Devices, i, i+1)
		t.emit(e, "device-unassign:"+string(d.Class), Arg{"device", d.String()})
		return nil
	})
}

// SetDeviceMode changes when an assigned device is attached.
func (c *Core) SetDeviceMode(id qube.UUID, d device.Device, m device.Mode) error {
	return c.changeDevices(id, func(t *tx, q Qube, e *entry) error {
		i := slices.IndexFunc(e.rec.Devices, func(o device.Assignment) bool { return o.Same(d) })
		if i < 0 {
			return Failf(BadValue, "%s is not assigned to %s", d, q.Name())
		}
		e.rec.Devices[i].Mode = m
		t.emit(e, "device-assignment-changed:"+string(d.Class), Arg{"device", d.String()})
		return nil
	})
}

func (c *Core) changeDevices(id qube.UUID, change func(*tx, Qube, *entry) error) error {
	return c.update(func(t *tx) error {
		q, ok := t.v.Lookup(id)
		switch {
		case !ok:
			return Failf(NotFound, "the qube %s does not exist", id)
		case q.e.broken != "":
			return Failf(VMError, "%s cannot be changed: %s", q.Name(), q.Trouble())
		}
		if err := q.canHaveDevices(); err != nil {
			return err
		}
		return change(t, q, t.amend(id))
	})
}

// NoDevices tells why a device cannot be attached to a qube.
func (c *Core) NoDevices(q Qube, class device.Class) error {
	if err := q.canHaveDevices(); err != nil {
		return err
	}
	if q.IsAdmin() {
		return Failf(NotImplemented, "dom0 cannot take devices of its qubes")
	}
	return Failf(NotImplemented, "%s devices cannot be attached to %s by the engine %s: %s", class, q.Name(), q.Engine(), q.deviceLack(class))
}

// deviceLack is what the qube's engine says of devices of a class.
func (q Qube) deviceLack(class device.Class) string {
	reason, bus := "it has no way of passing devices to a qube", string(class)
	if class == device.Webcam {
		bus = string(device.USB)
	}
	if e, ok := q.v.Engine(q.Engine()); ok {
		for _, l := range e.Lacks {
			if strings.HasPrefix(l.What, bus) {
				reason = cmp.Or(l.Reason, reason)
			}
		}
	}
	return reason
}

// DeviceLacks tells for each class of devices why the qube's engine cannot
// attach them, in a few words.
func (q Qube) DeviceLacks() map[device.Class]string {
	lacks := map[device.Class]string{}
	for _, class := range device.Classes() {
		lacks[class] = q.deviceLack(class)
	}
	return lacks
}

// requiredDevices tells which device a start needs and cannot have
// (spec/admin-api.md §6.3).
func (c *Core) requiredDevices(q Qube) error {
	for _, a := range q.e.rec.Devices {
		if a.Mode == device.Required {
			return wrap(c.NoDevices(q, a.Class), "%s requires the device %s", q.Name(), a.Device)
		}
	}
	return nil
}
