// Package host finds the devices of this computer, which are dom0's
// (spec/admin-api.md §6.1): block devices that dom0 does not use itself, PCI
// devices, and the microphone.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/device"
	"cubicle/daemon/qube"
)

// System is a computer as its kernel shows it. The zero System has nothing
// but what every computer has.
type System struct {
	Sys  string // where sysfs is; empty: there is none
	Proc string // where procfs is
	// Own are folders whose images are the volumes of qubes: loop devices that
	// hold one are not offered.
	Own []string
}

// Devices are dom0's devices of a class, by port.
func (s System) Devices(c device.Class) ([]device.Info, error) {
	var list []device.Info
	var err error
	switch c {
	case device.Mic:
		list = []device.Info{{
			Device:  device.Device{Class: c, Backend: string(qube.Dom0), Port: "mic", ID: "dom0:mic::m000000"},
			Product: "microphone", Manufacturer: "build-in", Interfaces: []string{"m000000"},
		}}
	case device.Block:
		list, err = s.blocks()
	case device.PCI:
		list, err = s.pcis()
	}
	slices.SortFunc(list, func(a, b device.Info) int { return strings.Compare(a.Port, b.Port) })
	if err != nil {
		return nil, fmt.Errorf("find dom0's %s devices: %w", c, err)
	}
	return list, nil
}

// entries are the names in a folder of sysfs; one that is not there is empty.
func (s System) entries(dir string) ([]string, error) {
	if s.Sys == "" {
		return nil, nil
	}
	list, err := os.ReadDir(filepath.Join(s.Sys, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, err
}

// word is the text of an attribute; empty where there is none.
func word(path ...string) string {
	raw, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// blocks are the block devices that dom0 does not use.
func (s System) blocks() ([]device.Info, error) {
	names, err := s.entries("class/block")
	if err != nil || len(names) == 0 {
		return nil, err
	}
	mounted, err := s.mounted()
	if err != nil {
		return nil, err
	}
	said := map[string]map[string]string{} // as a qube would say it
	kept := map[string]bool{}              // for dom0
	for _, name := range names {
		dir, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "class/block", name))
		if err != nil {
			continue // it has gone meanwhile
		}
		if word(dir, "size") == "0" || word(dir, "hidden") == "1" || s.isOurs(dir) {
			continue
		}
		said[name], kept[name] = describe(dir), inUse(dir, mounted)
	}
	list, _, err := device.Offered(device.Block, qube.Dom0, func(prefix string) (map[string]string, error) {
		entries := map[string]string{}
		for name, attributes := range said {
			for key, value := range attributes {
				entries[device.SaidBelow(device.Block)+name+"/"+key] = value
			}
		}
		return entries, nil
	})
	return slices.DeleteFunc(list, func(i device.Info) bool { return kept[i.Port] }), err
}

// describe says of a block device what the agent of a qube would.
func describe(dir string) map[string]string {
	disk := dir
	said := map[string]string{"mode": "w"}
	if word(dir, "partition") != "" {
		disk = filepath.Dir(dir)
		said["parent"] = filepath.Base(disk)
	} else if m := usbInterface.FindStringSubmatch(dir); m != nil {
		said["parent"] = m[1] + ":" + m[2]
	}
	if word(dir, "ro") == "1" {
		said["mode"] = "r"
	}
	if sectors, err := strconv.ParseInt(word(dir, "size"), 10, 64); err == nil && sectors < 1<<54 {
		said["size"] = strconv.FormatInt(sectors*512, 10)
	}
	model := word(disk, "loop/backing_file")
	if model == "" {
		model = word(disk, "device/model")
	}
	label := word(dir, "uevent")
	if _, rest, ok := strings.Cut("\n"+label, "\nPARTNAME="); ok {
		label, _, _ = strings.Cut(rest, "\n")
	} else {
		label = ""
	}
	said["desc"] = underscored(model) + " (" + underscored(label) + ")"
	return said
}

func underscored(text string) string { return strings.ReplaceAll(text, " ", "_") }

// usbInterface is the last USB interface in the path of a device:
// …/2-1.4/2-1.4:1.0/….
var usbInterface = regexp.MustCompile(`.*/([0-9]+-[0-9.]+):([0-9]+\.[0-9]+)/`)

// isOurs reports whether a loop device, or the one that a partition is on,
// holds a volume, or goes when a mount that we cannot see goes.
func (s System) isOurs(dir string) bool {
	if word(dir, "partition") != "" {
		dir = filepath.Dir(dir)
	}
	file := word(dir, "loop/backing_file")
	if file == "" {
		// A loop device without a file is none.
		return strings.HasPrefix(filepath.Base(dir), "loop")
	}
	return word(dir, "loop/autoclear") == "1" || slices.ContainsFunc(s.Own, func(folder string) bool {
		return strings.HasPrefix(file, strings.TrimSuffix(folder, "/")+"/")
	})
}

// inUse reports whether a device, the disk that it is on, or a partition on it
// is mounted or held by another device.
func inUse(dir string, mounted map[string]bool) bool {
	used := func(dir string) bool {
		held, err := os.ReadDir(filepath.Join(dir, "holders"))
		return mounted[word(dir, "dev")] || err == nil && len(held) > 0
	}
	if used(dir) || word(dir, "partition") != "" && used(filepath.Dir(dir)) {
		return true
	}
	parts, err := filepath.Glob(filepath.Join(dir, filepath.Base(dir)+"*"))
	return err == nil && slices.ContainsFunc(parts, used)
}

// mounted are the numbers MAJOR:MINOR of the devices that are mounted or
// swapped to.
func (s System) mounted() (map[string]bool, error) {
	numbers := map[string]bool{}
	raw, err := os.ReadFile(filepath.Join(s.Proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		// proc_pid_mountinfo(5): the third field.
		if fields := strings.Fields(line); len(fields) > 2 {
			numbers[fields[2]] = true
		}
	}
	swaps, err := os.ReadFile(filepath.Join(s.Proc, "swaps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(swaps)) {
		if name, ok := strings.CutPrefix(line, "/dev/"); ok {
			name, _, _ = strings.Cut(name, " ")
			if number := word(s.Sys, "class/block", name, "dev"); number != "" {
				numbers[number] = true
			}
		}
	}
	return numbers, nil
}

var (
	// pciAddress is SSSS:BB:DD.F.
	pciAddress = regexp.MustCompile(`^([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2}\.[0-7])$`)
	pciClass   = regexp.MustCompile(`^0x([0-9a-f]{6})$`)
)

func (s System) pcis() ([]device.Info, error) {
	names, err := s.entries("bus/pci/devices")
	var list []device.Info
	for _, name := range names {
		dir, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "bus/pci/devices", name))
		if err != nil {
			continue // it has gone meanwhile
		}
		port, ok := pciPort(dir)
		if !ok {
			continue
		}
		code := "p******"
		if m := pciClass.FindStringSubmatch(word(dir, "class")); m != nil {
			code = "p" + m[1]
		}
		vendor, product := word(dir, "vendor"), word(dir, "device")
		list = append(list, device.Info{
			Device:     device.Device{Class: device.PCI, Backend: string(qube.Dom0), Port: port, ID: vendor + ":" + product + "::" + code},
			Interfaces: []string{code}, Extras: map[string]string{"sbdf": name},
		})
	}
	return list, err
}

// pciPort is the path to a device from its root bus: bridges are told by where
// they are, and buses relative to their bridge, so that another card elsewhere
// changes nothing (spec/admin-api.md §6.1).
func pciPort(dir string) (string, bool) {
	var hops []string
	segment := ""
	for at := dir; ; at = filepath.Dir(at) {
		m := pciAddress.FindStringSubmatch(filepath.Base(at))
		if m == nil {
			break
		}
		segment = m[1]
		bus, err := strconv.ParseUint(m[2], 16, 8)
		if err != nil {
			return "", false
		}
		if first, err := strconv.ParseUint(word(filepath.Dir(at), "secondary_bus_number"), 10, 8); err == nil && first <= bus {
			bus -= first
		}
		hops = append(hops, fmt.Sprintf("%02x_%s", bus, m[3]))
	}
	if len(hops) == 0 {
		return "", false
	}
	slices.Reverse(hops)
	port := strings.Join(hops, "-")
	if segment != "0000" {
		port = segment + "_" + port
	}
	return port, device.CheckPort(device.PCI, port) == nil
}
