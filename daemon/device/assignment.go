package device

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/qube"
)

// Mode tells when an assigned device is attached (spec/admin-api.md §6.2).
type Mode string

// The modes.
const (
	Manual   Mode = "manual" // of a device that somebody attached; never of an assignment
	Ask      Mode = "ask-to-attach"
	Auto     Mode = "auto-attach"
	Required Mode = "required"
)

// ErrMode tells that a text is no mode.
type ErrMode struct{ Text string }

func (e *ErrMode) Error() string {
	return fmt.Sprintf("the mode of an assignment is required, auto-attach or ask-to-attach, not %q", clip(e.Text))
}

// ParseMode reads the mode of an assignment.
func ParseMode(text string) (Mode, error) {
	switch m := Mode(text); m {
	case Ask, Auto, Required:
		return m, nil
	}
	return "", &ErrMode{text}
}

// Assignment says that a qube shall have a device.
type Assignment struct {
	Device
	Mode Mode
	// Options are those of the class, without the '_' that they have in a
	// call. Treat them as a value.
	Options map[string]string
}

// options are what a class lets people choose (spec/admin-api.md §6.3).
func options(c Class) []string {
	switch c {
	case Block:
		return []string{"devtype", "frontend-dev", "read-only"}
	case PCI:
		return []string{"no-strict-reset", "permissive"}
	case Webcam:
		return []string{"format"}
	}
	return nil
}

// ParseAssignment reads the payload that goes with a device in a call. What
// it says of the device must be what d says, or more exact. An empty mode is
// Manual, which only an attachment may have.
func ParseAssignment(payload string, d Device, frontend qube.Name) (Assignment, error) {
	a := Assignment{Device: d, Mode: Manual, Options: map[string]string{}}
	pairs, err := ParsePairs(payload)
	if err != nil {
		return a, err
	}
	for _, p := range pairs {
		if err := a.set(p, frontend); err != nil {
			return a, err
		}
	}
	return a, a.Device.check()
}

func (a *Assignment) set(p Pair, frontend qube.Name) error {
	same := func(implied string) error {
		if p.Value == implied {
			return nil
		}
		return bad("%s is %q, but the call is about %q", p.Key, clip(p.Value), implied)
	}
	if option, ok := strings.CutPrefix(p.Key, "_"); ok {
		return a.setOption(option, p.Value)
	}
	switch p.Key {
	case "device_id":
		if a.ID == Any {
			a.ID = p.Value
		}
		return same(a.ID)
	case "port_id":
		return same(a.Port)
	case "devclass":
		return same(string(a.Class))
	case "backend_domain":
		return same(a.Backend)
	case "frontend_domain":
		return same(string(frontend))
	case "mode":
		if p.Value == string(Manual) {
			return nil
		}
		var err error
		a.Mode, err = ParseMode(p.Value)
		return err
	}
	return bad("an assignment has no key %q", clip(p.Key))
}

func (a *Assignment) setOption(name, value string) error {
	if !slices.Contains(options(a.Class), name) {
		return bad("devices of the class %s have no option %q", a.Class, clip(name))
	}
	switch name {
	case "read-only":
		switch strings.ToLower(value) {
		case "1", "yes", "true", "on":
			value = "yes"
		case "0", "no", "false", "off":
			value = "no"
		default:
			return bad("the option read-only is yes or no, not %q", clip(value))
		}
	case "devtype":
		if value != "disk" && value != "cdrom" {
			return bad("the option devtype is disk or cdrom, not %q", clip(value))
		}
	case "frontend-dev":
		rest, xen := strings.CutPrefix(value, "xvd")
		if !xen {
			rest = strings.TrimPrefix(value, "sd")
		}
		if rest == value || rest == "" || len(rest) > 4 || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return bad("the option frontend-dev is a name like xvdi, not %q", clip(value))
		}
	case "format":
		if len(value) > 32 || value == "" || strings.Trim(value, "0123456789x") != "" {
			return bad("the option format is like 1280x720x30, not %q", clip(value))
		}
	}
	a.Options[name] = value
	return nil
}

// Same reports whether two assignments are about the same backend, port and
// device id: a qube has at most one of them.
func (a Assignment) Same(d Device) bool { return a.Device == d }

// Serialize is the assignment as the Admin API writes it
// (spec/admin-api.md §6.2).
func (a Assignment) Serialize(frontend qube.Name) string {
	pairs := []Pair{{"device_id", a.ID}, {"port_id", a.Port}, {"devclass", string(a.Class)}, {"backend_domain", a.Backend},
		{"mode", string(a.Mode)}}
	if frontend != "" {
		pairs = append(pairs, Pair{"frontend_domain", string(frontend)})
	}
	for _, name := range slices.Sorted(maps.Keys(a.Options)) {
		pairs = append(pairs, Pair{"_" + name, a.Options[name]})
	}
	return FormatPairs(pairs)
}

// OptionsText are the options as upstream's events write them.
func (a Assignment) OptionsText() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(a.Options)) {
		words = append(words, "'"+name+"': '"+a.Options[name]+"'")
	}
	return "{" + strings.Join(words, ", ") + "}"
}

// Check tells whether an assignment that was read from a file is whole.
func (a Assignment) Check() error {
	if _, err := ParseMode(string(a.Mode)); err != nil {
		return err
	}
	copied := Assignment{Device: a.Device, Options: map[string]string{}}
	for name, value := range a.Options {
		if err := copied.setOption(name, value); err != nil {
			return err
		}
	}
	return a.Device.check()
}

// Compare orders assignments by class, backend, port and device id.
func Compare(a, b Assignment) int {
	if c := strings.Compare(string(a.Class), string(b.Class)); c != 0 {
		return c
	}
	return strings.Compare(a.Key(), b.Key())
}
