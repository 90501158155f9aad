package dom0

import (
	"reflect"
	"testing"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/device"
)

// A device is shown only if it could be; what it says of itself is cleaned.
func TestDevicesAreCheckedAndTheirTextsCleaned(t *testing.T) {
	usb := DeviceRef{Class: USB, Backend: "sys-usb", Port: "2-1", ID: "046d:c31c"}
	disk := DeviceRef{Class: Block, Backend: AnyDevice, Port: AnyDevice, ID: AnyDevice}
	got := fromDevices(map[dbus.ObjectPath]client.Device{
		"/a": {Device: usb, Offered: true, Vendor: "Logitech", Product: "Key\u202eboard\n", Attached: "work", Assignments: []client.Assignment{
			{Frontend: "work", Mode: device.Auto}, {Frontend: "../etc", Mode: device.Auto}, {Frontend: "vault", Mode: "sometimes"}, {Mode: device.Ask},
		}},
		"/b": {Device: disk, Vendor: "unknown", Product: "unknown", Manufacturer: "Acme", Size: 7, ReadOnly: true, Attached: "a b"},
		"/c": {Device: DeviceRef{Class: "wheel", Backend: "dom0", Port: "1", ID: "x"}},
		"/d": {Device: DeviceRef{Class: USB, Backend: "dom0", Port: "../1", ID: "x"}},
		"/e": {Device: DeviceRef{Class: USB, Backend: "no qube", Port: "2-1", ID: "x"}},
		"/f": {Device: DeviceRef{Class: USB, Backend: "dom0", Port: "2-1", ID: "a b"}},
	})
	want := []Device{
		{DeviceRef: disk, Title: "Acme", Size: 7, ReadOnly: true},
		{DeviceRef: usb, Offered: true, Title: CleanLine("Logitech Key\u202eboard"), Attached: "work", Assignments: []Assignment{{Qube: "work", Mode: AutoAttach}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if !got[0].Equal(want[0]) || got[0].Equal(got[1]) {
		t.Error("devices are not compared by what they are")
	}
}
