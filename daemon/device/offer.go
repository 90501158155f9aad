package device

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/qube"
)

// Info is a device that a qube or dom0 offers to others, with what it says of
// itself. Texts are printable ASCII without a backslash; empty is unknown.
type Info struct {
	Device                                             // without Any
	Vendor, Product, Manufacturer, Name, Serial string // what people know it by
	Interfaces                                  []string
	Parent                                      Port              // what it is a part of; zero: nothing
	Attachment                                  string            // the qube that has it now, as its backend says; empty: none
	Extras                                      map[string]string // of the class
	ReadOnly                                    bool              // of a block device
	Size                                        int64             // of a block device, in bytes
}

// Port is a place of one backend where something may be plugged in.
type Port struct {
	Class Class
	Port  string
}

// Bounds of what one qube may offer. Its database has bounds of its own
// (daemon/qubesdb), these keep lists and windows usable.
const (
	maxOffered    = 256 // devices of a class
	maxText       = 128 // bytes of a text
	maxInterfaces = 32  // of a device
	maxDepth      = 4   // parents of parents
)

const (
	// noInterface stands for an interface of which nothing is known.
	noInterface = "?******"
	// unknownID is the id of a device of which nothing is known.
	unknownID = "0000:0000::" + noInterface
)

// SaidBelow is where a qube writes about its devices of a class
// (spec/platform.md §3.2); empty: it offers none of them.
func SaidBelow(c Class) string {
	switch c {
	case Block:
		return "/qubes-block-devices/"
	case USB:
		return "/qubes-usb-devices/"
	case Webcam:
		return "/webcam-devices/"
	}
	return ""
}

// Offered reads what a qube wrote into its database about its devices of a
// class: hostile text, of which nothing is believed but that it is the qube's.
// read returns the entries below a path; a block device or a webcam may be part
// of a USB device, whose entries are read then, too. What makes no sense is
// passed over and counted.
func Offered(c Class, backend qube.Name, read func(prefix string) (map[string]string, error)) (list []Info, strange int, err error) {
	if SaidBelow(c) == "" {
		return nil, 0, nil
	}
	p := parser{backend: backend, said: map[Class]map[string]attributes{}}
	for _, class := range []Class{c, USB} {
		if p.said[class] != nil {
			continue
		}
		entries, err := read(SaidBelow(class))
		if err != nil {
			return nil, 0, err
		}
		devices, odd := group(class, entries)
		p.said[class] = devices
		if class == c {
			strange = odd
		}
		if len(devices) == 0 {
			break // nothing that could have parents
		}
	}
	for _, port := range slices.Sorted(maps.Keys(p.said[c])) {
		list = append(list, p.info(Port{c, port}, maxDepth))
	}
	return list, strange, nil
}

// attributes are what was said of one device.
type attributes map[string]string

// group finds the devices among the entries, by port.
func group(c Class, entries map[string]string) (devices map[string]attributes, strange int) {
	devices = map[string]attributes{}
	odd := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(entries)) {
		rest, below := strings.CutPrefix(path, SaidBelow(c))
		name, attribute, ok := strings.Cut(rest, "/")
		if !below || !ok {
			continue // the entry that tells of changes
		}
		port := name
		if c == USB {
			port = strings.ReplaceAll(name, "_", ".")
		}
		if port == Any || CheckPort(c, port) != nil || c == USB && strings.Contains(name, ".") {
			odd[name] = true
			continue
		}
		if devices[port] == nil {
			if len(devices) == maxOffered {
				odd[name] = true
				continue
			}
			devices[port] = attributes{}
		}
		devices[port][attribute] = entries[path]
	}
	return devices, len(odd)
}

// parser reads what one qube said.
type parser struct {
	backend qube.Name
	said    map[Class]map[string]attributes
}

// info reads what was said of the device at a port. One of which nothing was
// said is a device nevertheless: another says it is part of it.
func (p *parser) info(at Port, depth int) Info {
	said := p.said[at.Class][at.Port]
	i := Info{Device: Device{at.Class, string(p.backend), at.Port, unknownID}, Interfaces: []string{noInterface}}
	if depth == 0 {
		return i
	}
	switch {
	case said == nil:
	case at.Class == Block:
		p.block(&i, said, depth)
	case at.Class == USB:
		usb(&i, said)
	case at.Class == Webcam:
		p.webcam(&i, said, depth)
	}
	if len(i.ID) > maxField {
		i.ID = i.ID[:maxField]
	}
	return i
}

// block reads /qubes-block-devices/NAME/…: desc is "MODEL (LABEL)" with '_'
// for a space, mode r or w, size in bytes, parent USBPORT:INTERFACE or the
// name of a block device.
func (p *parser) block(i *Info, said attributes, depth int) {
	i.Interfaces = []string{"b******"}
	model, label, _ := strings.Cut(clean(said["desc"], blockText), " ")
	i.Serial = words(model)
	if n := len(label); n > 2 {
		i.Name = words(label[1 : n-1])
	}
	i.ReadOnly = said["mode"] == "r"
	if n := said["size"]; len(n) <= 19 && n != "" && strings.Trim(n, digits) == "" {
		i.Size, _ = strconv.ParseInt(n, 10, 64) // too large a number is the largest
	}
	i.Manufacturer = "hosted by " + i.Backend
	id, number := "", partition(i.Port)
	text, iface, ofUSB := strings.Cut(said["parent"], ":")
	parent := Port{Block, text}
	if ofUSB {
		parent.Class = USB
	}
	if text != "" && text != Any && CheckPort(parent.Class, text) == nil && parent != (Port{Block, i.Port}) {
		i.Parent = parent
		i.Manufacturer = "sub-device of " + i.Backend + ":" + text
		if id = p.info(parent, depth-1).ID; ofUSB {
			id = text + ":" + id
		}
		if iface != "" && len(iface) <= 16 && strings.Trim(iface, digits+".") == "" {
			number = iface
		}
	}
	i.ID = id + ":" + number
}

// partition is the number at the end of a block device's name; upstream
// writes None where there is none, and assignments hold that.
func partition(name string) string {
	number := name[len(strings.TrimRight(name, digits)):]
	if number == "" {
		return "None"
	}
	if number = strings.TrimLeft(number, "0"); number == "" {
		return "0"
	}
	return number
}

// usb reads /qubes-usb-devices/PORT/…: desc is
// "VENDOR:PRODUCT MANUFACTURER NAME SERIAL" with \x20 for a space, interfaces
// codes between colons, connected-to the qube that has it.
func usb(i *Info, said attributes) {
	i.Attachment = frontend(said["connected-to"])
	vendor, product := "0000", "0000"
	fields := strings.Split(said["desc"], " ")
	ids := strings.Split(fields[0], ":")
	switch {
	case len(fields) == 4 && len(ids) == 2:
		if isHex(ids[0], 4) && isHex(ids[1], 4) {
			vendor, product = ids[0], ids[1]
		}
		i.Manufacturer, i.Name, i.Serial = known(unescape(fields[1])), known(unescape(fields[2])), known(unescape(fields[3]))
	case said["desc"] != "":
		i.Name = known(unescape(strings.ReplaceAll(said["desc"], " ", "_")))
	}
	var codes []string
	for code := range strings.SplitSeq(said["interfaces"], ":") {
		code = "u" + strings.ToLower(code)
		if isHex(code[1:], InterfaceLength-1) && len(codes) < maxInterfaces && !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	if len(codes) > 0 {
		i.Interfaces = codes
	}
	// The serial number has to leave room for the interfaces.
	serial := clean(i.Serial, idText)
	id := vendor + ":" + product + ":"
	rest := ":" + strings.Join(i.Interfaces, "")
	i.ID = id + serial[:min(len(serial), max(0, maxField-len(id)-len(rest)))] + rest
}

// webcam reads /webcam-devices/NAME/…: parent is usb:PORT, connected-to the
// qube that has it, formats what pictures it makes.
func (p *parser) webcam(i *Info, said attributes, depth int) {
	i.Attachment = frontend(said["connected-to"])
	i.Interfaces = []string{"u0e0200"}
	i.Name = "Camera"
	if formats := strings.TrimSpace(clean(said["formats"], formatText)); formats != "" && !strings.Contains(formats, "_") {
		i.Extras = map[string]string{"formats": formats}
	}
	class, port, ok := strings.Cut(said["parent"], ":")
	if !ok || Class(class) != USB || port == Any || CheckPort(USB, port) != nil {
		return
	}
	i.Parent = Port{USB, port}
	parent := p.info(i.Parent, depth-1)
	i.ID, i.Manufacturer, i.Serial = parent.ID, parent.Manufacturer, parent.Serial
	if parent.Name != "" {
		i.Name = "Camera (" + parent.Name + ")"
	}
}

// frontend is the qube that a backend says has its device; empty for what is
// no name of one.
func frontend(text string) string {
	if _, err := qube.ParseName(text); err != nil {
		return ""
	}
	return text
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	// Bytes that a text may have; every other one becomes '_'.
	blockText  = letters + digits + "()+,-.:=_/ "
	plainText  = letters + digits + "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~ "
	idText     = letters + digits + "!#$%&(),-./;<>?@[]^_{|}~"
	formatText = digits + "x. "
)

// clean makes foreign text short and harmless.
func clean(text, allowed string) string {
	if len(text) > maxText {
		text = text[:maxText]
	}
	b := []byte(text)
	for i, c := range b {
		if strings.IndexByte(allowed, c) < 0 {
			b[i] = '_'
		}
	}
	return string(b)
}

// words is a text that was written with '_' for spaces.
func words(text string) string { return known(strings.ReplaceAll(text, "_", " ")) }

// known is a text, or nothing when it says that nothing is known.
func known(text string) string {
	if text = strings.TrimSpace(clean(text, plainText)); text == "unknown" {
		return ""
	}
	return text
}

// unescape reads \xHH as that byte.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) && text[i+1] == 'x' {
			if n, err := strconv.ParseUint(text[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

func isHex(text string, n int) bool {
	return len(text) == n && strings.Trim(text, "0123456789abcdef") == ""
}

// Key names an offered device in the list of its backend: PORT:ID.
func (i Info) Key() string { return i.Port + ":" + i.ID }

// Serialize is the device as the Admin API writes it
// (spec/admin-api.md §6.2).
func (i Info) Serialize() string {
	pairs := []Pair{{"device_id", i.ID}, {"port_id", i.Port}, {"devclass", string(i.Class)}, {"backend_domain", i.Backend}}
	for _, p := range []Pair{{"vendor", i.Vendor}, {"product", i.Product}, {"manufacturer", i.Manufacturer}, {"name", i.Name}, {"serial", i.Serial},
		{"attachment", i.Attachment}, {"interfaces", strings.Join(i.Interfaces, "")},
		{"parent_port_id", i.Parent.Port}, {"parent_devclass", string(i.Parent.Class)}} {
		if p.Value != "" {
			pairs = append(pairs, p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.Extras)) {
		pairs = append(pairs, Pair{"_" + name, i.Extras[name]})
	}
	return FormatPairs(pairs)
}

// Is reports whether the device is the one that d names, where Any of d is
// every one. Ids that cannot be told apart once they were the argument of a call
// are the same: such an argument has one '_' for '_' and '*'
// (spec/admin-api.md §6.1).
func (i Info) Is(d Device) bool {
	return i.Class == d.Class && (d.Backend == Any || i.Backend == d.Backend) && (d.Port == Any || i.Port == d.Port) &&
		(d.ID == Any || i.ID == d.ID || alike(i.ID) == alike(d.ID))
}

// Equal reports whether two devices are told of in the same words.
func (i Info) Equal(o Info) bool {
	return i.Serialize() == o.Serialize() && i.ReadOnly == o.ReadOnly && i.Size == o.Size
}

// Plain is text of whatever origin as Info has it.
func Plain(text string) string { return known(text) }
