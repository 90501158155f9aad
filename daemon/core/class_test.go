package core_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
)

// create makes a qube and returns it.
func create(t *testing.T, s *coretest.System, n core.NewQube) core.Qube {
	t.Helper()
	if n.Label == "" {
		n.Label = "red"
	}
	if err := s.Done(s.Create(n)); err != nil {
		t.Fatal(err)
	}
	return named(t, s, n.Name)
}

func named(t *testing.T, s *coretest.System, name string) core.Qube {
	t.Helper()
	q, ok := s.View().Named(qube.Name(name))
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return q
}

// properties are those with which a qube is made.
type properties = map[string]string

func TestADisposableIsAThrowAwayCopy(t *testing.T) {
	s := coretest.NewSystem(t)
	create(t, s, core.NewQube{Name: "net", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	dvm := create(t, s, core.NewQube{Name: "dvm", Class: "AppVM", Label: "green", Creator: "net",
		Properties: properties{"template_for_dispvms": "True", "memory": "700", "netvm": "net", "ip": "10.1.1.1"}})
	for _, err := range []error{
		s.SetFeature(dvm.UUID(), "service.cups", "1"), s.SetFeature(dvm.UUID(), "preload-dispvm-max", "2"), s.SetTag(dvm.UUID(), "x"),
		s.SetSystemProperty("default_dispvm", "dvm"), s.SetNotes(dvm.UUID(), "mine"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := s.CreateDisposable("", "net") // of its default_dispvm
	if err := s.Done(d.Job, err); err != nil {
		t.Fatal(err)
	}
	q, ok := s.View().Lookup(d.UUID)
	if !ok || q.Name() != d.Name || !strings.HasPrefix(string(d.Name), "disp") || string(d.Name) != "disp"+q.Property("dispid") {
		t.Fatalf("%+v", d)
	}
	for prop, want := range map[string]string{
		"klass": "DispVM", "template": "dvm", "memory": "700", "netvm": "net", "auto_cleanup": "True", "include_in_backups": "False",
		"default_dispvm": "dvm", "label": "green", "icon": "dispvm-green", "updateable": "False",
	} {
		if got := q.Property(prop); got != want {
			t.Errorf("%s is %q, want %q", prop, got, want)
		}
	}
	if ip := q.Property("ip"); !strings.HasPrefix(ip, "10.138.") {
		t.Errorf("its address is %s", ip)
	}
	if got, want := strings.Join(q.Tags(), " "), "audiovm-dom0 created-by-net disp-created-by-net guivm-dom0 x"; got != want {
		t.Errorf("its tags are %s, want %s", got, want)
	}
	if f := q.Features(); len(f) != 1 || f["service.cups"] != "1" {
		t.Errorf("its features are %v", f)
	}
	for _, v := range q.Volumes() {
		source := map[string]string{"root": "vm-templates/debian-12/root", "private": "appvms/dvm/private"}[v.Name]
		if v.Spec.SaveOnStop || string(v.Spec.Source) != source {
			t.Errorf("its volume %s is %+v", v.Name, v.Spec)
		}
	}
	// It is in use, and then gone with its end.
	if _, err := s.Remove(dvm.UUID()); core.KindOf(err) != core.InUse {
		t.Errorf("its template can be removed: %v", err)
	}
	if err := s.SetProperty(dvm.UUID(), "template_for_dispvms", "False"); core.KindOf(err) != core.InUse {
		t.Errorf("its template need not be one: %v", err)
	}
	if err := s.Done(s.Core.Start(d.UUID)); err != nil {
		t.Fatal(err)
	}
	if s.State(named(t, s, "net").UUID()) != qube.Running {
		t.Error("it runs and its netvm does not")
	}
	if err := s.SetProperty(dvm.UUID(), "template", "debian-12"); core.KindOf(err) != core.InUse {
		t.Errorf("its template can be changed below it: %v", err)
	}
	if err := s.Done(s.Shutdown(context.Background(), d.UUID, false)); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.View().Lookup(d.UUID); ok {
		t.Error("it is there after its end")
	}
	for _, v := range s.World.Volumes() {
		if strings.Contains(v, string(d.Name)) {
			t.Errorf("it left %s", v)
		}
	}
}

func TestADisposableThatCannotStartIsRemoved(t *testing.T) {
	s := coretest.NewSystem(t)
	dvm := create(t, s, core.NewQube{Name: "dvm", Class: "AppVM", Properties: properties{"template_for_dispvms": "True"}})
	if err := s.SetFeature(dvm.UUID(), "prohibit-start", "no"); err != nil {
		t.Fatal(err)
	}
	d, err := s.CreateDisposable(dvm.UUID(), "dom0")
	if err := s.Done(d.Job, err); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Core.Start(d.UUID)); core.KindOf(err) != core.VMError {
		t.Errorf("it started: %v", err)
	}
	if _, ok := s.View().Lookup(d.UUID); ok {
		t.Error("it is there")
	}
}

// What a session leaves of disposables is removed by the next one; a restart
// of the daemon alone removes none.
func TestDisposablesOfTheLastSession(t *testing.T) {
	w, dir, s := begun(t)
	dvm := create(t, s, core.NewQube{Name: "dvm", Class: "AppVM", Properties: properties{"template_for_dispvms": "True"}})
	kept := create(t, s, core.NewQube{Name: "kept", Class: "DispVM", Template: "dvm"})
	var ids []qube.UUID
	for range 2 {
		d, err := s.CreateDisposable(dvm.UUID(), "dom0")
		if err := s.Done(d.Job, err); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.UUID)
	}
	if err := s.Autostart("first"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the first session has none", func() bool { return len(s.View().Qubes()) == 3 })
	d, err := s.CreateDisposable(dvm.UUID(), "dom0")
	if err := s.Done(d.Job, err); err != nil {
		t.Fatal(err)
	}
	// One that ends while no daemon looks.
	e, err := s.CreateDisposable(dvm.UUID(), "dom0")
	if err := s.Done(e.Job, err); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Core.Start(e.UUID)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Engine.Crash(string(e.UUID), "crashed")
	s = again(t, w, dir)
	defer s.Close()
	if err := s.Autostart("first"); err != nil {
		t.Fatal(err)
	}
	for id, there := range map[qube.UUID]bool{ids[0]: false, ids[1]: false, d.UUID: true, e.UUID: false, kept.UUID(): true} {
		if _, ok := s.View().Lookup(id); ok != there {
			t.Errorf("%s is there: %v, want %v", id, ok, there)
		}
	}
}

func TestAStandaloneIsACopyOfItsTemplate(t *testing.T) {
	s := coretest.NewSystem(t)
	template := named(t, s, "debian-12")
	if err := s.SetFeature(template.UUID(), "os", "Linux"); err != nil {
		t.Fatal(err)
	}
	q := create(t, s, core.NewQube{Name: "alone", Class: "StandaloneVM", Template: "debian-12", Properties: properties{"memory": "900"}})
	root, _ := q.Volume("root")
	source, _ := template.Volume("root")
	if !root.Spec.SaveOnStop || root.Spec.Size != source.Spec.Size || q.TemplateName() != "" {
		t.Errorf("its root is %+v", root.Spec)
	}
	if os, _ := q.Feature("os"); os != "Linux" || q.Property("memory") != "900" || q.Property("updateable") != "True" {
		t.Errorf("features %v, memory %s", q.Features(), q.Property("memory"))
	}
	// A template that it came from may go; an AppVM's copy has the AppVM's root.
	app := create(t, s, core.NewQube{Name: "app", Class: "AppVM"})
	again := create(t, s, core.NewQube{Name: "again", Class: "StandaloneVM", Template: string(app.Name())})
	if root, _ := again.Volume("root"); root.Spec.Size != source.Spec.Size {
		t.Errorf("its root has %d bytes", root.Spec.Size)
	}
	empty := create(t, s, core.NewQube{Name: "empty", Class: "StandaloneVM"})
	if err := s.Done(s.Core.Start(empty.UUID())); err != nil {
		t.Error(err)
	}
	if err := s.Done(s.Kill(empty.UUID())); err != nil {
		t.Error(err)
	}
}

func TestARemoteQubeHasNoMachine(t *testing.T) {
	s := coretest.NewSystem(t)
	create(t, s, core.NewQube{Name: "relay", Class: "AppVM"})
	q := create(t, s, core.NewQube{Name: "far", Class: "RemoteVM", Properties: properties{"relayvm": "relay", "transport_rpc": "x.Relay", "remote_name": "work"}})
	if q.State() != qube.Running || len(q.Volumes()) > 0 || q.Property("include_in_backups") != "False" || q.Property("icon") != "remotevm-red" {
		t.Errorf("%s, volumes %v", q.State(), q.Volumes())
	}
	if !slices.Contains(q.Tags(), "relayvm-relay") {
		t.Errorf("its tags are %v", q.Tags())
	}
	_, start := s.Core.Start(q.UUID())
	_, kill := s.Kill(q.UUID())
	_, pause := s.Pause(q.UUID())
	_, shutdown := s.Shutdown(context.Background(), q.UUID(), true)
	for what, err := range map[string]error{"start": start, "kill": kill, "pause": pause, "shutdown": shutdown} {
		if core.KindOf(err) != core.VMError {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.SetProperty(named(t, s, "relay").UUID(), "netvm", "far"); core.KindOf(err) != core.BadProperty {
		t.Errorf("it gives network: %v", err)
	}
	if _, err := s.Remove(named(t, s, "relay").UUID()); core.KindOf(err) != core.InUse {
		t.Errorf("its relay can be removed: %v", err)
	}
	if err := s.Done(s.Remove(q.UUID())); err != nil {
		t.Error(err)
	}
}

func TestNetworkStartsFirstAndStopsLast(t *testing.T) {
	s := coretest.NewSystem(t)
	net := create(t, s, core.NewQube{Name: "net", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	wall := create(t, s, core.NewQube{Name: "wall", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": "net"}})
	work := create(t, s, core.NewQube{Name: "work", Class: "AppVM", Properties: properties{"netvm": "wall"}})
	sub := s.Subscribe()
	defer sub.Close()
	order := func(events ...string) string {
		list, _, err := sub.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			if slices.Contains(events, e.Name) {
				names = append(names, strings.TrimPrefix(e.Name, "domain-")+" "+string(e.Subject))
			}
		}
		return strings.Join(names, ", ")
	}
	if err := s.Done(s.Core.Start(work.UUID())); err != nil {
		t.Fatal(err)
	}
	if got := order("domain-start", "net-domain-connect"); got != "start net, start wall, net-domain-connect net, start work, net-domain-connect wall" {
		t.Errorf("started: %s", got)
	}
	if _, err := s.Shutdown(context.Background(), wall.UUID(), false); core.KindOf(err) != core.InUse {
		t.Errorf("the network of a running qube can be shut down: %v", err)
	}
	other := create(t, s, core.NewQube{Name: "other", Class: "AppVM", Properties: properties{"provides_network": "True", "netvm": ""}})
	if err := s.SetProperty(work.UUID(), "netvm", "other"); core.KindOf(err) != core.NotRunning {
		t.Errorf("a running qube changes to a halted network: %v", err)
	}
	if err := s.SetProperty(net.UUID(), "netvm", "wall"); core.KindOf(err) != core.BadProperty {
		t.Errorf("a ring: %v", err)
	}
	if err := s.SetSystemProperty("default_netvm", "other"); err != nil {
		t.Error(err)
	}
	if err := s.ResetProperty(other.UUID(), "netvm"); core.KindOf(err) != core.BadProperty {
		t.Errorf("a ring by default: %v", err)
	}
	if err := s.StopAll(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := order("domain-shutdown"); got != "shutdown work, shutdown wall, shutdown net" {
		t.Errorf("stopped: %s", got)
	}
	// One that cannot start keeps the others from it.
	if err := s.SetFeature(net.UUID(), "prohibit-start", "broken"); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Core.Start(work.UUID())); err == nil || !strings.Contains(err.Error(), "net") || s.State(wall.UUID()) != qube.Halted {
		t.Errorf("started without network: %v", err)
	}
	if err := s.SetTag(wall.UUID(), "backup-restore-in-progress"); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Core.Start(wall.UUID())); core.KindOf(err) != core.VMError || !strings.Contains(err.Error(), "restored") {
		t.Errorf("started while it is being restored: %v", err)
	}
}

func TestLabels(t *testing.T) {
	s := coretest.NewSystem(t)
	for _, c := range []struct {
		name, color string
		kind        core.Kind
	}{
		{"pink", "0xff00ff", ""}, {"pink", "0x000000", core.LabelInUse}, {"red", "0x000000", core.LabelInUse},
		{"9", "0x000000", core.InvalidLabel}, {"a b", "0x000000", core.InvalidLabel}, {"mint", "green", core.InvalidLabelValue}, {"mint", "0x00ff00", ""},
	} {
		if err := s.CreateLabel(c.name, c.color); (err != nil) != (c.kind != "") || err != nil && core.KindOf(err) != c.kind {
			t.Errorf("%s %s: %v", c.name, c.color, err)
		}
	}
	q := create(t, s, core.NewQube{Name: "work", Class: "AppVM", Label: "pink"})
	if l := q.Label(); l.Index != 9 || l.Hex() != "0xff00ff" || q.Property("icon") != "appvm-pink" {
		t.Errorf("%+v", l)
	}
	for name, kind := range map[string]core.Kind{"pink": core.LabelInUse, "red": core.ProtocolViolation, "gone": core.LabelNotFound} {
		if err := s.RemoveLabel(name); core.KindOf(err) != kind {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if err := s.SetProperty(q.UUID(), "label", "10"); err != nil || named(t, s, "work").Label().Name != "mint" {
		t.Errorf("by its index: %v", err)
	}
	if err := s.RemoveLabel("pink"); err != nil {
		t.Error(err)
	}
	if err := s.CreateLabel("blueish", "0x0000ff"); err != nil {
		t.Error(err)
	}
	if l, ok := s.View().Label("blueish"); !ok || l.Index != 11 {
		t.Errorf("%+v", l)
	}
}

func TestWhatCreatorsSayOfNewQubes(t *testing.T) {
	s := coretest.NewSystem(t)
	gui := create(t, s, core.NewQube{Name: "gui", Class: "AppVM"})
	for f, v := range map[string]string{"set-created-guivm": "gui", "tag-created-vm-with": "mine theirs"} {
		if err := s.SetFeature(gui.UUID(), f, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetSystemProperty("check_updates_vm", "no"); err != nil {
		t.Fatal(err)
	}
	q := create(t, s, core.NewQube{Name: "work", Class: "AppVM", Creator: "gui", Properties: properties{"qid": "77", "uuid": "01234567-89ab-4def-8123-456789abcdef"}})
	if got := strings.Join(q.Tags(), " "); got != "audiovm-dom0 created-by-gui guivm-gui mine theirs" {
		t.Errorf("its tags are %s", got)
	}
	if v, ok := q.Feature("check-updates"); !ok || v != "" || q.QID() != 77 || q.UUID() != "01234567-89ab-4def-8123-456789abcdef" {
		t.Errorf("features %v, qid %d, uuid %s", q.Features(), q.QID(), q.UUID())
	}
	for what, p := range map[string]properties{"qid": {"qid": "77"}, "uuid": {"uuid": string(q.UUID())}} {
		if err := s.Done(s.Create(core.NewQube{Name: "other", Class: "AppVM", Label: "red", Properties: p})); core.KindOf(err) != core.AlreadyExists {
			t.Errorf("a second one with the same %s: %v", what, err)
		}
	}
	for what, p := range map[string]properties{"qid": {"qid": "0"}, "uuid": {"uuid": string(qube.Dom0UUID)}, "xid": {"xid": "5"}} {
		if err := s.Done(s.Create(core.NewQube{Name: "other", Class: "AppVM", Label: "red", Properties: p})); core.KindOf(err) != core.BadProperty {
			t.Errorf("one with a bad %s: %v", what, err)
		}
	}
	if err := s.SetFeature(gui.UUID(), "tag-created-vm-with", "created-by-dom0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(s.Create(core.NewQube{Name: "other", Class: "AppVM", Label: "red", Creator: "gui"})); core.KindOf(err) != core.InvalidTag {
		t.Errorf("a creator gives itself rights: %v", err)
	}
}
