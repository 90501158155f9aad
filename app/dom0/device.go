package dom0

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/device"
)

// The nouns of devices, as daemon/device defines them.
type (
	DeviceClass = device.Class
	DeviceMode  = device.Mode
	DeviceRef   = device.Device
)

// The classes, and when an assigned device is attached.
const (
	Block  = device.Block
	Mic    = device.Mic
	PCI    = device.PCI
	USB    = device.USB
	Webcam = device.Webcam

	AskToAttach = device.Ask
	AutoAttach  = device.Auto
	Required    = device.Required

	AnyDevice = device.Any // in a DeviceRef: every one
)

// Device is a device that a qube or dom0 offers, that is assigned to qubes,
// or both. What it says of itself comes from the qube that offers it.
type Device struct {
	DeviceRef
	Offered     bool
	Title       Text // what it says it is; empty when it says nothing
	Size        uint64
	ReadOnly    bool
	Attached    Name // the qube that has it now, or empty
	Assignments []Assignment
}

// Assignment says that a qube shall have a device.
type Assignment struct {
	Qube Name
	Mode DeviceMode
}

// To is the assignment to a qube.
func (d *Device) To(name Name) (Assignment, bool) {
	i := slices.IndexFunc(d.Assignments, func(a Assignment) bool { return a.Qube == name })
	if i < 0 {
		return Assignment{}, false
	}
	return d.Assignments[i], true
}

// Equal reports whether nothing is told differently.
func (d Device) Equal(o Device) bool {
	a, b := d.Assignments, o.Assignments
	return d.DeviceRef == o.DeviceRef && d.Offered == o.Offered && d.Title == o.Title && d.Size == o.Size &&
		d.ReadOnly == o.ReadOnly && d.Attached == o.Attached && slices.Equal(a, b)
}

// fromDevices checks what the daemon says of devices; what cannot be is left
// out. They are sorted by class, backend, port and id.
func fromDevices(all map[dbus.ObjectPath]client.Device) []Device {
	var list []Device
	for _, path := range slices.Sorted(maps.Keys(all)) {
		raw := all[path]
		ref := raw.Device
		err := checkDevice(ref)
		if err != nil {
			slog.Warn("the daemon tells of a device that cannot be", "device", ref.String(), "error", err)
			continue
		}
		d := Device{DeviceRef: ref, Offered: raw.Offered, Title: deviceTitle(raw), Size: raw.Size, ReadOnly: raw.ReadOnly}
		if d.Attached, err = maybeName(raw.Attached); err != nil {
			slog.Warn("the daemon tells of a device at a qube that cannot be", "device", ref.String(), "error", err)
		}
		for _, a := range raw.Assignments {
			name, err := maybeName(a.Frontend)
			if err == nil {
				_, err = device.ParseMode(string(a.Mode))
			}
			if err != nil || name == "" {
				slog.Warn("the daemon tells of an assignment that cannot be", "device", ref.String(), "error", err)
				continue
			}
			d.Assignments = append(d.Assignments, Assignment{Qube: name, Mode: a.Mode})
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Port, b.Port), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func checkDevice(d DeviceRef) error {
	if _, err := device.ParseClass(string(d.Class)); err != nil {
		return err
	}
	if d.Backend != device.Any {
		if _, err := ParseName(d.Backend); err != nil {
			return err
		}
	}
	return cmp.Or(device.CheckPort(d.Class, d.Port), device.CheckID(d.ID))
}

// deviceTitle is what a device says it is, the most telling first.
func deviceTitle(d client.Device) Text {
	known := func(text string) string {
		if text == "unknown" {
			return ""
		}
		return strings.TrimSpace(text)
	}
	both := strings.TrimSpace(known(d.Vendor) + " " + known(d.Product))
	return CleanLine(cmp.Or(known(d.DisplayName), both, known(d.Manufacturer)))
}

// AssignDevice implements Inside.
func (b *Bus) AssignDevice(ctx context.Context, id QubeID, d DeviceRef, mode DeviceMode) error {
	return b.ask(ctx, "assign", b.called(id), func(c *client.Client) error { return c.AssignDevice(ctx, string(id), d, mode, nil) })
}

// SetDeviceMode implements Inside.
func (b *Bus) SetDeviceMode(ctx context.Context, id QubeID, d DeviceRef, mode DeviceMode) error {
	return b.ask(ctx, "assign", b.called(id), func(c *client.Client) error { return c.SetDeviceMode(ctx, string(id), d, mode) })
}

// UnassignDevice implements Inside.
func (b *Bus) UnassignDevice(ctx context.Context, id QubeID, d DeviceRef) error {
	return b.ask(ctx, "unassign", b.called(id), func(c *client.Client) error { return c.UnassignDevice(ctx, string(id), d) })
}

// DeviceLacks implements Inside.
func (b *Bus) DeviceLacks(ctx context.Context, id QubeID) (lacks map[DeviceClass]string, err error) {
	err = b.ask(ctx, "devices", b.called(id), func(c *client.Client) error {
		all, err := c.DeviceLacks(ctx, string(id))
		lacks = make(map[DeviceClass]string, len(all))
		for class, why := range all {
			lacks[class] = oneLine(why)
		}
		return err
	})
	return lacks, err
}
