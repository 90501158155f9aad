package program

import (
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// The interface of programs of which a session has one (freedesktop.org,
// Desktop Entry Specification, "D-Bus Activation").
const applicationFace = "org.freedesktop.Application"

// daemonKey is the entry of the platform data that says whose qubes are meant.
const daemonKey = "org.cubicle.Daemon"

// Instance is a program that a session has once. Its owner is told what the
// later ones were started for.
type Instance struct {
	conn *dbus.Conn
}

// Wish is what a program was started for: to be seen, or for one thing of a
// qube.
type Wish struct {
	Settings string // name of a qube as typed, or empty
	Calls    string // the same
}

// The actions of the interface.
const (
	settingsAction = "settings"
	callsAction    = "calls"
)

// action is what carries a wish to the program that runs, and the qube's name;
// empty: the wish is to be seen.
func (w Wish) action() (action, name string) {
	switch {
	case w.Settings != "":
		return settingsAction, w.Settings
	case w.Calls != "":
		return callsAction, w.Calls
	}
	return "", ""
}

// Claim makes this program the session's one of the name id, for the daemon
// at an address; hear is called, on a goroutine of its own, with the wish of
// every later one. Where there is one already, it gets wish instead and told
// is true: this program can end. One that serves another daemon is left
// alone; then both results are empty.
func Claim(session, id, daemon string, wish Wish, hear func(Wish)) (own *Instance, told bool, err error) {
	conn, err := dbus.Connect(session)
	if err != nil {
		return nil, false, fmt.Errorf("session bus %s: %w", session, err)
	}
	path := dbus.ObjectPath("/" + strings.ReplaceAll(id, ".", "/"))
	if err := conn.ExportMethodTable(methods(daemon, hear), path, applicationFace); err != nil {
		conn.Close()
		return nil, false, fmt.Errorf("offer %s: %w", applicationFace, err)
	}
	reply, err := conn.RequestName(id, dbus.NameFlagDoNotQueue)
	if err != nil {
		conn.Close()
		return nil, false, fmt.Errorf("take the name %s: %w", id, err)
	}
	if reply == dbus.RequestNameReplyPrimaryOwner {
		return &Instance{conn}, false, nil
	}
	defer conn.Close()
	other := conn.Object(id, path)
	platform := map[string]dbus.Variant{daemonKey: dbus.MakeVariant(daemon)}
	if action, name := wish.action(); action == "" {
		err = other.Call(applicationFace+".Activate", dbus.FlagNoAutoStart, platform).Err
	} else {
		parameters := []dbus.Variant{dbus.MakeVariant(name)}
		err = other.Call(applicationFace+".ActivateAction", dbus.FlagNoAutoStart, action, parameters, platform).Err
	}
	return nil, err == nil, nil
}

// Close gives the name back.
func (i *Instance) Close() {
	if i != nil {
		i.conn.Close()
	}
}

// maxWish bounds the name that another program may send, in bytes.
const maxWish = 200

func methods(daemon string, hear func(Wish)) map[string]any {
	ours := func(platform map[string]dbus.Variant) *dbus.Error {
		if asked, ok := platform[daemonKey]; ok && asked.Value() != daemon {
			return dbus.MakeFailedError(fmt.Errorf("this window shows the qubes of %s", daemon))
		}
		return nil
	}
	return map[string]any{
		"Activate": func(platform map[string]dbus.Variant) *dbus.Error {
			if err := ours(platform); err != nil {
				return err
			}
			hear(Wish{})
			return nil
		},
		"Open": func(_ []string, platform map[string]dbus.Variant) *dbus.Error {
			return dbus.MakeFailedError(fmt.Errorf("there are no files to open here"))
		},
		"ActivateAction": func(action string, parameters []dbus.Variant, platform map[string]dbus.Variant) *dbus.Error {
			if err := ours(platform); err != nil {
				return err
			}
			if action != settingsAction && action != callsAction || len(parameters) != 1 {
				return dbus.MakeFailedError(fmt.Errorf("there is no action %.40q with %d parameters", action, len(parameters)))
			}
			name, ok := parameters[0].Value().(string)
			if !ok || name == "" || len(name) > maxWish {
				return dbus.MakeFailedError(fmt.Errorf("the action %s needs the name of a qube", action))
			}
			if action == callsAction {
				hear(Wish{Calls: name})
			} else {
				hear(Wish{Settings: name})
			}
			return nil
		},
	}
}
