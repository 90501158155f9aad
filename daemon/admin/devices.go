package admin

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// deviceMethods are spec/admin-api.md §2.6. No engine of this system passes
// devices to qubes (core.NoDevices): attached are those that qubes, whose
// machines are somebody else's, have taken by themselves.
func deviceMethods() map[string]method {
	m := map[string]method{
		"admin.vm.device.denied.List":   {onAny, absent, absent, listDenied},
		"admin.vm.device.denied.Add":    {onAny, absent, maybe, addDenied},
		"admin.vm.device.denied.Remove": {onAny, absent, maybe, removeDenied},
	}
	for _, class := range device.Classes() {
		of := func(do func(context.Context, *call, device.Class) (string, error)) func(context.Context, *call) (string, error) {
			return func(ctx context.Context, c *call) (string, error) { return do(ctx, c, class) }
		}
		prefix := "admin.vm.device." + string(class) + "."
		m[prefix+"Available"] = method{onAny, maybe, absent, of(listAvailable)}
		m[prefix+"Assigned"] = method{onAny, maybe, absent, of(listAssigned)}
		m[prefix+"Attached"] = method{onAny, maybe, absent, of(listAttached)}
		m[prefix+"Assign"] = method{onAny, needed, needed, of(assign)}
		m[prefix+"Unassign"] = method{onAny, needed, absent, of(unassign)}
		m[prefix+"Attach"] = method{onAny, needed, maybe, of(attach)}
		m[prefix+"Detach"] = method{onAny, needed, absent, of(detach)}
		m[prefix+"Set.assignment"] = method{onAny, needed, needed, of(setAssignment)}
	}
	return m
}

// deviceKind is the exception for a failure of package device.
func deviceKind(err error) error {
	if mode, ok := errors.AsType[*device.ErrMode](err); ok {
		return core.Failf(core.BadDeviceMode, "%s", mode)
	}
	if err != nil {
		return core.Failf(core.ProtocolViolation, "%s", err)
	}
	return nil
}

func (c *call) device(class device.Class) (device.Device, error) {
	d, err := device.ParseArgument(class, c.req.Arg)
	return d, deviceKind(err)
}

// refresh has the devices of a class that a qube offers looked for again.
func (c *call) refresh(ctx context.Context, q core.Qube, class device.Class) error {
	if c.Devices == nil {
		return nil
	}
	return c.Devices(ctx, q, class)
}

// listAvailable lists what the destination offers, by PORT:ID.
func listAvailable(ctx context.Context, c *call, class device.Class) (string, error) {
	if c.req.Arg != "" {
		if err := device.CheckPort(class, c.req.Arg); err != nil {
			return "", deviceKind(err)
		}
	}
	if err := c.refresh(ctx, c.dest, class); err != nil {
		return "", err
	}
	q, ok := c.core.View().Lookup(c.dest.UUID())
	if !ok {
		return "", core.Failf(core.NotFound, "%s was removed", c.dest.Name())
	}
	var list []string
	for _, i := range q.Offered(class) {
		if c.req.Arg == "" || i.Port == c.req.Arg {
			list = append(list, i.Key()+" "+i.Serialize())
		}
	}
	slices.Sort(list)
	return lines(list), nil
}

func listAttached(_ context.Context, c *call, class device.Class) (string, error) {
	return c.list(class, core.Qube.Attached)
}

func listAssigned(_ context.Context, c *call, class device.Class) (string, error) {
	return c.list(class, func(q core.Qube, class device.Class) []device.Assignment { return q.Devices() })
}

// list lists those of the destination's devices that the argument names.
func (c *call) list(class device.Class, of func(core.Qube, device.Class) []device.Assignment) (string, error) {
	wanted := device.Device{Class: class, Backend: device.Any, Port: device.Any, ID: device.Any}
	if c.req.Arg != "" {
		var err error
		if wanted, err = device.ParsePort(class, c.req.Arg); err != nil {
			return "", deviceKind(err)
		}
	}
	var list []string
	for _, a := range of(c.dest, class) {
		if a.At(wanted) {
			list = append(list, a.Device.Key()+" "+a.Serialize(c.dest.Name()))
		}
	}
	return lines(list), nil
}

func assign(_ context.Context, c *call, class device.Class) (string, error) {
	d, err := c.device(class)
	if err != nil {
		return "", err
	}
	a, err := device.ParseAssignment(string(c.req.Payload), d, c.dest.Name())
	if err != nil {
		return "", deviceKind(err)
	}
	return "", c.core.AssignDevice(c.dest.UUID(), a)
}

func unassign(_ context.Context, c *call, class device.Class) (string, error) {
	d, err := c.device(class)
	if err != nil {
		return "", err
	}
	return "", c.core.UnassignDevice(c.dest.UUID(), d)
}

func attach(ctx context.Context, c *call, class device.Class) (string, error) {
	d, err := c.device(class)
	if err != nil {
		return "", err
	}
	if _, err := device.ParseAssignment(string(c.req.Payload), d, c.dest.Name()); err != nil {
		return "", deviceKind(err)
	}
	if !c.dest.State().IsUp() {
		return "", core.Failf(core.NotRunning, "%s is not running", c.dest.Name())
	}
	if b, ok := c.view.Named(qube.Name(d.Backend)); ok {
		if err := c.refresh(ctx, b, class); err != nil {
			return "", err
		}
	}
	return "", c.core.AttachDevice(c.dest.UUID(), d)
}

func detach(ctx context.Context, c *call, class device.Class) (string, error) {
	d, err := c.device(class)
	if err != nil {
		return "", err
	}
	return "", c.core.DetachDevice(ctx, c.dest.UUID(), d)
}

func setAssignment(_ context.Context, c *call, class device.Class) (string, error) {
	d, err := c.device(class)
	if err != nil {
		return "", err
	}
	mode, err := device.ParseMode(string(c.req.Payload))
	if err != nil {
		return "", deviceKind(err)
	}
	return "", c.core.SetDeviceMode(c.dest.UUID(), d, mode)
}

// deniedProperty holds the codes of the interfaces that a qube must not have.
const deniedProperty = "devices_denied"

// deniedTo are the codes of the interfaces that a qube must not have.
func deniedTo(q core.Qube) ([]string, error) {
	codes, err := device.ParseInterfaces(q.Property(deniedProperty))
	return codes, deviceKind(err)
}

func listDenied(_ context.Context, c *call) (string, error) {
	codes, err := deniedTo(c.dest)
	return strings.Join(codes, "\n"), err
}

func addDenied(_ context.Context, c *call) (string, error) {
	more, err := device.ParseInterfaces(string(c.req.Payload))
	if err != nil {
		return "", deviceKind(err)
	}
	return "", c.changeDenied(func(now []string) []string { return append(now, more...) })
}

func removeDenied(_ context.Context, c *call) (string, error) {
	if string(c.req.Payload) == "all" {
		return "", c.changeDenied(func([]string) []string { return nil })
	}
	gone, err := device.ParseInterfaces(string(c.req.Payload))
	if err != nil {
		return "", deviceKind(err)
	}
	return "", c.changeDenied(func(now []string) []string {
		return slices.DeleteFunc(now, func(code string) bool { return slices.Contains(gone, code) })
	})
}

// changeDenied stores other codes, unless they are what they were.
func (c *call) changeDenied(change func(now []string) []string) error {
	c.denied.Lock()
	defer c.denied.Unlock()
	q, ok := c.core.View().Lookup(c.dest.UUID())
	if !ok {
		return core.Failf(core.NotFound, "%s was removed", c.dest.Name())
	}
	now, err := deniedTo(q)
	if err != nil {
		return err
	}
	codes := change(slices.Clone(now))
	slices.Sort(codes)
	if codes = slices.Compact(codes); slices.Equal(now, codes) {
		return nil
	}
	return c.core.SetProperty(q.UUID(), deniedProperty, strings.Join(codes, ""))
}
