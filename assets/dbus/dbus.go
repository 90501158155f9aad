// Package dbus holds the configuration of the bus that dom0's programs meet
// on.
package dbus

import (
	_ "embed"
	"encoding/xml"
	"fmt"
	"strings"
	"text/template"
)

//go:embed system-bus.conf.tmpl
var systemBus string

// Call is a method that the desktop user may call on org.cubicle.Qubes1.
type Call struct{ Interface, Member string }

// DesktopCalls are the methods open to the desktop user: who may sit at the
// screen may do with the qubes whatever the Manager offers.
func DesktopCalls() []Call {
	var calls []Call
	for _, i := range []struct {
		name    string
		members string
	}{
		{"org.freedesktop.DBus.Introspectable", "Introspect"},
		{"org.freedesktop.DBus.ObjectManager", "GetManagedObjects"},
		{"org.freedesktop.DBus.Peer", "Ping GetMachineId"},
		{"org.freedesktop.DBus.Properties", "Get GetAll"},
		{"org.cubicle.Qubes1.Manager", "AddPool CheckProperty CreateDisposable CreateLabel CreateQube CreateTemplate DiskSpace DraftProperties ExplainCall Permissions Properties RecentCalls RemoveLabel RemovePool " +
			"ResetProperty SetPoolRevisions SetProperty"},
		{"org.cubicle.Qubes1.Qube", "AddTag Apps AssignDevice Clone Console DeviceLacks Devices Features Firewall KeepRevision Kill Messages Notes Pause Properties Remove RemoveFeature RemoveTag " +
			"ResetProperty Resize Revert Run SetDeviceMode SetFeature SetFirewall SetNotes SetProperty Shutdown Start StartApp Tags UnassignDevice Unpause Volumes"},
		{"org.cubicle.Qubes1.Pool", "Usage Volumes"},
		{"org.cubicle.Qubes1.Job", "Cancel"},
	} {
		for _, member := range strings.Fields(i.members) {
			calls = append(calls, Call{i.name, member})
		}
	}
	return calls
}

// SystemBus returns the bus's configuration: where it listens, and which
// users beside root may connect.
func SystemBus(address string, users []int) (string, error) {
	t, err := template.New("system-bus.conf").Parse(systemBus)
	if err != nil {
		return "", err
	}
	var escaped strings.Builder
	if err := xml.EscapeText(&escaped, []byte(address)); err != nil {
		return "", fmt.Errorf("address of the bus: %w", err)
	}
	var b strings.Builder
	err = t.Execute(&b, struct {
		Address string
		Users   []int
		Calls   []Call
	}{escaped.String(), users, DesktopCalls()})
	return b.String(), err
}
