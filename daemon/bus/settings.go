package bus

import (
	"fmt"
	"maps"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/device"
	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qube"
)

// settings answers what is set of one qube: by method, since it is much and
// rarely asked for. An Event tells when it changes.
func (m *member) settings(id qube.UUID, args []any) ([]any, error) {
	c := m.s.core
	switch m.spec.name {
	case "Properties":
		return rowsResult(c.Properties(id))
	case "SetProperty":
		return nil, c.SetProperty(id, args[0].(string), args[1].(string))
	case "ResetProperty":
		return nil, c.ResetProperty(id, args[0].(string))
	case "SetFeature":
		return nil, c.SetFeature(id, args[0].(string), args[1].(string))
	case "RemoveFeature":
		return nil, c.RemoveFeature(id, args[0].(string))
	case "AddTag":
		return nil, c.SetTag(id, args[0].(string))
	case "RemoveTag":
		return nil, c.RemoveTag(id, args[0].(string))
	case "Firewall":
		rules, err := c.Firewall(id)
		list := []string{}
		for _, r := range rules {
			list = append(list, r.String())
		}
		return []any{list}, err
	case "SetFirewall":
		rules, err := firewall.Parse(strings.Join(args[0].([]string), "\n"))
		if err != nil {
			return nil, core.Failf(core.BadValue, "%v", err)
		}
		return nil, c.SetFirewall(m.s.ctx, id, rules)
	case "AssignDevice", "SetDeviceMode", "UnassignDevice":
		return nil, m.device(id, args)
	}
	q, ok := c.View().Lookup(id)
	if !ok {
		return nil, core.Failf(core.NotFound, "the qube is gone")
	}
	switch m.spec.name {
	case "Devices":
		list := []assignment{}
		for _, a := range q.Devices() {
			options := map[string]string{}
			maps.Copy(options, a.Options)
			list = append(list, assignment{string(a.Class), a.Argument(), string(a.Mode), options})
		}
		return []any{list}, nil
	case "DeviceLacks":
		lacks := map[string]string{}
		for class, why := range q.DeviceLacks() {
			lacks[string(class)] = why
		}
		return []any{lacks}, nil
	case "Features":
		return []any{q.Features()}, nil
	case "Tags":
		return []any{append([]string{}, q.Tags()...)}, nil
	}
	return nil, fmt.Errorf("unknown method %s", m.spec.name)
}

// assignment is one of Devices: class, device as the Admin API names it
// in an argument (BACKEND+PORT+ID), mode, options.
type assignment struct {
	Class, Device, Mode string
	Options             map[string]string
}

// device changes which devices a qube shall have.
func (m *member) device(id qube.UUID, args []any) error {
	class, err := device.ParseClass(args[0].(string))
	if err != nil {
		return core.Failf(core.BadValue, "%v", err)
	}
	d, err := device.ParseArgument(class, args[1].(string))
	if err != nil {
		return core.Failf(core.BadValue, "%v", err)
	}
	if m.spec.name == "UnassignDevice" {
		return m.s.core.UnassignDevice(id, d)
	}
	mode, err := device.ParseMode(args[2].(string))
	if err != nil {
		return core.Failf(core.BadDeviceMode, "%v", err)
	}
	if m.spec.name == "SetDeviceMode" {
		return m.s.core.SetDeviceMode(id, d, mode)
	}
	a := device.Assignment{Device: d, Mode: mode, Options: args[3].(map[string]string)}
	if err := a.Check(); err != nil {
		return core.Failf(core.BadValue, "%v", err)
	}
	return m.s.core.AssignDevice(id, a)
}

// row is a property as it is sent.
type row struct {
	Name, Type, Value string
	Default, Settable bool
	Help              string
}

func rowsResult(rows []core.PropertyRow, err error) ([]any, error) {
	list := []row{}
	for _, r := range rows {
		list = append(list, row{r.Row.Name, string(r.Row.Type), r.Value, r.IsDefault, r.Settable, r.Row.Help})
	}
	return []any{list}, err
}
