package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Device is a device that a qube exposes, or the name of one
// (spec/admin-api.md §6). Any of Port and ID may be "*".
type Device struct {
	Class   string // "block", "usb", "pci", …
	Backend string
	Port    string
	ID      string            // what is plugged in; empty: not known
	Info    map[string]string // vendor, product, serial, interfaces, …
}

// Assignment is a device given to a qube, for good or just now.
type Assignment struct {
	Device
	Mode    string // "manual", "ask-to-attach", "auto-attach", "required"
	Options map[string]string
}

// ParseDevice reads BACKEND:PORT[:DEVICE_ID].
func ParseDevice(class, text string) (Device, error) {
	backend, rest, ok := strings.Cut(text, ":")
	port, id, _ := strings.Cut(rest, ":")
	if !ok || backend == "" || port == "" || strings.ContainsAny(text, " +\x00") {
		return Device{}, fmt.Errorf("a device is BACKEND:PORT[:DEVICE_ID], not %q", text)
	}
	return Device{Class: class, Backend: backend, Port: port, ID: id}, nil
}

// Name is BACKEND:PORT.
func (d Device) Name() string { return d.Backend + ":" + d.Port }

// Matches reports whether a pattern, in which Port and ID may be "*" or ID
// empty, fits the device.
func (d Device) Matches(pattern Device) bool {
	fits := func(have, want string) bool { return want == "*" || want == "" || have == want }
	return d.Backend == pattern.Backend && fits(d.Port, pattern.Port) && fits(d.ID, pattern.ID)
}

// argument is the device as a call's argument: "*" is "_", ":" is "+" there,
// and an unknown interface is seven times "_".
func (d Device) argument() string {
	star := func(s string) string {
		if s == "*" || s == "" {
			return "_"
		}
		return s
	}
	id := strings.ReplaceAll(star(d.ID), ":?******", ":_______")
	return d.Backend + "+" + star(d.Port) + "+" + strings.NewReplacer(":", "+", "*", "_").Replace(id)
}

// serialize is the assignment in the form of spec/admin-api.md §6.2.
func (a Assignment) serialize(frontend string) []byte {
	star := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	words := []string{pair("device_id", star(a.ID)), pair("port_id", a.Port), pair("devclass", a.Class), pair("backend_domain", a.Backend),
		pair("mode", a.Mode), pair("frontend_domain", frontend)}
	for _, key := range sortedKeys(a.Options) {
		words = append(words, pair("_"+key, a.Options[key]))
	}
	return []byte(strings.Join(words, " "))
}

func pair(key, value string) string {
	return key + "='" + strings.ReplaceAll(value, "'", `\'`) + "'"
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// parsePairs reads KEY='VALUE' words, with \' inside a value.
func parsePairs(text string) (map[string]string, error) {
	pairs := map[string]string{}
	for rest := strings.TrimSpace(text); rest != ""; {
		key, after, ok := strings.Cut(rest, "='")
		if !ok || key == "" || strings.ContainsAny(key, " '\\") {
			return nil, fmt.Errorf("unexpected description of a device: %.64q", text)
		}
		var value strings.Builder
		closed := false
		i := 0
		for ; i < len(after) && !closed; i++ {
			switch {
			case strings.HasPrefix(after[i:], `\'`):
				value.WriteByte('\'')
				i++
			case after[i] == '\'':
				closed = true
			default:
				value.WriteByte(after[i])
			}
		}
		if !closed || i < len(after) && after[i] != ' ' {
			return nil, fmt.Errorf("unexpected description of a device: %.64q", text)
		}
		pairs[key] = value.String()
		rest = strings.TrimLeft(after[i:], " ")
	}
	return pairs, nil
}

// parseDevices reads the lines "KEY DESCRIPTION" of Available, Assigned and
// Attached. What the description does not say is taken from the key.
func parseDevices(class, backend, text string) ([]Assignment, error) {
	var list []Assignment
	for line := range strings.Lines(text) {
		key, description, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		info, err := parsePairs(description)
		if err != nil {
			return nil, &Error{"QubesDaemonCommunicationError", err.Error()}
		}
		a := Assignment{Device: Device{Class: class, Backend: backend, Info: info}, Mode: info["mode"], Options: map[string]string{}}
		if b, rest, ok := strings.Cut(key, "+"); ok {
			a.Backend, key = b, rest
		}
		a.Port, a.ID, _ = strings.Cut(key, ":")
		for k, v := range info {
			if name, ok := strings.CutPrefix(k, "_"); ok {
				a.Options[name] = v
			}
		}
		if v, ok := info["backend_domain"]; ok {
			a.Backend = v
		}
		list = append(list, a)
	}
	return list, nil
}

// DeviceClasses are the classes of devices that the server knows.
func (c *Client) DeviceClasses(ctx context.Context) ([]string, error) {
	return c.Words(ctx, "dom0", "admin.deviceclass.List", "")
}

// Devices are those that a qube exposes.
func (c *Client) Devices(ctx context.Context, backend, class string) ([]Device, error) {
	text, err := c.Call(ctx, backend, "admin.vm.device."+class+".Available", "", nil)
	if err != nil {
		return nil, err
	}
	list, err := parseDevices(class, backend, text)
	devices := make([]Device, len(list))
	for i, a := range list {
		devices[i] = a.Device
		for k, v := range a.Options { // extra data of the device
			devices[i].Info[k] = v
		}
	}
	return devices, err
}

// Assigned are the devices given to a qube for good.
func (c *Client) Assigned(ctx context.Context, frontend, class string) ([]Assignment, error) {
	return c.assignments(ctx, frontend, class, "Assigned")
}

// Attached are the devices that a qube has now.
func (c *Client) Attached(ctx context.Context, frontend, class string) ([]Assignment, error) {
	return c.assignments(ctx, frontend, class, "Attached")
}

func (c *Client) assignments(ctx context.Context, frontend, class, which string) ([]Assignment, error) {
	text, err := c.Call(ctx, frontend, "admin.vm.device."+class+"."+which, "", nil)
	if err != nil {
		return nil, err
	}
	return parseDevices(class, "", text)
}

// Assign gives a device to a qube for good.
func (c *Client) Assign(ctx context.Context, frontend string, a Assignment) error {
	_, err := c.Call(ctx, frontend, "admin.vm.device."+a.Class+".Assign", a.argument(), a.serialize(frontend))
	return err
}

// Unassign takes an assignment back; an attached device stays attached.
func (c *Client) Unassign(ctx context.Context, frontend string, d Device) error {
	_, err := c.Call(ctx, frontend, "admin.vm.device."+d.Class+".Unassign", d.argument(), nil)
	return err
}

// Attach gives a device to a running qube now.
func (c *Client) Attach(ctx context.Context, frontend string, a Assignment) error {
	_, err := c.Call(ctx, frontend, "admin.vm.device."+a.Class+".Attach", a.argument(), a.serialize(frontend))
	return err
}

// Detach takes a device from a running qube.
func (c *Client) Detach(ctx context.Context, frontend string, d Device) error {
	_, err := c.Call(ctx, frontend, "admin.vm.device."+d.Class+".Detach", d.argument(), nil)
	return err
}
