package client

import (
	"context"
	"maps"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/device"
)

// Device is a device that a qube or dom0 offers, that is assigned to qubes,
// or both. Its texts come from the qube that offers it: printable ASCII, and
// perhaps untrue.
type Device struct {
	device.Device                                      // of one that nobody offers, with device.Any in it perhaps
	Offered                                            bool
	Vendor, Product, Manufacturer, DisplayName, Serial string
	Interfaces                                         []string // codes (spec/admin-api.md §6.1)
	Parent                                             string   // CLASS:PORT of what it is a part of, or empty
	Attached                                           string   // the qube that has it now, or empty
	ReadOnly                                           bool
	Size                                               uint64 // of a block device, in bytes
	Assignments                                        []Assignment
}

// Assignment says that a qube shall have a device.
type Assignment struct {
	Frontend string
	Mode     device.Mode
	Options  map[string]string
}

func (d *Device) load(p properties) {
	load((*string)(&d.Class), p["Class"])
	load(&d.Backend, p["Backend"])
	load(&d.Port, p["Port"])
	load(&d.ID, p["ID"])
	load(&d.Offered, p["Offered"])
	load(&d.Vendor, p["Vendor"])
	load(&d.Product, p["Product"])
	load(&d.Manufacturer, p["Manufacturer"])
	load(&d.DisplayName, p["Name"])
	load(&d.Serial, p["Serial"])
	load(&d.Interfaces, p["Interfaces"])
	load(&d.Parent, p["Parent"])
	load(&d.Attached, p["Attached"])
	load(&d.ReadOnly, p["ReadOnly"])
	load(&d.Size, p["Size"])
	if v, ok := p["Assignments"]; ok {
		var list []Assignment
		if dbus.Store([]any{v.Value()}, &list) == nil {
			d.Assignments = list
		}
	}
}

// putDevice merges what was said about a device.
func (s *Snapshot) putDevice(path dbus.ObjectPath, p properties, added bool) Event {
	d, known := s.Devices[path]
	if !known && !added {
		return nil
	}
	d.load(p)
	s.Devices[path] = d
	return DevicesChanged{maps.Clone(s.Devices)}
}

// dropDevice forgets a device.
func (s *Snapshot) dropDevice(path dbus.ObjectPath) Event {
	if _, known := s.Devices[path]; !known {
		return nil
	}
	delete(s.Devices, path)
	return DevicesChanged{maps.Clone(s.Devices)}
}

// AssignDevice makes a device one that the qube shall have. Of d, what is
// device.Any stands for every device.
func (c *Client) AssignDevice(ctx context.Context, uuid string, d device.Device, mode device.Mode, options map[string]string) error {
	if options == nil {
		options = map[string]string{}
	}
	return c.call(ctx, QubePath(uuid), QubeInterface+".AssignDevice", nil, string(d.Class), d.Argument(), string(mode), options)
}

// SetDeviceMode changes when an assigned device is attached.
func (c *Client) SetDeviceMode(ctx context.Context, uuid string, d device.Device, mode device.Mode) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".SetDeviceMode", nil, string(d.Class), d.Argument(), string(mode))
}

// UnassignDevice takes an assignment back.
func (c *Client) UnassignDevice(ctx context.Context, uuid string, d device.Device) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".UnassignDevice", nil, string(d.Class), d.Argument())
}

// DeviceLacks tells why the qube's engine cannot attach devices of a class.
func (c *Client) DeviceLacks(ctx context.Context, uuid string) (map[device.Class]string, error) {
	raw := map[string]string{}
	err := c.call(ctx, QubePath(uuid), QubeInterface+".DeviceLacks", []any{&raw})
	lacks := make(map[device.Class]string, len(raw))
	for class, why := range raw {
		lacks[device.Class(class)] = why
	}
	return lacks, err
}
