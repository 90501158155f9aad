package admin

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// systemMethods are spec/admin-api.md §2.1.
func systemMethods() map[string]method {
	return map[string]method{
		"admin.vmclass.List":     {onDom0, absent, absent, listClasses},
		"admin.vm.List":          {onAny, absent, absent, listQubes},
		"admin.deviceclass.List": {onDom0, absent, absent, listDeviceClasses},
		"admin.label.List":       {onDom0, absent, absent, listLabels},
		"admin.label.Get":        {onDom0, needed, absent, labelColor},
		"admin.label.Index":      {onDom0, needed, absent, labelIndex},
		"admin.label.Create":     {onDom0, needed, needed, createLabel},
		"admin.label.Remove":     {onDom0, needed, absent, removeLabel},
		"admin.Events":           {onAny, absent, absent, events},
		"admin.vm.Stats":         {onAny, absent, absent, stats},
	}
}

func listClasses(context.Context, *call) (string, error) {
	var names []string
	for _, c := range qube.Classes() {
		names = append(names, string(c))
	}
	return lines(names), nil
}

func listQubes(_ context.Context, c *call) (string, error) {
	list := []core.Qube{c.dest}
	if c.dest.IsAdmin() {
		list = append(list, c.view.Qubes()...)
	}
	var b strings.Builder
	for _, q := range list {
		if c.allows("admin.vm.List", "", q) {
			fmt.Fprintf(&b, "%s class=%s state=%s uuid=%s\n", q.Name(), q.Class(), q.State(), q.UUID())
		}
	}
	return b.String(), nil
}

func listDeviceClasses(context.Context, *call) (string, error) {
	var names []string
	for _, c := range device.Classes() {
		names = append(names, string(c))
	}
	return lines(names), nil
}

func listLabels(_ context.Context, c *call) (string, error) {
	var names []string
	for _, l := range c.view.Labels() {
		names = append(names, l.Name)
	}
	return lines(names), nil
}

// label is the one that the argument names; an index is no name here.
func (c *call) label() (qube.Label, error) {
	l, ok := c.view.Label(c.req.Arg)
	if !ok || l.Name != c.req.Arg {
		return qube.Label{}, core.Failf(core.LabelNotFound, "there is no label %s", printable(c.req.Arg))
	}
	return l, nil
}

func labelColor(_ context.Context, c *call) (string, error) {
	l, err := c.label()
	if err != nil {
		return "", err
	}
	return l.Hex(), nil
}

func labelIndex(_ context.Context, c *call) (string, error) {
	l, err := c.label()
	if err != nil {
		return "", err
	}
	return strconv.Itoa(l.Index), nil
}

func createLabel(_ context.Context, c *call) (string, error) {
	return "", c.core.CreateLabel(c.req.Arg, strings.TrimSpace(string(c.req.Payload)))
}

func removeLabel(_ context.Context, c *call) (string, error) {
	l, err := c.label()
	if err != nil {
		return "", err
	}
	return "", c.core.RemoveLabel(l.Name)
}
