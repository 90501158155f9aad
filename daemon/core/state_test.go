package core_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
)

// The whole state against a model that knows nothing of files, views and
// volumes: whatever is done in whatever order, and wherever the daemon is
// started anew, both agree on what is allowed and on what is then there. A
// long run: go test -run TestModelOfTheState -rapid.checks=1000.

// modelQube is what the model knows of a qube.
type modelQube struct {
	Class    qube.Class
	Label    string
	Props    map[string]string // set explicitly, but for the label and numbers
	Features map[string]string
	Tags     []string // sorted
	Up       bool
}

type model struct {
	Qubes  map[string]*modelQube
	System map[string]string
	Labels []string // that people made
}

func (m *model) names() []string { return slices.Sorted(maps.Keys(m.Qubes)) }

func (m *model) netvm(q *modelQube) string {
	if v, ok := q.Props["netvm"]; ok || q.Class == qube.TemplateVM || !q.Class.HasMachine() {
		return v
	}
	return m.System["default_netvm"]
}

// referrers are the properties that name a qube, as OWNER.PROPERTY.
func (m *model) referrers(name string) []string {
	var list []string
	for prop, v := range m.System {
		if v == name {
			list = append(list, "."+prop)
		}
	}
	for n, q := range m.Qubes {
		for _, prop := range []string{"template", "netvm", "default_dispvm", "guivm"} {
			if q.Props[prop] == name {
				list = append(list, n+"."+prop)
			}
		}
	}
	return list
}

// refers reports whether some of the properties is among the referrers.
func refers(list []string, props ...string) bool {
	return slices.ContainsFunc(list, func(r string) bool {
		_, prop, _ := strings.Cut(r, ".")
		return slices.Contains(props, prop)
	})
}

func (m *model) fits(prop string, of qube.Class, target string) bool {
	t := m.Qubes[target]
	switch {
	case t == nil:
		return false
	case prop == "template" && of == qube.AppVM, prop == "default_template":
		return t.Class == qube.TemplateVM
	case prop == "template", prop == "default_dispvm":
		return t.Props["template_for_dispvms"] == "True"
	case prop == "netvm", prop == "default_netvm":
		return t.Props["provides_network"] == "True"
	}
	return t.Class != qube.RemoteVM // clockvm, guivm
}

func (m *model) has(c qube.Class, prop string) bool {
	switch prop {
	case "label":
		return true
	case "template":
		return c == qube.AppVM || c == qube.DispVM
	case "template_for_dispvms":
		return c == qube.AppVM || c == qube.StandaloneVM
	case "auto_cleanup":
		return c == qube.DispVM
	}
	return c.HasMachine()
}

// networks reports whether the networks are in order, after those that were
// before: no ring, and no running qube on a network that it cannot change to.
func (m *model) networks(before map[string]string) bool {
	for name, q := range m.Qubes {
		at := name
		for range m.Qubes {
			if at = m.netvm(m.Qubes[at]); at == "" {
				break
			}
			if at == name {
				return false
			}
		}
		if net := m.netvm(q); q.Up && net != "" && net != before[name] && !m.Qubes[net].Up {
			return false
		}
	}
	return true
}

func (m *model) allNetVMs() map[string]string {
	all := map[string]string{}
	for name, q := range m.Qubes {
		all[name] = m.netvm(q)
	}
	return all
}

// set sets a property, or resets it with nil, and tells whether that is
// allowed; if it is not nothing happens.
func (m *model) set(name, prop string, value *string) bool {
	q := m.Qubes[name]
	old, was := q.Props[prop]
	if !m.has(q.Class, prop) || value == nil && (prop == "template" || prop == "label") {
		return false
	}
	if prop == "label" {
		if !slices.Contains(m.Labels, *value) && *value != "red" && *value != "blue" {
			return false
		}
		q.Label = *value
		return true
	}
	if prop == "template" && q.Up {
		return false
	}
	vm := prop == "template" || prop == "netvm" || prop == "default_dispvm" || prop == "guivm"
	if value != nil && vm && (*value != "" || prop == "template") && !m.fits(prop, q.Class, *value) {
		return false
	}
	before := m.allNetVMs()
	if value == nil {
		delete(q.Props, prop)
	} else {
		q.Props[prop] = *value
	}
	allowed := true
	switch prop {
	case "netvm":
		allowed = m.networks(before)
	case "provides_network":
		allowed = q.Props[prop] == "True" || !refers(m.referrers(name), "netvm", "default_netvm")
	case "template_for_dispvms":
		allowed = q.Props[prop] == "True" || !refers(m.referrers(name), "default_dispvm") &&
			!slices.ContainsFunc(m.names(), func(n string) bool { return m.Qubes[n].Props["template"] == name })
	case "template":
		for _, o := range m.Qubes {
			allowed = allowed && !(o.Up && o.Class == qube.DispVM && o.Props["template"] == name)
		}
	}
	if !allowed {
		if delete(q.Props, prop); was {
			q.Props[prop] = old
		}
		return false
	}
	if prop == "provides_network" {
		if delete(q.Features, "servicevm"); q.Props[prop] == "True" {
			q.Features["servicevm"] = "1"
		}
	}
	return true
}

func (m *model) setSystem(prop string, value *string) bool {
	old, was := m.System[prop]
	if value != nil && *value != "" && !m.fits(prop, "", *value) {
		return false
	}
	before := m.allNetVMs()
	if delete(m.System, prop); value != nil {
		m.System[prop] = *value
	}
	if prop == "default_netvm" && !m.networks(before) {
		if delete(m.System, prop); was {
			m.System[prop] = old
		}
		return false
	}
	if prop == "clockvm" {
		if old != "" && old != m.System[prop] {
			delete(m.Qubes[old].Features, "service.clocksync")
		}
		if now := m.System[prop]; now != "" && m.Qubes[now].Features["service.clocksync"] == "" {
			m.Qubes[now].Features["service.clocksync"] = "1"
		}
	}
	return true
}

// start starts a qube and, before it, its network.
func (m *model) start(name string) bool {
	q := m.Qubes[name]
	switch {
	case !q.Class.HasMachine():
		return false
	case q.Up:
		return true
	case q.Features["prohibit-start"] != "":
		return false
	}
	if net := m.netvm(q); net != "" && !m.start(net) {
		return false
	}
	q.Up = true
	return true
}

func (m *model) stop(name string) {
	q := m.Qubes[name]
	q.Up = false
	m.throwAway(name)
}

// throwAway removes a disposable that has ended, or failed to start.
func (m *model) throwAway(name string) {
	if m.Qubes[name].Props["auto_cleanup"] == "True" && !m.needed(name) {
		delete(m.Qubes, name)
	}
}

func (m *model) needed(name string) bool {
	return slices.ContainsFunc(m.referrers(name), func(r string) bool { return !strings.HasPrefix(r, name+".") })
}

// heir is a copy of what a clone or a disposable takes over.
func (m *model) heir(from *modelQube, c qube.Class) *modelQube {
	q := &modelQube{Class: c, Props: map[string]string{}, Features: maps.Clone(from.Features)}
	for prop, v := range from.Props {
		if prop != "template" && prop != "auto_cleanup" && m.has(c, prop) {
			q.Props[prop] = v
		}
	}
	for _, t := range from.Tags {
		if !strings.Contains(t, "created-by-") {
			q.Tags = append(q.Tags, t)
		}
	}
	return q
}

func (m *model) add(name, label, template string, q *modelQube, tags ...string) {
	q.Label, q.Tags = label, slices.Compact(slices.Sorted(slices.Values(append(q.Tags, tags...))))
	if q.Props == nil {
		q.Props = map[string]string{}
	}
	if m.has(q.Class, "template") {
		q.Props["template"] = template
	}
	m.Qubes[name] = q
	if q.Class == qube.TemplateVM && m.System["default_template"] == "" {
		m.System["default_template"] = name
	}
}

// seen is the state of a system in the model's form.
func seen(s *coretest.System) *model {
	v := s.View()
	m := &model{Qubes: map[string]*modelQube{}, System: map[string]string{}}
	for _, l := range v.Labels()[len(qube.Labels):] {
		m.Labels = append(m.Labels, l.Name)
	}
	for _, row := range qube.SystemRows() {
		if text, ok := v.System().Explicit(row.Name); ok {
			m.System[row.Name] = text
		}
	}
	for _, o := range v.Qubes() {
		q := &modelQube{Class: o.Class(), Label: o.Label().Name, Props: map[string]string{}, Features: o.Features(), Up: o.State().IsUp() && o.Class().HasMachine()}
		for _, row := range qube.Rows(o.Class()) {
			if text, ok := o.Explicit(row.Name); ok && !slices.Contains([]string{"name", "uuid", "qid", "dispid", "label"}, row.Name) {
				q.Props[row.Name] = text
			}
		}
		for _, t := range o.Tags() {
			if !strings.HasPrefix(t, "guivm-") && t != "audiovm-dom0" {
				q.Tags = append(q.Tags, t)
			}
		}
		m.Qubes[string(o.Name())] = q
	}
	return m
}

// consistent tells of numbers and addresses that two qubes share, and of tags
// that do not say what the property says.
func consistent(s *coretest.System) error {
	owner := map[string]qube.Name{}
	for _, q := range s.View().Qubes() {
		var gui []string
		for _, t := range q.Tags() {
			if of, ok := strings.CutPrefix(t, "guivm-"); ok {
				gui = append(gui, of)
			}
		}
		if strings.Join(gui, " ") != q.Property("guivm") {
			return fmt.Errorf("%s has the guivm %q and tags for %q", q.Name(), q.Property("guivm"), gui)
		}
		for _, prop := range []string{"qid", "uuid", "dispid", "ip", "xid"} {
			v := q.Property(prop)
			if v == "" || v == "-1" {
				continue
			}
			if o, taken := owner[prop+v]; taken {
				return fmt.Errorf("%s and %s have the %s %s", o, q.Name(), prop, v)
			}
			owner[prop+v] = q.Name()
		}
	}
	return nil
}

func TestModelOfTheState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		w := coretest.New()
		s, err := coretest.Start(w, dir, core.WallClock{})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		m := &model{Qubes: map[string]*modelQube{}, System: map[string]string{}}
		name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
		other := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", ""})
		label := rapid.SampledFrom([]string{"red", "blue", "pink", "mint"})
		classes := rapid.SampledFrom([]qube.Class{qube.TemplateVM, qube.AppVM, qube.AppVM, qube.DispVM, qube.StandaloneVM, qube.RemoteVM})
		ctx := context.Background()

		known := func(rt *rapid.T) (string, *modelQube, qube.UUID) {
			names := m.names()
			if len(names) == 0 {
				rt.Skip("no qube")
			}
			n := rapid.SampledFrom(names).Draw(rt, "qube")
			q, ok := s.View().Named(qube.Name(n))
			if !ok {
				rt.Fatalf("%s is not there", n)
			}
			return n, m.Qubes[n], q.UUID()
		}
		agree := func(rt *rapid.T, err error, allowed bool) {
			if (err == nil) != allowed {
				rt.Fatalf("error %v, but allowed is %v", err, allowed)
			}
		}
		// A little world to begin with.
		for _, q := range []core.NewQube{
			{Name: "a", Class: "TemplateVM"}, {Name: "b", Class: "AppVM", Template: "a", Properties: map[string]string{"provides_network": "True", "netvm": ""}},
			{Name: "c", Class: "AppVM", Template: "a", Properties: map[string]string{"netvm": "b", "template_for_dispvms": "True"}},
		} {
			q.Label, q.Creator = "red", "dom0"
			agree(rt, s.Done(s.Create(q)), true)
			features := map[string]string{}
			if q.Name == "b" {
				features["servicevm"] = "1"
			}
			m.add(q.Name, "red", q.Template, &modelQube{Class: qube.Class(q.Class), Props: maps.Clone(q.Properties), Features: features}, "created-by-dom0")
		}
		hasLabel := func(l string) bool { return l == "red" || l == "blue" || slices.Contains(m.Labels, l) }
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(rt *rapid.T) {
				n, l, tmpl, c := name.Draw(rt, "name"), label.Draw(rt, "label"), other.Draw(rt, "template"), classes.Draw(rt, "class")
				err := s.Done(s.Create(core.NewQube{Name: n, Class: string(c), Label: l, Template: tmpl, Creator: "dom0"}))
				switch {
				case tmpl != "" || !m.has(c, "template"):
				case c == qube.DispVM:
					tmpl = m.System["default_dispvm"]
				default:
					tmpl = m.System["default_template"]
				}
				from := m.Qubes[tmpl]
				ok := m.Qubes[n] == nil && hasLabel(l)
				q := &modelQube{Class: c, Props: map[string]string{}, Features: map[string]string{}}
				switch {
				case m.has(c, "template"):
					ok = ok && m.fits("template", c, tmpl)
				case c == qube.StandaloneVM && tmpl != "":
					ok = ok && from != nil && from.Class.HasMachine()
				default:
					ok = ok && tmpl == ""
				}
				agree(rt, err, ok)
				if !ok {
					return
				}
				if c == qube.DispVM || c == qube.StandaloneVM && from != nil {
					q = m.heir(from, c)
				}
				m.add(n, l, tmpl, q, "created-by-dom0")
			},
			"disposable": func(rt *rapid.T) {
				n, q, id := known(rt)
				d, err := s.CreateDisposable(id, "dom0")
				agree(rt, s.Done(d.Job, err), q.Props["template_for_dispvms"] == "True")
				if err == nil {
					m.add(string(d.Name), q.Label, n, m.heir(q, qube.DispVM), "created-by-dom0", "disp-created-by-dom0")
					m.Qubes[string(d.Name)].Props["auto_cleanup"] = "True"
				}
			},
			"clone": func(rt *rapid.T) {
				_, q, id := known(rt)
				n := name.Draw(rt, "name")
				err := s.Done(s.Clone(id, n, "dom0"))
				agree(rt, err, m.Qubes[n] == nil)
				if err == nil {
					m.add(n, q.Label, q.Props["template"], m.heir(q, q.Class), "created-by-dom0")
				}
			},
			"remove": func(rt *rapid.T) {
				n, q, id := known(rt)
				err := s.Done(s.Remove(id))
				agree(rt, err, !q.Up && !m.needed(n))
				if err == nil {
					delete(m.Qubes, n)
				}
			},
			"set a reference": func(rt *rapid.T) {
				n, _, id := known(rt)
				prop := rapid.SampledFrom([]string{"netvm", "netvm", "template", "default_dispvm", "guivm"}).Draw(rt, "property")
				value := other.Draw(rt, "value")
				agree(rt, s.SetProperty(id, prop, value), m.set(n, prop, &value))
			},
			"set a truth": func(rt *rapid.T) {
				n, _, id := known(rt)
				prop := rapid.SampledFrom([]string{"provides_network", "provides_network", "template_for_dispvms", "autostart", "auto_cleanup"}).Draw(rt, "property")
				value := rapid.SampledFrom([]string{"True", "True", "False"}).Draw(rt, "value")
				agree(rt, s.SetProperty(id, prop, value), m.set(n, prop, &value))
			},
			"set the label": func(rt *rapid.T) {
				n, _, id := known(rt)
				l := label.Draw(rt, "label")
				agree(rt, s.SetProperty(id, "label", l), m.set(n, "label", &l))
			},
			"reset": func(rt *rapid.T) {
				n, _, id := known(rt)
				prop := rapid.SampledFrom([]string{"netvm", "provides_network", "template_for_dispvms", "template", "default_dispvm", "auto_cleanup"}).Draw(rt, "property")
				agree(rt, s.ResetProperty(id, prop), m.set(n, prop, nil))
			},
			"set a global property": func(rt *rapid.T) {
				prop := rapid.SampledFrom([]string{"default_netvm", "default_dispvm", "default_template", "clockvm"}).Draw(rt, "property")
				value := other.Draw(rt, "value")
				if rapid.Bool().Draw(rt, "reset") {
					agree(rt, s.ResetSystemProperty(prop), m.setSystem(prop, nil))
					return
				}
				agree(rt, s.SetSystemProperty(prop, value), m.setSystem(prop, &value))
			},
			"feature": func(rt *rapid.T) {
				_, q, id := known(rt)
				f := rapid.SampledFrom([]string{"x-a", "prohibit-start", "service.cups"}).Draw(rt, "feature")
				if rapid.Bool().Draw(rt, "remove") {
					_, there := q.Features[f]
					agree(rt, s.RemoveFeature(id, f), there)
					delete(q.Features, f)
					return
				}
				v := rapid.SampledFrom([]string{"", "1", "no 'x'"}).Draw(rt, "value")
				agree(rt, s.SetFeature(id, f, v), true)
				q.Features[f] = v
			},
			"tag": func(rt *rapid.T) {
				_, q, id := known(rt)
				tag := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "tag")
				i, there := slices.BinarySearch(q.Tags, tag)
				if rapid.Bool().Draw(rt, "remove") {
					agree(rt, s.RemoveTag(id, tag), there)
					if there {
						q.Tags = slices.Delete(q.Tags, i, i+1)
					}
					return
				}
				agree(rt, s.SetTag(id, tag), true)
				if !there {
					q.Tags = slices.Insert(q.Tags, i, tag)
				}
			},
			"labels": func(rt *rapid.T) {
				l := label.Draw(rt, "label")
				if rapid.Bool().Draw(rt, "remove") {
					used := slices.ContainsFunc(m.names(), func(n string) bool { return m.Qubes[n].Label == l })
					agree(rt, s.RemoveLabel(l), slices.Contains(m.Labels, l) && !used)
					if !used {
						m.Labels = slices.DeleteFunc(m.Labels, func(o string) bool { return o == l })
					}
					return
				}
				agree(rt, s.CreateLabel(l, "0x123456"), !hasLabel(l))
				if !hasLabel(l) {
					m.Labels = append(m.Labels, l)
				}
			},
			"start": func(rt *rapid.T) {
				n, _, id := known(rt)
				err := s.Done(s.Core.Start(id))
				ok := m.start(n)
				agree(rt, err, ok)
				if !ok && m.Qubes[n].Class.HasMachine() {
					m.throwAway(n)
				}
			},
			"shutdown": func(rt *rapid.T) {
				n, q, id := known(rt)
				used := slices.ContainsFunc(m.names(), func(o string) bool {
					return o != n && m.Qubes[o].Up && (m.netvm(m.Qubes[o]) == n || m.Qubes[o].Props["guivm"] == n)
				})
				err := s.Done(s.Shutdown(ctx, id, false))
				agree(rt, err, q.Up && !used)
				if err == nil {
					m.stop(n)
				}
			},
			"kill": func(rt *rapid.T) {
				n, q, id := known(rt)
				err := s.Done(s.Kill(id))
				agree(rt, err, q.Up)
				if err == nil {
					m.stop(n)
				}
			},
			"restart of the daemon": func(rt *rapid.T) {
				s.Close()
				if s, err = coretest.Start(w, dir, core.WallClock{}); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				wait(t, "agents say hello", func() bool {
					return !slices.ContainsFunc(s.View().Qubes(), func(q core.Qube) bool { return q.State() == qube.Transient })
				})
				if d := cmp.Diff(m, seen(s), cmpopts.EquateEmpty()); d != "" {
					rt.Fatalf("the model (-) and the state (+) differ:\n%s", d)
				}
				if err := consistent(s); err != nil {
					rt.Fatal(err)
				}
				for _, b := range w.Breaches() {
					rt.Fatal(b)
				}
				want := 0
				for _, q := range m.Qubes {
					if q.Class.HasMachine() {
						want += 3
					}
				}
				if got := w.Volumes(); len(got) != want {
					rt.Fatalf("%d volumes are there, not %d: %v", len(got), want, got)
				}
			},
		})
	})
}
