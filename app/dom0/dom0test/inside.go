package dom0test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"cubicle/app/dom0"
	"cubicle/daemon/qube"
)

// Interior is what a Fake tells of the inside of a qube. Console and Messages
// are raw, as a qube writes them.
type Interior struct {
	Apps     []dom0.App
	Console  string
	Messages string
	Notes    string
	Volumes  []dom0.Volume
	// Properties are values that differ from the defaults.
	Properties  map[string]string
	Features    map[string]string
	Firewall    string // a rule a line
	Calls       []dom0.Call
	Permissions []dom0.Permission
	// Explained is what would become of calls, by "TARGET SERVICE".
	Explained map[string]dom0.Explanation
	// DeviceLacks tells why the engine cannot attach devices of a class.
	DeviceLacks map[dom0.DeviceClass]string
}

// SetInside replaces what is told of the qube of that name.
func (f *Fake) SetInside(name dom0.Name, in Interior) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.within[name] = &in
}

func (f *Fake) inside(id dom0.QubeID) (*Interior, dom0.Qube) {
	q, _ := f.snapshot.ByID(id)
	in := f.within[q.Name]
	if in == nil {
		in = &Interior{}
		f.within[q.Name] = in
	}
	return in, q
}

// quiet answers a question, which is not noted as a call.
func (f *Fake) quiet(op string, id dom0.QubeID, answer func(*Interior, dom0.Qube)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse[op]; err != nil {
		return err
	}
	answer(f.inside(id))
	return nil
}

// Apps implements dom0.Inside.
func (f *Fake) Apps(_ context.Context, id dom0.QubeID) (list []dom0.App, err error) {
	err = f.quiet("apps", id, func(in *Interior, _ dom0.Qube) { list = slices.Clone(in.Apps) })
	return list, err
}

// Console implements dom0.Inside.
func (f *Fake) Console(_ context.Context, id dom0.QubeID, _ int) (text dom0.Text, err error) {
	err = f.quiet("console", id, func(in *Interior, _ dom0.Qube) { text = dom0.CleanLines(in.Console) })
	return text, err
}

// Messages implements dom0.Inside.
func (f *Fake) Messages(_ context.Context, id dom0.QubeID, _ int) (text dom0.Text, err error) {
	err = f.quiet("messages", id, func(in *Interior, _ dom0.Qube) { text = dom0.CleanLines(in.Messages) })
	return text, err
}

// Notes implements dom0.Inside.
func (f *Fake) Notes(_ context.Context, id dom0.QubeID) (text string, err error) {
	err = f.quiet("notes", id, func(in *Interior, _ dom0.Qube) { text = in.Notes })
	return text, err
}

// SetNotes implements dom0.Inside.
func (f *Fake) SetNotes(_ context.Context, id dom0.QubeID, text string) error {
	if _, err := f.call("set-notes", id, strconv.Quote(text)); err != nil {
		return err
	}
	return f.quiet("set-notes", id, func(in *Interior, _ dom0.Qube) { in.Notes = text })
}

// Volumes implements dom0.Inside.
func (f *Fake) Volumes(_ context.Context, id dom0.QubeID) (list []dom0.Volume, err error) {
	err = f.quiet("volumes", id, func(in *Interior, _ dom0.Qube) { list = slices.Clone(in.Volumes) })
	return list, err
}

// Resize implements dom0.Inside.
func (f *Fake) Resize(_ context.Context, id dom0.QubeID, volume string, bytes uint64) error {
	_, err := f.call("resize", id, volume, bytes)
	return err
}

// Revert implements dom0.Inside.
func (f *Fake) Revert(_ context.Context, id dom0.QubeID, volume, revision string) error {
	_, err := f.call("revert", id, volume, revision)
	return err
}

// KeepRevision implements dom0.Inside.
func (f *Fake) KeepRevision(_ context.Context, id dom0.QubeID, volume, revision string, keep bool) error {
	if _, err := f.call("keep", id, volume, revision, keep); err != nil {
		return err
	}
	return f.quiet("keep", id, func(in *Interior, _ dom0.Qube) {
		for i := range in.Volumes {
			v := &in.Volumes[i]
			v.Kept = slices.DeleteFunc(slices.Clone(v.Kept), func(r string) bool { return r == revision })
			if v.Name == volume && keep {
				v.Kept = append(v.Kept, revision)
			}
		}
	})
}

// Properties implements dom0.Inside with the rows of the property table.
func (f *Fake) Properties(_ context.Context, id dom0.QubeID) (list []dom0.Property, err error) {
	err = f.quiet("properties", id, func(in *Interior, q dom0.Qube) {
		set := maps.Clone(in.Properties)
		if set == nil {
			set = map[string]string{}
		}
		// What the qube itself tells.
		for name, value := range map[string]string{"label": q.Label.Name, "template": string(q.Template), "netvm": string(q.NetVM)} {
			if _, changed := set[name]; !changed && value != "" {
				set[name] = value
			}
		}
		list = rows(q.Class, set)
		for i := range list {
			row, _ := qube.Lookup(q.Class, list[i].Name)
			list[i].Settable = row.Set == qube.Always || row.Set == qube.WhileHalted && !q.State.IsUp()
		}
	})
	return list, err
}

// rows are those of the class with simple defaults.
func rows(class dom0.Class, set map[string]string) []dom0.Property {
	defaults := map[string]string{"memory": "400", "vcpus": "2", "default_user": "user", "engine": "runsc", "maxmem": "0",
		"autostart": "False", "debug": "False", "provides_network": "False", "include_in_backups": "True",
		"qrexec_timeout": "60", "shutdown_timeout": "60"}
	var list []dom0.Property
	for _, r := range qube.Rows(class) {
		value, isSet := set[r.Name]
		if !isSet {
			value = defaults[r.Name]
		}
		list = append(list, dom0.Property{Name: r.Name, Type: string(r.Type), Value: value, Default: !isSet,
			Settable: r.Set == qube.Always || r.Set == qube.WhileHalted, Help: r.Help})
	}
	return list
}

// SetProperty implements dom0.Inside.
func (f *Fake) SetProperty(_ context.Context, id dom0.QubeID, name, value string) error {
	q, _ := f.Snapshot().ByID(id)
	if err := check(q.Class, name, value); err != nil {
		return err
	}
	if _, err := f.call("set", id, name, value); err != nil {
		return err
	}
	return f.quiet("set", id, func(in *Interior, _ dom0.Qube) {
		if in.Properties == nil {
			in.Properties = map[string]string{}
		}
		in.Properties[name] = value
	})
}

// ResetProperty implements dom0.Inside.
func (f *Fake) ResetProperty(_ context.Context, id dom0.QubeID, name string) error {
	if _, err := f.call("reset", id, name); err != nil {
		return err
	}
	return f.quiet("reset", id, func(in *Interior, _ dom0.Qube) { delete(in.Properties, name) })
}

// Features implements dom0.Inside.
func (f *Fake) Features(_ context.Context, id dom0.QubeID) (list []dom0.Feature, err error) {
	err = f.quiet("features", id, func(in *Interior, _ dom0.Qube) {
		for _, name := range slices.Sorted(maps.Keys(in.Features)) {
			list = append(list, dom0.Feature{Name: name, Value: dom0.CleanLine(in.Features[name])})
		}
	})
	return list, err
}

// SetFeature implements dom0.Inside.
func (f *Fake) SetFeature(_ context.Context, id dom0.QubeID, name, value string) error {
	if _, err := f.call("set-feature", id, name, strconv.Quote(value)); err != nil {
		return err
	}
	return f.quiet("set-feature", id, func(in *Interior, _ dom0.Qube) {
		if in.Features == nil {
			in.Features = map[string]string{}
		}
		in.Features[name] = value
	})
}

// RemoveFeature implements dom0.Inside.
func (f *Fake) RemoveFeature(_ context.Context, id dom0.QubeID, name string) error {
	if _, err := f.call("remove-feature", id, name); err != nil {
		return err
	}
	return f.quiet("remove-feature", id, func(in *Interior, _ dom0.Qube) { delete(in.Features, name) })
}

// Firewall implements dom0.Inside.
func (f *Fake) Firewall(_ context.Context, id dom0.QubeID) (rules dom0.Text, err error) {
	err = f.quiet("firewall", id, func(in *Interior, _ dom0.Qube) { rules = dom0.CleanLines(in.Firewall) })
	return rules, err
}

// SetFirewall implements dom0.Inside.
func (f *Fake) SetFirewall(_ context.Context, id dom0.QubeID, rules string) error {
	if _, err := f.call("set-firewall", id, strconv.Quote(rules)); err != nil {
		return err
	}
	return f.quiet("set-firewall", id, func(in *Interior, _ dom0.Qube) { in.Firewall = rules })
}

// AssignDevice implements dom0.Inside.
func (f *Fake) AssignDevice(_ context.Context, id dom0.QubeID, d dom0.DeviceRef, mode dom0.DeviceMode) error {
	if _, err := f.call("assign", id, d.Class, d, mode); err != nil {
		return err
	}
	f.editDevice(id, d, func(dev *dom0.Device, name dom0.Name) {
		dev.Assignments = append(slices.Clone(dev.Assignments), dom0.Assignment{Qube: name, Mode: mode})
	})
	return nil
}

// SetDeviceMode implements dom0.Inside.
func (f *Fake) SetDeviceMode(_ context.Context, id dom0.QubeID, d dom0.DeviceRef, mode dom0.DeviceMode) error {
	if _, err := f.call("device-mode", id, d.Class, d, mode); err != nil {
		return err
	}
	f.editDevice(id, d, func(dev *dom0.Device, name dom0.Name) {
		dev.Assignments = slices.Clone(dev.Assignments)
		for i := range dev.Assignments {
			if dev.Assignments[i].Qube == name {
				dev.Assignments[i].Mode = mode
			}
		}
	})
	return nil
}

// UnassignDevice implements dom0.Inside.
func (f *Fake) UnassignDevice(_ context.Context, id dom0.QubeID, d dom0.DeviceRef) error {
	if _, err := f.call("unassign", id, d.Class, d); err != nil {
		return err
	}
	f.editDevice(id, d, func(dev *dom0.Device, name dom0.Name) {
		dev.Assignments = slices.DeleteFunc(slices.Clone(dev.Assignments), func(a dom0.Assignment) bool { return a.Qube == name })
	})
	return nil
}

// editDevice changes a device of the snapshot; one that is neither offered nor
// assigned is gone.
func (f *Fake) editDevice(id dom0.QubeID, d dom0.DeviceRef, edit func(*dom0.Device, dom0.Name)) {
	f.Edit(func(s *dom0.Snapshot) {
		q, _ := s.ByID(id)
		s.Devices = slices.Clone(s.Devices)
		for i := range s.Devices {
			if s.Devices[i].DeviceRef == d {
				edit(&s.Devices[i], q.Name)
			}
		}
		s.Devices = slices.DeleteFunc(s.Devices, func(d dom0.Device) bool { return !d.Offered && len(d.Assignments) == 0 })
	})
}

// DeviceLacks implements dom0.Inside.
func (f *Fake) DeviceLacks(_ context.Context, id dom0.QubeID) (lacks map[dom0.DeviceClass]string, err error) {
	err = f.quiet("devices", id, func(in *Interior, _ dom0.Qube) { lacks = maps.Clone(in.DeviceLacks) })
	return lacks, err
}

// RecentCalls implements dom0.Inside.
func (f *Fake) RecentCalls(_ context.Context, id dom0.QubeID, limit int) (list []dom0.Call, err error) {
	err = f.quiet("calls", id, func(in *Interior, _ dom0.Qube) { list = slices.Clone(in.Calls[:min(limit, len(in.Calls))]) })
	return list, err
}

// Permissions implements dom0.Inside.
func (f *Fake) Permissions(_ context.Context, id dom0.QubeID) (list []dom0.Permission, err error) {
	err = f.quiet("policy", id, func(in *Interior, _ dom0.Qube) { list = slices.Clone(in.Permissions) })
	return list, err
}

// ExplainCall implements dom0.Inside.
func (f *Fake) ExplainCall(_ context.Context, id dom0.QubeID, target, service string) (e dom0.Explanation, err error) {
	err = f.quiet("policy", id, func(in *Interior, _ dom0.Qube) {
		known := false
		if e, known = in.Explained[target+" "+service]; !known {
			e = dom0.Explanation{Result: dom0.Denied, Reason: "no rule fits the call"}
		}
	})
	return e, err
}

// DraftProperties implements dom0.Inside.
func (f *Fake) DraftProperties(_ context.Context, class dom0.Class, _ string) (list []dom0.Property, err error) {
	for _, r := range rows(class, nil) {
		if r.Settable {
			list = append(list, r)
		}
	}
	return list, nil
}

// CheckProperty implements dom0.Inside with the table's own rules.
func (f *Fake) CheckProperty(_ context.Context, class dom0.Class, _, name, value string) error {
	return check(class, name, value)
}

func check(class dom0.Class, name, value string) error {
	row, ok := qube.Lookup(class, name)
	if !ok {
		return &dom0.Error{Op: "check", Subject: name, Name: "QubesNoSuchPropertyError", Reason: fmt.Sprintf("there is no property %q", name)}
	}
	if _, err := row.Parse(value); err != nil {
		return &dom0.Error{Op: "check", Subject: name, Name: "QubesPropertyValueError", Reason: err.Error()}
	}
	return nil
}
