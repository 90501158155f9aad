package bus

import (
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core/coretest"
)

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
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	conn := raw(t, address)
	signals := make(chan *dbus.Signal, 100)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(dbus.WithMatchMember("Event")); err != nil {
		t.Fatal(err)
	}
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

func TestSettingsOfTheSystem(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	conn := raw(t, address)
	signals := make(chan *dbus.Signal, 100)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(dbus.WithMatchMember("Event")); err != nil {
		t.Fatal(err)
	}
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
