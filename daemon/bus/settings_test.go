package bus

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/device"
)

// listening serves a system, and hears its signals of a kind.
func listening(t *testing.T, kind dbus.MatchOption) (*coretest.System, *dbus.Conn, <-chan *dbus.Signal) {
	t.Helper()
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	conn := raw(t, address)
	signals := make(chan *dbus.Signal, 100)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(kind); err != nil {
		t.Fatal(err)
	}
	return s, conn, signals
}

// awaitEvent waits for an event about the object at a path.
func awaitEvent(t *testing.T, signals <-chan *dbus.Signal, path dbus.ObjectPath, name string) map[string]string {
	t.Helper()
	limit := time.After(90 * time.Second)
	for {
		select {
		case s := <-signals:
			var got string
			var args map[string]string
			if s.Path == path && dbus.Store(s.Body, &got, &args) == nil && got == name {
				return args
			}
		case <-limit:
			t.Fatalf("no event %s", name)
		}
	}
}

// What is set is read back, and everybody hears of it.
func TestSettingsOfAQube(t *testing.T) {
	s, conn, signals := listening(t, dbus.WithMatchMember("Event"))
	template, _ := s.View().Named("debian-12")
	path := client.QubePath(string(template.UUID()))
	call := func(method string, args ...any) *dbus.Call {
		return conn.Object(client.BusName, path).Call(client.QubeInterface+"."+method, 0, args...)
	}

	if err := call("SetFeature", "service.cups", "1").Err; err != nil {
		t.Fatal(err)
	}
	if got := awaitEvent(t, signals, path, "domain-feature-set:service.cups"); got["value"] != "1" {
		t.Errorf("%v", got)
	}
	var features map[string]string
	if err := call("Features").Store(&features); err != nil || features["service.cups"] != "1" {
		t.Errorf("%v, %v", features, err)
	}
	if err := call("RemoveFeature", "service.cups").Err; err != nil {
		t.Error(err)
	}
	awaitEvent(t, signals, path, "domain-feature-delete:service.cups")
	if err := call("SetFeature", "a b", "1").Err; err == nil {
		t.Error("a feature's name has a space")
	}

	if err := call("AddTag", "dear").Err; err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, signals, path, "domain-tag-add:dear")
	var tags []string
	if err := call("Tags").Store(&tags); err != nil || !slices.Contains(tags, "dear") {
		t.Errorf("%v, %v", tags, err)
	}
	if err := call("RemoveTag", "dear").Err; err != nil {
		t.Error(err)
	}
	err := call("RemoveTag", "dear").Err
	if e, ok := errors.AsType[dbus.Error](err); !ok || e.Name != client.ErrorPrefix+"QubesTagNotFoundError" {
		t.Errorf("%v", err)
	}
}

func TestFirewallAndDevicesOfAQube(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	conn := raw(t, address)
	q, _ := s.View().Named("debian-12")
	call := func(method string, args ...any) *dbus.Call {
		return conn.Object(client.BusName, client.QubePath(string(q.UUID()))).Call(client.QubeInterface+"."+method, 0, args...)
	}
	rules := []string{"action=accept dst4=192.0.2.1/32 proto=tcp dstports=443-443", "action=drop"}
	if err := call("SetFirewall", rules).Err; err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := call("Firewall").Store(&got); err != nil || !slices.Equal(got, rules) {
		t.Errorf("%q, %v", got, err)
	}
	if err := call("SetFirewall", []string{"action=drop", "action=perhaps"}).Err; err == nil {
		t.Error("a wrong rule is accepted")
	}
	if err := call("Firewall").Store(&got); err != nil || !slices.Equal(got, rules) {
		t.Errorf("after a wrong one: %q, %v", got, err)
	}

	if err := call("AssignDevice", "block", "dom0+sda+_", "ask-to-attach", map[string]string{"read-only": "yes"}).Err; err != nil {
		t.Fatal(err)
	}
	if err := call("SetDeviceMode", "block", "dom0+sda+_", "auto-attach").Err; err != nil {
		t.Error(err)
	}
	var list []assignment
	if err := call("Devices").Store(&list); err != nil || len(list) != 1 || list[0].Device != "dom0+sda+_" || list[0].Mode != "auto-attach" || list[0].Options["read-only"] != "yes" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := call("UnassignDevice", "block", "dom0+sda+_").Err; err != nil {
		t.Error(err)
	}
	err := call("UnassignDevice", "block", "dom0+sda+_").Err
	if e, ok := errors.AsType[dbus.Error](err); !ok || e.Name != client.ErrorPrefix+"DeviceNotAssigned" {
		t.Errorf("%v", err)
	}
	for _, wrong := range [][]any{{"block", "dom0", "auto-attach"}, {"wheel", "dom0+sda+_", "auto-attach"}, {"block", "dom0+sda+_", "sometimes"}, {"block", "nobody+sda+_", "auto-attach"}} {
		if err := call("AssignDevice", append(wrong, map[string]string{})...).Err; err == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}

// A client assigns devices by their names and sees them among the others.
func TestAClientAssignsDevices(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	c, err := client.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	q, _ := s.View().Named("debian-12")
	id, d := string(q.UUID()), device.Device{Class: device.USB, Backend: "dom0", Port: "2-1", ID: device.Any}
	if err := c.AssignDevice(ctx, id, d, device.Ask, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeviceMode(ctx, id, d, device.Required); err != nil {
		t.Error(err)
	}
	seen := func(want func(map[dbus.ObjectPath]client.Device) bool) bool {
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		for e := range c.Watch(ctx) {
			switch e := e.(type) {
			case client.Connected:
				if want(e.Snapshot.Devices) {
					return true
				}
			case client.DevicesChanged:
				if want(e.Devices) {
					return true
				}
			}
		}
		return false
	}
	if !seen(func(all map[dbus.ObjectPath]client.Device) bool {
		one := all[client.DevicePath(d)]
		return one.Device == d && len(one.Assignments) == 1 && one.Assignments[0].Frontend == "debian-12" && one.Assignments[0].Mode == device.Required
	}) {
		t.Error("the assignment is not told")
	}
	lacks, err := c.DeviceLacks(ctx, id)
	if err != nil || len(lacks) != len(device.Classes()) || lacks[device.USB] == "" {
		t.Errorf("what the engine lacks: %v, %v", lacks, err)
	}
	if err := c.UnassignDevice(ctx, id, d); err != nil {
		t.Error(err)
	}
	if !seen(func(all map[dbus.ObjectPath]client.Device) bool { return len(all) == 0 }) {
		t.Error("the end of the assignment is not told")
	}
}

// Labels and pools are objects that come and go.
func TestLabelsAndPoolsComeAndGo(t *testing.T) {
	s, conn, signals := listening(t, dbus.WithMatchInterface("org.freedesktop.DBus.ObjectManager"))
	call := func(method string, args ...any) *dbus.Call {
		return conn.Object(client.BusName, client.RootPath).Call(client.ManagerInterface+"."+method, 0, args...)
	}
	await := func(signal string, path dbus.ObjectPath) {
		t.Helper()
		limit := time.After(90 * time.Second)
		for {
			select {
			case s := <-signals:
				if s.Name == "org.freedesktop.DBus.ObjectManager."+signal && s.Body[0] == path {
					return
				}
			case <-limit:
				t.Fatalf("no %s of %s", signal, path)
			}
		}
	}
	if err := call("CreateLabel", "pink", uint32(0xff88aa)).Err; err != nil {
		t.Fatal(err)
	}
	await("InterfacesAdded", client.LabelPath("pink"))
	if v, err := conn.Object(client.BusName, client.LabelPath("pink")).GetProperty(client.LabelInterface + ".Color"); err != nil || v.Value() != uint32(0xff88aa) {
		t.Errorf("%v, %v", v, err)
	}
	if err := call("RemoveLabel", "pink").Err; err != nil {
		t.Fatal(err)
	}
	await("InterfacesRemoved", client.LabelPath("pink"))
	if err := call("RemoveLabel", "red").Err; err == nil {
		t.Error("a built-in label is removed")
	}

	pool := s.Core.PoolNames()[0]
	var size, used uint64
	if err := conn.Object(client.BusName, client.PoolPath(pool)).Call(client.PoolInterface+".Usage", 0).Store(&size, &used); err != nil || size == 0 {
		t.Errorf("%d, %d, %v", size, used, err)
	}
	var volumes []string
	if err := conn.Object(client.BusName, client.PoolPath(pool)).Call(client.PoolInterface+".Volumes", 0).Store(&volumes); err != nil || len(volumes) == 0 {
		t.Errorf("%v, %v", volumes, err)
	}
	if err := call("RemovePool", pool).Err; err == nil {
		t.Error("the system's pool is removed")
	}
}

func TestSettingsOfTheSystem(t *testing.T) {
	_, conn, signals := listening(t, dbus.WithMatchMember("Event"))
	call := func(method string, args ...any) *dbus.Call {
		return conn.Object(client.BusName, client.RootPath).Call(client.ManagerInterface+"."+method, 0, args...)
	}
	values := func() map[string]row {
		var rows []row
		if err := call("Properties").Store(&rows); err != nil {
			t.Fatal(err)
		}
		byName := map[string]row{}
		for _, r := range rows {
			byName[r.Name] = r
		}
		return byName
	}
	before := values()["default_shutdown_timeout"]
	if !before.Default || !before.Settable || before.Type != "int" || before.Help == "" {
		t.Errorf("%+v among %v", before, slices.Collect(maps.Keys(values())))
	}
	if err := call("SetProperty", "default_shutdown_timeout", "17").Err; err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, signals, client.RootPath, "property-set:default_shutdown_timeout")
	if got := values()["default_shutdown_timeout"]; got.Value != "17" || got.Default {
		t.Errorf("%+v", got)
	}
	if err := call("ResetProperty", "default_shutdown_timeout").Err; err != nil {
		t.Fatal(err)
	}
	if got := values()["default_shutdown_timeout"]; got.Value != before.Value || !got.Default {
		t.Errorf("%+v", got)
	}
	err := call("SetProperty", "no_such", "17").Err
	if e, ok := errors.AsType[dbus.Error](err); !ok || e.Name != client.ErrorPrefix+"QubesNoSuchPropertyError" {
		t.Errorf("%v", err)
	}
}
