package dom0

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/bus/client"
)

// AppID is a checked desktop-file id, without ".desktop".
type AppID string

// maxAppID bounds an AppID in bytes: it is the name of a file.
const maxAppID = 255 - len(".desktop")

// ParseAppID checks a desktop-file id: the characters of a D-Bus name, as the
// Desktop Entry Specification wants it ("File naming"), and no option of a
// command.
func ParseAppID(text string) (AppID, error) {
	if text == "" || len(text) > maxAppID || text[0] == '-' || text[0] == '.' {
		return "", fmt.Errorf("%.40q is no desktop-file id: 1 to %d characters are needed, none of '-' and '.' first", text, maxAppID)
	}
	for _, r := range text {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-+@", r) {
			return "", fmt.Errorf("%.40q is no desktop-file id: %q is in it", text, r)
		}
	}
	return AppID(text), nil
}

// App is a program that a qube offers.
type App struct {
	ID      AppID
	Name    Text
	Comment Text
}

// Volume is a disk of a qube.
type Volume struct {
	Name      string
	Pool      string
	Size      uint64 // bytes the qube sees
	Usage     uint64 // bytes it takes in dom0
	Keeps     bool   // what is written stays
	Revisions []string
	Kept      []string // of them, those that stay however old they get
}

// Property is a row of the property table.
type Property struct {
	Name     string
	Type     string // "str", "int", "bool", "vm" or "label"
	Value    string
	Default  bool // the value is the default
	Settable bool // now
	Help     string
}

// Feature is a note that programs of dom0 and of the qube read; one whose name
// begins with ServicePrefix switches a service in the qube.
type Feature struct {
	Name  string
	Value Text
}

// ServicePrefix begins the names of services among the features.
const ServicePrefix = "service."

// Inside is what is asked about one qube at a time. The methods block until
// the daemon answers; their errors are *Error.
type Inside interface {
	// Apps are the programs of the qube, by name: a running qube's as they
	// are, another's as last known.
	Apps(ctx context.Context, id QubeID) ([]App, error)
	// Console is the end of what the qube wrote to its console, Messages what
	// the daemon said of the qube.
	Console(ctx context.Context, id QubeID, lines int) (Text, error)
	Messages(ctx context.Context, id QubeID, lines int) (Text, error)
	Notes(ctx context.Context, id QubeID) (string, error)
	SetNotes(ctx context.Context, id QubeID, text string) error
	Volumes(ctx context.Context, id QubeID) ([]Volume, error)
	// Resize grows a volume; Revert makes a revision current again. The qube
	// has to be halted.
	Resize(ctx context.Context, id QubeID, volume string, bytes uint64) error
	Revert(ctx context.Context, id QubeID, volume, revision string) error
	// KeepRevision makes a revision stay until it is let go, or lets it go.
	KeepRevision(ctx context.Context, id QubeID, volume, revision string, keep bool) error
	Properties(ctx context.Context, id QubeID) ([]Property, error)
	SetProperty(ctx context.Context, id QubeID, name, value string) error
	ResetProperty(ctx context.Context, id QubeID, name string) error
	// Features are the qube's own features, by name.
	Features(ctx context.Context, id QubeID) ([]Feature, error)
	SetFeature(ctx context.Context, id QubeID, name, value string) error
	RemoveFeature(ctx context.Context, id QubeID, name string) error
	// Firewall are the qube's rules in their order, a line each
	// (spec/platform.md §5.1); SetFirewall replaces them all.
	Firewall(ctx context.Context, id QubeID) (Text, error)
	SetFirewall(ctx context.Context, id QubeID, rules string) error
	// AssignDevice makes a device one that the qube shall have, SetDeviceMode
	// changes when it is attached, UnassignDevice takes that back.
	AssignDevice(ctx context.Context, id QubeID, d DeviceRef, mode DeviceMode) error
	SetDeviceMode(ctx context.Context, id QubeID, d DeviceRef, mode DeviceMode) error
	UnassignDevice(ctx context.Context, id QubeID, d DeviceRef) error
	// DeviceLacks tells for a class of devices why the qube's engine cannot
	// attach them.
	DeviceLacks(ctx context.Context, id QubeID) (map[DeviceClass]string, error)
	// RecentCalls are the last calls from the qube and to it, newest first.
	RecentCalls(ctx context.Context, id QubeID, limit int) ([]Call, error)
	// Permissions are the calls from the qube and to it that the policy allows
	// now; the error says where the policy is wrong.
	Permissions(ctx context.Context, id QubeID) ([]Permission, error)
	// ExplainCall tells what would become of a call from the qube to a target,
	// "@default" for who leaves it to the policy. Nothing is called.
	ExplainCall(ctx context.Context, id QubeID, target, service string) (Explanation, error)
	// DraftProperties are the rows that a new qube of the class on the
	// template would have; CheckProperty tells what is wrong with a value.
	DraftProperties(ctx context.Context, class Class, template string) ([]Property, error)
	CheckProperty(ctx context.Context, class Class, template, name, value string) error
}

// ask runs a question or an action that ends at once.
func (b *Bus) ask(ctx context.Context, op, subject string, call func(*client.Client) error) error {
	conn, err := b.daemon(ctx)
	if err == nil {
		err = call(conn)
	}
	if err != nil {
		return refusal(op, subject, err)
	}
	return nil
}

// Apps implements Inside.
func (b *Bus) Apps(ctx context.Context, id QubeID) (apps []App, err error) {
	err = b.ask(ctx, "apps", b.called(id), func(c *client.Client) error {
		list, err := c.Apps(ctx, string(id))
		for _, a := range list {
			if id, err := ParseAppID(a.ID); err == nil { // the qube's own words: another id starts nothing
				apps = append(apps, App{ID: id, Name: CleanLine(a.Name), Comment: CleanLine(a.Comment)})
			}
		}
		return err
	})
	return apps, err
}

// Console implements Inside.
func (b *Bus) Console(ctx context.Context, id QubeID, lines int) (text Text, err error) {
	err = b.ask(ctx, "console", b.called(id), func(c *client.Client) error {
		raw, err := c.Console(ctx, string(id), uint32(lines))
		text = CleanLines(string(raw))
		return err
	})
	return text, err
}

// Messages implements Inside.
func (b *Bus) Messages(ctx context.Context, id QubeID, lines int) (text Text, err error) {
	err = b.ask(ctx, "messages", b.called(id), func(c *client.Client) error {
		list, err := c.Messages(ctx, string(id), uint32(lines))
		text = CleanLines(strings.Join(list, "\n"))
		return err
	})
	return text, err
}

// Notes implements Inside.
func (b *Bus) Notes(ctx context.Context, id QubeID) (text string, err error) {
	err = b.ask(ctx, "notes", b.called(id), func(c *client.Client) (err error) {
		text, err = c.Notes(ctx, string(id))
		return err
	})
	return text, err
}

// SetNotes implements Inside.
func (b *Bus) SetNotes(ctx context.Context, id QubeID, text string) error {
	return b.ask(ctx, "notes", b.called(id), func(c *client.Client) error { return c.SetNotes(ctx, string(id), text) })
}

// Volumes implements Inside.
func (b *Bus) Volumes(ctx context.Context, id QubeID) (list []Volume, err error) {
	err = b.ask(ctx, "volumes", b.called(id), func(c *client.Client) error {
		volumes, err := c.Volumes(ctx, string(id))
		for _, v := range volumes {
			list = append(list, volume(v))
		}
		return err
	})
	return list, err
}

// volume reads the keys of spec/admin-api.md §2.5; what has another type than
// told there is left empty.
func volume(v map[string]any) (out Volume) {
	out.Name, _ = v["name"].(string)
	out.Pool, _ = v["pool"].(string)
	if size, _ := v["size"].(int64); size > 0 {
		out.Size = uint64(size)
	}
	if usage, _ := v["usage"].(int64); usage > 0 {
		out.Usage = uint64(usage)
	}
	out.Keeps, _ = v["save_on_stop"].(bool)
	revisions, _ := v["revisions"].([]string)
	out.Revisions = slices.Clone(revisions)
	kept, _ := v["kept_revisions"].([]string)
	out.Kept = slices.Clone(kept)
	return out
}

// Resize implements Inside.
func (b *Bus) Resize(ctx context.Context, id QubeID, volume string, bytes uint64) error {
	return b.ask(ctx, "resize", b.called(id), func(c *client.Client) error { return c.Resize(ctx, string(id), volume, bytes) })
}

// Revert implements Inside.
func (b *Bus) Revert(ctx context.Context, id QubeID, volume, revision string) error {
	return b.ask(ctx, "revert", b.called(id), func(c *client.Client) error { return c.Revert(ctx, string(id), volume, revision) })
}

// KeepRevision implements Inside.
func (b *Bus) KeepRevision(ctx context.Context, id QubeID, volume, revision string, keep bool) error {
	return b.ask(ctx, "keep", b.called(id), func(c *client.Client) error {
		return c.KeepRevision(ctx, string(id), volume, revision, keep)
	})
}

// Properties implements Inside.
func (b *Bus) Properties(ctx context.Context, id QubeID) (list []Property, err error) {
	err = b.ask(ctx, "properties", b.called(id), func(c *client.Client) error {
		rows, err := c.Properties(ctx, string(id))
		list = fromRows(rows)
		return err
	})
	return list, err
}

// SetProperty implements Inside.
func (b *Bus) SetProperty(ctx context.Context, id QubeID, name, value string) error {
	return b.ask(ctx, "set", b.called(id), func(c *client.Client) error { return c.SetProperty(ctx, string(id), name, value) })
}

// ResetProperty implements Inside.
func (b *Bus) ResetProperty(ctx context.Context, id QubeID, name string) error {
	return b.ask(ctx, "reset", b.called(id), func(c *client.Client) error { return c.ResetProperty(ctx, string(id), name) })
}

// Features implements Inside.
func (b *Bus) Features(ctx context.Context, id QubeID) (list []Feature, err error) {
	err = b.ask(ctx, "features", b.called(id), func(c *client.Client) error {
		features, err := c.Features(ctx, string(id))
		for _, name := range slices.Sorted(maps.Keys(features)) {
			list = append(list, Feature{Name: string(CleanLine(name)), Value: CleanLine(features[name])})
		}
		return err
	})
	return list, err
}

// SetFeature implements Inside.
func (b *Bus) SetFeature(ctx context.Context, id QubeID, name, value string) error {
	return b.ask(ctx, "feature", b.called(id), func(c *client.Client) error { return c.SetFeature(ctx, string(id), name, value) })
}

// RemoveFeature implements Inside.
func (b *Bus) RemoveFeature(ctx context.Context, id QubeID, name string) error {
	return b.ask(ctx, "feature", b.called(id), func(c *client.Client) error { return c.RemoveFeature(ctx, string(id), name) })
}

// Firewall implements Inside.
func (b *Bus) Firewall(ctx context.Context, id QubeID) (rules Text, err error) {
	err = b.ask(ctx, "firewall", b.called(id), func(c *client.Client) error {
		list, err := c.Firewall(ctx, string(id))
		rules = CleanLines(strings.Join(list, "\n"))
		return err
	})
	return rules, err
}

// SetFirewall implements Inside.
func (b *Bus) SetFirewall(ctx context.Context, id QubeID, rules string) error {
	return b.ask(ctx, "firewall", b.called(id), func(c *client.Client) error {
		var list []string
		for line := range strings.Lines(rules) {
			if line = strings.TrimSpace(line); line != "" {
				list = append(list, line)
			}
		}
		return c.SetFirewall(ctx, string(id), list)
	})
}

// DraftProperties implements Inside.
func (b *Bus) DraftProperties(ctx context.Context, class Class, template string) (list []Property, err error) {
	err = b.ask(ctx, "properties", string(class), func(c *client.Client) error {
		rows, err := c.DraftProperties(ctx, string(class), template)
		list = fromRows(rows)
		return err
	})
	return list, err
}

// CheckProperty implements Inside.
func (b *Bus) CheckProperty(ctx context.Context, class Class, template, name, value string) error {
	return b.ask(ctx, "check", name, func(c *client.Client) error {
		_, err := c.CheckProperty(ctx, string(class), template, name, value)
		return err
	})
}

func fromRows(rows []client.Property) []Property {
	list := make([]Property, len(rows))
	for i, r := range rows {
		list[i] = Property(r)
	}
	return list
}
