package client

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/device"
	"cubicle/daemon/paths"
)

// The names of the D-Bus surface. Package daemon/bus serves exactly these.
const (
	BusName = "org.cubicle.Qubes1"

	ManagerInterface = BusName + ".Manager"
	QubeInterface    = BusName + ".Qube"
	LabelInterface   = BusName + ".Label"
	PoolInterface    = BusName + ".Pool"
	DeviceInterface  = BusName + ".Device"
	JobInterface     = BusName + ".Job"

	// ErrorPrefix stands before the Admin API's exception name
	// (spec/admin-api.md §1.2) in the name of a D-Bus error.
	ErrorPrefix = BusName + ".Error."

	RootPath   dbus.ObjectPath = "/org/cubicle/Qubes1"
	qubePath                   = string(RootPath) + "/qube/"
	labelPath                  = string(RootPath) + "/label/"
	poolPath                   = string(RootPath) + "/pool/"
	devicePath                 = string(RootPath) + "/device/"
	jobPath                    = string(RootPath) + "/job/"
)

// Address is the address of the bus on which a system with that root folder
// is served: DBUS_SYSTEM_BUS_ADDRESS when it is set, else the bus below the
// root, which for "/" is the machine's system bus.
func Address(root paths.Root) string {
	if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
		return a
	}
	return "unix:path=" + escapeAddress(root.SystemBus())
}

// escapeAddress writes a value of a D-Bus address: every byte outside the
// optionally-escaped set as %XX (D-Bus specification, "Server Addresses").
func escapeAddress(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(`-_/.\*`, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02x", c)
	}
	return b.String()
}

// QubePath is the object of the qube with that UUID.
func QubePath(uuid string) dbus.ObjectPath {
	return dbus.ObjectPath(qubePath + strings.ReplaceAll(uuid, "-", "_"))
}

// LabelPath is the object of a label. Bytes that a path may not contain are
// written _XX; the label's true name is its Name property.
func LabelPath(name string) dbus.ObjectPath { return escaped(labelPath, name) }

// PoolPath is the object of a pool, named as a label's is.
func PoolPath(name string) dbus.ObjectPath { return escaped(poolPath, name) }

// DevicePath is the object of a device, named as a label's is: by its class,
// its backend, its port and its id.
func DevicePath(d device.Device) dbus.ObjectPath {
	return escaped(devicePath, string(d.Class)+":"+d.String())
}

func escaped(folder, name string) dbus.ObjectPath {
	var b strings.Builder
	b.WriteString(folder)
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "_%02x", c)
	}
	return dbus.ObjectPath(b.String())
}

// JobPath is the object of a job.
func JobPath(id uint64) dbus.ObjectPath {
	return dbus.ObjectPath(jobPath + strconv.FormatUint(id, 10))
}

func uuidOf(p dbus.ObjectPath) (string, bool) {
	rest, ok := strings.CutPrefix(string(p), qubePath)
	return strings.ReplaceAll(rest, "_", "-"), ok
}

func jobOf(p dbus.ObjectPath) (uint64, bool) {
	rest, ok := strings.CutPrefix(string(p), jobPath)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(rest, 10, 64)
	return id, err == nil
}
