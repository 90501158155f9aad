package core_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
)

// Events have upstream's names and arguments (spec/admin-api.md §7), also of
// what follows from a change.
func TestEventsOfAChange(t *testing.T) {
	s := coretest.NewSystem(t)
	net := create(t, s, core.NewQube{Name: "net", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	work := create(t, s, core.NewQube{Name: "work", Class: "AppVM", Label: "blue"})
	template := named(t, s, "debian-12")
	id := work.UUID()
	dom0, _ := s.View().Lookup(qube.Dom0UUID)
	sub := s.Subscribe()
	defer sub.Close()
	for _, c := range []struct {
		what string
		do   func() error
		want string
	}{
		{"set", func() error { return s.SetProperty(id, "memory", "500") },
			"work property-pre-set:memory name=memory newvalue=500 oldvalue=400; work property-set:memory name=memory newvalue=500 oldvalue=400"},
		{"reset", func() error { return s.ResetProperty(id, "memory") },
			"work property-pre-reset:memory name=memory oldvalue=500; work property-pre-del:memory name=memory oldvalue=500; " +
				"work property-reset:memory name=memory oldvalue=500; work property-del:memory name=memory oldvalue=500"},
		{"a reference", func() error { return s.SetProperty(id, "default_dispvm", "") },
			"work property-pre-set:default_dispvm name=default_dispvm newvalue=None oldvalue=None; work property-set:default_dispvm name=default_dispvm newvalue=None oldvalue=None"},
		{"the template's", func() error { return s.SetProperty(template.UUID(), "vcpus", "3") },
			"debian-12 property-set:vcpus name=vcpus newvalue=3 oldvalue=2; net property-reset:vcpus name=vcpus oldvalue=2; work property-reset:vcpus name=vcpus oldvalue=2"},
		{"the label", func() error { return s.SetProperty(id, "label", "red") },
			"work property-set:label name=label newvalue=red oldvalue=blue; work property-reset:icon name=icon oldvalue=appvm-blue"},
		{"the system's", func() error { return s.SetSystemProperty("default_qrexec_timeout", "90") },
			" property-set:default_qrexec_timeout name=default_qrexec_timeout newvalue=90 oldvalue=60; debian-12 property-reset:qrexec_timeout name=qrexec_timeout oldvalue=60; " +
				"net property-reset:qrexec_timeout name=qrexec_timeout oldvalue=60; work property-reset:qrexec_timeout name=qrexec_timeout oldvalue=60"},
		{"the default network", func() error { return s.SetSystemProperty("default_netvm", "net") },
			" property-set:default_netvm name=default_netvm newvalue=net oldvalue=None; work property-reset:netvm name=netvm oldvalue=None; work property-reset:ip name=ip oldvalue=; " +
				"work property-reset:visible_gateway name=visible_gateway oldvalue=; work property-reset:visible_netmask name=visible_netmask oldvalue=; work property-reset:dns name=dns oldvalue=; " +
				"work property-reset:visible_ip name=visible_ip oldvalue="},
		{"a fake address", func() error { return s.SetFeature(net.UUID(), "net.fake-ip", "10.9.9.9") },
			"net domain-feature-pre-set:net.fake-ip feature=net.fake-ip value=10.9.9.9; net domain-feature-set:net.fake-ip feature=net.fake-ip value=10.9.9.9; " +
				"net property-reset:visible_ip name=visible_ip oldvalue=10.137.0.2; net property-reset:gateway name=gateway oldvalue=10.137.0.2; " +
				"work property-reset:visible_gateway name=visible_gateway oldvalue=10.137.0.2"},
		{"a feature again", func() error { return s.SetFeature(id, "x", "") }, "work domain-feature-pre-set:x feature=x value=; work domain-feature-set:x feature=x value="},
		{"a feature removed", func() error { return s.RemoveFeature(id, "x") }, "work domain-feature-pre-delete:x feature=x; work domain-feature-delete:x feature=x"},
		{"a tag", func() error { return s.SetTag(id, "x") }, "work domain-tag-add:x tag=x"},
		{"the screen", func() error { return s.SetProperty(id, "guivm", "net") },
			"work property-set:guivm name=guivm newvalue=net oldvalue=dom0; work domain-tag-delete:guivm-dom0 tag=guivm-dom0; work domain-tag-add:guivm-net tag=guivm-net"},
		{"the keyboard", func() error { return s.SetProperty(net.UUID(), "keyboard_layout", "de") },
			"net property-set:keyboard_layout name=keyboard_layout newvalue=de++ oldvalue=us++; work property-reset:keyboard_layout name=keyboard_layout oldvalue=us++"},
		{"the clock", func() error { return s.SetSystemProperty("clockvm", "net") },
			" property-set:clockvm name=clockvm newvalue=net oldvalue=None; net domain-feature-pre-set:service.clocksync feature=service.clocksync value=1; net domain-feature-set:service.clocksync feature=service.clocksync value=1"},
		{"another clock", func() error { return s.SetSystemProperty("clockvm", "work") },
			" property-set:clockvm name=clockvm newvalue=work oldvalue=net; net domain-feature-pre-delete:service.clocksync feature=service.clocksync; net domain-feature-delete:service.clocksync feature=service.clocksync; " +
				"work domain-feature-pre-set:service.clocksync feature=service.clocksync value=1; work domain-feature-set:service.clocksync feature=service.clocksync value=1"},
		{"dom0's", func() error { return s.SetFeature(dom0.UUID(), "x", "1") }, "dom0 domain-feature-pre-set:x feature=x value=1; dom0 domain-feature-set:x feature=x value=1"},
		{"a network less", func() error { return s.SetProperty(id, "provides_network", "True") },
			"work property-set:provides_network name=provides_network newvalue=True oldvalue=False; work domain-feature-pre-set:servicevm feature=servicevm value=1; work domain-feature-set:servicevm feature=servicevm value=1; " +
				"work property-reset:gateway name=gateway oldvalue=; work property-reset:icon name=icon oldvalue=appvm-red"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			list, _, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range list {
				if e.Name == "" {
					continue
				}
				text := string(e.Subject) + " " + e.Name
				for _, a := range e.Args {
					text += " " + a.Key + "=" + a.Value
				}
				got = append(got, text)
			}
			want := strings.Split(c.want, "; ")
			if !strings.Contains(c.want, "property-pre-") { // told once above
				got = slices.DeleteFunc(got, func(e string) bool {
					return strings.Contains(e, "property-pre-") || strings.Contains(e, "property-del:")
				})
			}
			if !slices.Equal(got, want) {
				t.Errorf("events:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// The service that gives memory back follows maxmem, and is not kept itself.
func TestTheBalloonServiceIsMaxmem(t *testing.T) {
	s := coretest.NewSystem(t)
	id := newQube(t, s, "work")
	if err := s.SetProperty(id, "maxmem", "3000"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetFeature(id, "service.meminfo-writer", ""); err != nil || named(t, s, "work").Property("maxmem") != "0" {
		t.Errorf("maxmem is %s: %v", named(t, s, "work").Property("maxmem"), err)
	}
	if err := s.SetFeature(id, "service.meminfo-writer", "1"); err != nil {
		t.Fatal(err)
	}
	if _, explicit := named(t, s, "work").Explicit("maxmem"); explicit {
		t.Error("maxmem stays 0")
	}
	if _, kept := named(t, s, "work").Feature("service.meminfo-writer"); kept {
		t.Error("the feature is kept")
	}
	for _, bad := range []string{"service.", "service..", "service." + strings.Repeat("a", 49), "", "a b"} {
		if err := s.SetFeature(id, bad, "1"); core.KindOf(err) != core.BadValue {
			t.Errorf("feature %q: %v", bad, err)
		}
	}
}

// Tags that follow a property cannot be forged, whatever a file says.
func TestTagsThatFollowProperties(t *testing.T) {
	s := coretest.NewSystem(t)
	id := newQube(t, s, "work")
	if err := s.SetTag(id, "guivm-dom0"); err != nil {
		t.Errorf("what is there already: %v", err)
	}
	if err := s.SetTag(id, "guivm-other"); core.KindOf(err) != core.PermissionDenied {
		t.Errorf("a forged tag: %v", err)
	}
	if err := s.RemoveTag(id, "guivm-dom0"); core.KindOf(err) != core.PermissionDenied {
		t.Errorf("a removed tag: %v", err)
	}
	if err := s.RemoveTag(id, "guivm-other"); core.KindOf(err) != core.TagNotFound {
		t.Errorf("a missing tag: %v", err)
	}
}

func TestFeatureChains(t *testing.T) {
	s := coretest.NewSystem(t)
	create(t, s, core.NewQube{Name: "net", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	create(t, s, core.NewQube{Name: "dvm", Class: "AppVM", Properties: properties{"template_for_dispvms": "True", "netvm": "net"}})
	disp := create(t, s, core.NewQube{Name: "disp", Class: "DispVM", Template: "dvm"}).UUID()
	for name, f := range map[string]string{"dom0": "a", "debian-12": "t", "dvm": "d", "net": "n"} {
		if err := s.SetFeature(named(t, s, name).UUID(), f, name); err != nil {
			t.Fatal(err)
		}
	}
	q, _ := s.View().Lookup(disp)
	for _, c := range []struct {
		feature string
		look    func(string) (string, bool)
		want    string
	}{
		{"t", q.FeatureWithTemplate, "debian-12"}, {"d", q.FeatureWithTemplate, "dvm"}, {"a", q.FeatureWithTemplate, ""}, {"n", q.FeatureWithNetVM, "net"},
		{"t", q.FeatureWithNetVM, ""}, {"a", q.FeatureWithAdmin, "dom0"}, {"t", q.FeatureWithAdmin, ""}, {"t", q.FeatureWithTemplateAndAdmin, "debian-12"},
		{"a", q.FeatureWithTemplateAndAdmin, "dom0"}, {"x", q.FeatureWithTemplateAndAdmin, ""},
	} {
		if got, ok := c.look(c.feature); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.feature, got, ok, c.want)
		}
	}
}

// A reader that does not read is left behind, and told so; meanwhile what only
// says "look again" is kept once.
func TestSlowReaders(t *testing.T) {
	s := coretest.NewSystem(t)
	id := newQube(t, s, "work")
	sub := s.Subscribe()
	defer sub.Close()
	quick := s.Subscribe()
	defer quick.Close()
	start := time.Now()
	for n := range 30_000 { // four events each
		core.Announce(s.Core, id, fmt.Sprint(n))
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the daemon was blocked for %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := sub.Next(ctx); core.KindOf(err) != core.General {
		t.Errorf("a reader that was left behind: %v", err)
	}
	again := s.Subscribe()
	defer again.Close()
	for range 1000 {
		core.Look(s.Core, id)
	}
	if list, _, err := again.Next(ctx); err != nil || len(list) != 1 {
		t.Errorf("%d events, %v", len(list), err)
	}
}

// A qube must not become what an old setting means by its name.
func TestANameThatIsStillMeant(t *testing.T) {
	w, dir, s := begun(t)
	create(t, s, core.NewQube{Name: "net", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	work := create(t, s, core.NewQube{Name: "work", Class: "AppVM", Properties: properties{"netvm": "net"}})
	s.Close()
	if err := os.RemoveAll(filepath.Join(dir, "state/appvms/net")); err != nil {
		t.Fatal(err)
	}
	w.Lose("appvms/net/")
	s = again(t, w, dir)
	defer s.Close()
	if err := s.Done(s.Core.Start(work.UUID())); core.KindOf(err) != core.VMError || !strings.Contains(err.Error(), "net") {
		t.Errorf("started without its network: %v", err)
	}
	if err := s.Done(s.Create(core.NewQube{Name: "net", Class: "AppVM", Label: "red"})); core.KindOf(err) != core.InUse {
		t.Errorf("another qube takes the name: %v", err)
	}
	create(t, s, core.NewQube{Name: "net", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	if err := s.Done(s.Core.Start(work.UUID())); err != nil {
		t.Error(err)
	}
}
