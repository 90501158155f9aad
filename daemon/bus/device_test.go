package bus

import (
	"maps"
	"os"
	"slices"
	"testing"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/device"
)

// Devices are objects from when they are offered or assigned to when they are
// neither.
func TestDevicesAreFollowed(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	id, err := s.NewQube("work", "blue")
	if err != nil {
		t.Fatal(err)
	}
	mic := device.Info{Device: device.Device{Class: device.Mic, Backend: "dom0", Port: "mic", ID: "dom0:mic::m000000"}, Product: "microphone"}
	s.NoteDevices("00000000-0000-0000-0000-000000000000", 0, device.Mic, []device.Info{mic})
	serve(t, s.Core, address, os.Getuid())
	c, ctx := connect(t, address)
	events := c.Watch(ctx)
	first, ok := (<-events).(client.Connected)
	if d := first.Snapshot.Devices[client.DevicePath(mic.Device)]; !ok || d.Product != "microphone" || !d.Offered || d.Device != mic.Device {
		t.Fatalf("%+v", first.Snapshot.Devices)
	}
	until := func(what string, is func(map[string]client.Device) bool) {
		t.Helper()
		for e := range events {
			if e, ok := e.(client.DevicesChanged); ok {
				by := map[string]client.Device{}
				for path, d := range e.Devices {
					if path != client.DevicePath(d.Device) {
						t.Errorf("%s is at %s", d.Device, path)
					}
					by[d.Device.String()] = d
				}
				if is(by) {
					return
				}
			}
		}
		t.Fatalf("never %s", what)
	}
	if err := s.Done(s.Start(id)); err != nil {
		t.Fatal(err)
	}
	work, _ := s.View().Lookup(id)
	template, _ := s.View().Named("debian-12")
	stick := device.Info{Device: device.Device{Class: device.USB, Backend: "work", Port: "2-1.4", ID: "0781:5567:a_b:u080650"}, Name: "Stick",
		Interfaces: []string{"u080650"}, Parent: device.Port{}, ReadOnly: true, Size: 5}
	s.NoteDevices(id, work.XID(), device.USB, []device.Info{stick})
	until("offered", func(d map[string]client.Device) bool {
		got := d[stick.String()]
		return len(d) == 2 && got.Offered && got.DisplayName == "Stick" && got.ReadOnly && got.Size == 5 && slices.Equal(got.Interfaces, stick.Interfaces)
	})
	any := device.Device{Class: device.USB, Backend: "work", Port: "2-1.4", ID: device.Any}
	if err := s.AssignDevice(template.UUID(), device.Assignment{Device: any, Mode: device.Auto, Options: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	until("assigned", func(d map[string]client.Device) bool {
		got := d[stick.String()]
		return len(got.Assignments) == 1 && got.Assignments[0].Frontend == "debian-12" && got.Assignments[0].Mode == device.Auto
	})
	if err := s.Done(s.Kill(id)); err != nil {
		t.Fatal(err)
	}
	until("only assigned", func(d map[string]client.Device) bool {
		got, ok := d[any.String()]
		return ok && len(d) == 2 && !got.Offered && len(got.Assignments) == 1
	})
	if err := s.UnassignDevice(template.UUID(), any); err != nil {
		t.Fatal(err)
	}
	until("gone", func(d map[string]client.Device) bool {
		return slices.Equal(slices.Collect(maps.Keys(d)), []string{mic.String()})
	})
}
