package client

import (
	"context"
	"fmt"
	"strings"

	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// Device is a device that a qube exposes.
type Device struct {
	device.Device
	Info map[string]string // vendor, product, serial, interfaces, …: what its qube says of it
}

// ParseDevice reads BACKEND:PORT[:DEVICE_ID] as people write it; without an id
// every one is meant.
func ParseDevice(class device.Class, text string) (device.Device, error) {
	backend, rest, ok := strings.Cut(text, ":")
	port, id, hasID := strings.Cut(rest, ":")
	if !hasID || id == "" {
		id = device.Any
	}
	if !ok || backend == "" || port == "" || strings.ContainsAny(text, " +\x00") {
		return device.Device{}, fmt.Errorf("a device is BACKEND:PORT[:DEVICE_ID], not %q", text)
	}
	return device.Device{Class: class, Backend: backend, Port: port, ID: id}, nil
}

// Matches reports whether a pattern, in which the port and the id may be
// device.Any, fits the device.
func Matches(pattern, d device.Device) bool {
	return pattern.Backend == d.Backend && (pattern.Port == device.Any || pattern.Port == d.Port) && (pattern.ID == device.Any || pattern.ID == d.ID)
}

// parseDevices reads the lines "KEY DESCRIPTION" of Available, Assigned and
// Attached. What the description does not say is taken from the key.
func parseDevices(class device.Class, backend, text string) ([]Device, error) {
	var list []Device
	for line := range strings.Lines(text) {
		key, description, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		pairs, err := device.ParsePairs(description)
		if err != nil {
			return nil, &Error{"QubesDaemonCommunicationError", fmt.Sprintf("unexpected description of a device from qubesd: %v", err)}
		}
		d := Device{Device: device.Device{Class: class, Backend: backend}, Info: map[string]string{}}
		if b, rest, ok := strings.Cut(key, "+"); ok {
			d.Backend, key = b, rest
		}
		d.Port, d.ID, _ = strings.Cut(key, ":")
		for _, p := range pairs {
			d.Info[p.Key] = p.Value
		}
		if b, ok := d.Info["backend_domain"]; ok {
			d.Backend = b
		}
		list = append(list, d)
	}
	return list, nil
}

// DeviceClasses are the classes of devices that the server knows.
func (c *Client) DeviceClasses(ctx context.Context) ([]device.Class, error) {
	words, err := c.Words(ctx, "dom0", "admin.deviceclass.List", "")
	var list []device.Class
	for _, w := range words {
		list = append(list, device.Class(w))
	}
	return list, err
}

// deviceCall calls a method about a class of devices.
func (c *Client) deviceCall(ctx context.Context, dest string, class device.Class, what, arg, payload string) (string, error) {
	return c.Call(ctx, dest, "admin.vm.device."+string(class)+"."+what, arg, []byte(payload))
}

// Devices are those that a qube exposes.
func (c *Client) Devices(ctx context.Context, backend string, class device.Class) ([]Device, error) {
	text, err := c.deviceCall(ctx, backend, class, "Available", "", "")
	if err != nil {
		return nil, err
	}
	return parseDevices(class, backend, text)
}

// Assigned are the devices given to a qube for good.
func (c *Client) Assigned(ctx context.Context, frontend string, class device.Class) ([]device.Assignment, error) {
	return c.assignments(ctx, frontend, class, "Assigned")
}

// Attached are the devices that a qube has now.
func (c *Client) Attached(ctx context.Context, frontend string, class device.Class) ([]device.Assignment, error) {
	return c.assignments(ctx, frontend, class, "Attached")
}

func (c *Client) assignments(ctx context.Context, frontend string, class device.Class, which string) ([]device.Assignment, error) {
	text, err := c.deviceCall(ctx, frontend, class, which, "", "")
	if err != nil {
		return nil, err
	}
	devices, err := parseDevices(class, "", text)
	if err != nil {
		return nil, err
	}
	list := make([]device.Assignment, len(devices))
	for i, d := range devices {
		list[i] = device.Assignment{Device: d.Device, Mode: device.Mode(d.Info["mode"]), Options: map[string]string{}}
		for key, value := range d.Info {
			if name, ok := strings.CutPrefix(key, "_"); ok {
				list[i].Options[name] = value
			}
		}
	}
	return list, nil
}

// Assign gives a device to a qube for good.
func (c *Client) Assign(ctx context.Context, frontend string, a device.Assignment) error {
	_, err := c.deviceCall(ctx, frontend, a.Class, "Assign", a.Argument(), a.Serialize(qube.Name(frontend)))
	return err
}

// Unassign takes an assignment back; an attached device stays attached.
func (c *Client) Unassign(ctx context.Context, frontend string, d device.Device) error {
	_, err := c.deviceCall(ctx, frontend, d.Class, "Unassign", d.Argument(), "")
	return err
}

// Attach gives a device to a running qube now.
func (c *Client) Attach(ctx context.Context, frontend string, a device.Assignment) error {
	_, err := c.deviceCall(ctx, frontend, a.Class, "Attach", a.Argument(), a.Serialize(qube.Name(frontend)))
	return err
}

// Detach takes a device from a running qube.
func (c *Client) Detach(ctx context.Context, frontend string, d device.Device) error {
	_, err := c.deviceCall(ctx, frontend, d.Class, "Detach", d.Argument(), "")
	return err
}
