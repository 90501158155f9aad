// Package device holds the nouns of devices: what names one, how a qube's
// assignments of devices look in calls, lists and files, and the codes of
// interfaces (spec/admin-api.md §6). It knows no hardware.
package device

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cubicle/daemon/qube"
)

// Class is the kind of a device.
type Class string

// The classes.
const (
	Block  Class = "block"
	Mic    Class = "mic"
	PCI    Class = "pci"
	USB    Class = "usb"
	Webcam Class = "webcam"
)

// Classes are all classes, sorted.
func Classes() []Class { return []Class{Block, Mic, PCI, USB, Webcam} }

// Any stands for every backend, port or device id.
const Any = "*"

// Device is a device, or with Any in a field several.
type Device struct {
	Class   Class
	Backend string // the qube that has it, or Any
	Port    string // where it is plugged in, or Any
	ID      string // what is plugged in, or Any
}

// ErrSyntax is the kind of all errors of this package's parsers but a wrong
// mode.
type ErrSyntax struct{ Why string }

func (e *ErrSyntax) Error() string { return e.Why }

func bad(format string, args ...any) error { return &ErrSyntax{fmt.Sprintf(format, args...)} }

// portForm is what the port ids of a class look like (spec/admin-api.md §6.1).
func portForm(c Class) *regexp.Regexp {
	switch c {
	case PCI:
		return pciPort
	case USB:
		return usbPort
	case Mic:
		return micPort
	}
	return plainPort
}

var (
	pciPort   = regexp.MustCompile(`^([0-9a-f]{4}_)?[0-9a-f]{2}_[0-9a-f]{2}\.[0-9a-f](-[0-9a-f]{2}_[0-9a-f]{2}\.[0-9a-f])*$`)
	usbPort   = regexp.MustCompile(`^[0-9]+-[0-9]+(\.[0-9]+)*$`)
	micPort   = regexp.MustCompile(`^mic$`)
	plainPort = regexp.MustCompile(`^[a-z0-9-]{1,12}$`)
)

// maxField bounds ports and device ids in bytes.
const maxField = 256

// ParseClass returns the class of that name.
func ParseClass(text string) (Class, error) {
	if c := Class(text); slices.Contains(Classes(), c) {
		return c, nil
	}
	return "", bad("there is no device class %q", clip(text))
}

// CheckPort tells whether text is a port id of the class, or Any.
func CheckPort(c Class, text string) error {
	if text == Any || len(text) <= maxField && portForm(c).MatchString(text) {
		return nil
	}
	return bad("%q is not a port of the class %s", clip(text), c)
}

// CheckID tells whether text is a device id, or Any.
func CheckID(text string) error {
	if text == "" || len(text) > maxField {
		return bad("a device id has from 1 to %d bytes", maxField)
	}
	for i := 0; i < len(text); i++ {
		if c := text[i]; c <= ' ' || c > '~' || strings.IndexByte("\"'`=+", c) >= 0 {
			return bad("%q is not a device id", clip(text))
		}
	}
	return nil
}

func checkBackend(text string) error {
	if text == Any {
		return nil
	}
	if _, err := qube.ParseName(text); err != nil {
		return bad("%s", err)
	}
	return nil
}

// check is the check of all fields.
func (d Device) check() error {
	if _, err := ParseClass(string(d.Class)); err != nil {
		return err
	}
	if err := checkBackend(d.Backend); err != nil {
		return err
	}
	if err := CheckPort(d.Class, d.Port); err != nil {
		return err
	}
	return CheckID(d.ID)
}

// unknownInterface is the code of an interface that nobody knows, as a call's
// argument writes it.
const unknownInterface = "_______"

// ParseArgument reads a device from the argument of a call:
// backend+port[+id], where '_' is Any, and in the id '+' is a colon and '_' a
// star (spec/admin-api.md §6.1).
func ParseArgument(c Class, arg string) (Device, error) {
	parts := strings.SplitN(arg, "+", 3)
	if len(parts) < 2 {
		return Device{}, bad("a device is backend+port or backend+port+id, not %q", clip(arg))
	}
	d := Device{c, wildcard(parts[0]), wildcard(parts[1]), Any}
	if len(parts) == 3 && parts[2] != "" && parts[2] != "_" {
		id := strings.ReplaceAll(parts[2], "+", ":")
		id = strings.ReplaceAll(id, unknownInterface, "?******")
		d.ID = strings.ReplaceAll(id, "_", Any)
	}
	return d, d.check()
}

// ParsePort reads backend+port, the argument of a list.
func ParsePort(c Class, arg string) (Device, error) {
	backend, port, ok := strings.Cut(arg, "+")
	if !ok {
		return Device{}, bad("a port is backend+port, not %q", clip(arg))
	}
	d := Device{c, wildcard(backend), wildcard(port), Any}
	return d, d.check()
}

func wildcard(text string) string {
	if text == "_" {
		return Any
	}
	return text
}

// Argument is the reverse of ParseArgument.
func (d Device) Argument() string {
	return strings.ReplaceAll(d.Backend, Any, "_") + "+" + strings.ReplaceAll(d.Port, Any, "_") + "+" + idArgument(d.ID)
}

// idArgument is an id as an argument has it.
func idArgument(id string) string {
	return strings.NewReplacer(":", "+", Any, "_").Replace(strings.ReplaceAll(id, "?******", unknownInterface))
}

// alike is what is the same of all ids that an argument cannot tell apart:
// there a '_' may have been a '*', of an unknown interface too.
func alike(id string) string {
	return strings.ReplaceAll(idArgument(id), "?______", unknownInterface)
}

// Key is the device in lists: BACKEND+PORT:ID.
func (d Device) Key() string { return d.Backend + "+" + d.Port + ":" + d.ID }

// String is the device in events: BACKEND:PORT:ID.
func (d Device) String() string { return d.Backend + ":" + d.Port + ":" + d.ID }

// At reports whether the device is at the port of p, where Any of p is every
// port.
func (d Device) At(p Device) bool {
	return d.Class == p.Class && (p.Backend == Any || d.Backend == p.Backend) && (p.Port == Any || d.Port == p.Port)
}

// InterfaceLength is the length of an interface's code in bytes.
const InterfaceLength = 7

// ParseInterfaces reads codes of interfaces that stand one after the other:
// a class of b, u, m, p or *, and six of 0-9, a-f and * each
// (spec/admin-api.md §6.1). None may be there twice.
func ParseInterfaces(text string) ([]string, error) {
	if len(text)%InterfaceLength != 0 {
		return nil, bad("the code of an interface has %d characters", InterfaceLength)
	}
	var codes []string
	for i := 0; i < len(text); i += InterfaceLength {
		code := text[i : i+InterfaceLength]
		if !strings.ContainsRune("bump*", rune(code[0])) || strings.Trim(code[1:], "0123456789abcdef*") != "" {
			return nil, bad("%q is not the code of an interface", clip(code))
		}
		if slices.Contains(codes, code) {
			return nil, bad("the interface %s is there twice", code)
		}
		codes = append(codes, code)
	}
	return codes, nil
}

// InterfaceFits reports whether the code of an interface is one that a
// pattern, in which '*' is every character, names.
func InterfaceFits(pattern, code string) bool {
	if len(pattern) != len(code) {
		return false
	}
	for i := range len(code) {
		if pattern[i] != '*' && pattern[i] != code[i] {
			return false
		}
	}
	return true
}

// clip shortens unchecked text for a message, and keeps it printable.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return s
}
