package manager

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/control"
	"cubicle/app/dom0"
)

// The pages of the settings, as they stand in the sheet.
const (
	pageBasic = iota
	pageApps
	pageNetwork
	pageFirewall
	pageDevices
	pageVolumes
	pageMemory
	pageIsolation
	pageFeatures
	pagePolicy
	pageAll
)

// configure opens the settings of the qube of that name on a page.
func (r *rig) configure(name string, page int) {
	r.t.Helper()
	r.fake.SetInside(dom0.Name(name), interior())
	r.pick(name)
	r.control(fyne.KeyComma)
	if r.m.config == nil {
		r.t.Fatalf("the settings of %s do not open", name)
	}
	test.Tap(r.m.config.chips[page])
}

// field is a property's field on the page in sight.
func (r *rig) field(name string) *field {
	r.t.Helper()
	page := r.m.config.pages[r.m.config.at].(*form)
	i := slices.IndexFunc(page.fields, func(f *field) bool { return f.row.Name == name })
	if i < 0 {
		r.t.Fatalf("there is no field for %s", name)
	}
	return page.fields[i]
}

func TestSettingsHoldAtOnce(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageBasic)
	r.mustSay("Settings of vault")
	test.Tap(r.field("autostart").check)
	r.asked("set vault autostart False")
	r.field("label").colours.Select("green")
	r.asked("set vault label green")
	network := r.field("netvm").choice
	if !slices.Equal(network.Options, []string{"Default (offline)", "offline", "sys-net"}) {
		t.Errorf("networks: %q", network.Options)
	}
	network.SetSelected("sys-net")
	r.asked("set vault netvm sys-net")
	network.SetSelected(network.Options[0])
	r.asked("reset vault netvm")

	test.Tap(r.m.config.chips[pageMemory])
	memory := r.field("memory")
	r.canvas.Focus(memory.entry)
	memory.entry.SetText("lots")
	if memory.said != "Press Enter to change it." || !r.reads(memory.said) {
		t.Errorf("below the field stands %q", memory.said)
	}
	r.press(fyne.KeyReturn)
	r.asked()
	if !memory.bad || memory.entry.Text != "lots" {
		t.Errorf("a refusal shows %q, the entry %q", memory.said, memory.entry.Text)
	}
	memory.entry.SetText("600")
	r.press(fyne.KeyReturn)
	r.asked("set vault memory 600")
	if r.canvas.Focused() != fyne.Focusable(memory.entry) {
		t.Error("the keyboard left the field")
	}
	test.Tap(memory.reset)
	r.asked("reset vault memory")
	if memory.entry.Text != "400" || memory.reset.Visible() {
		t.Errorf("the default shows as %q", memory.entry.Text)
	}
	// What was typed and not confirmed is taken when the page is left.
	r.field("vcpus").entry.SetText("3")
	test.Tap(r.m.config.chips[pageIsolation])
	r.asked("set vault vcpus 3")
	if got := r.field("engine").choice.Options; !slices.Contains(got, "gVisor (runsc)") {
		t.Errorf("engines: %q", got)
	}
	r.press(fyne.KeyEscape)
	if r.m.sheet != nil || r.m.config != nil {
		t.Error("Esc leaves the sheet open")
	}
}

func TestARefusedChoiceIsNotShown(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageBasic)
	r.fake.Refuse("set", &dom0.Error{Op: "set", Subject: "vault", Reason: "sys-net does not provide network"})
	network := r.field("netvm")
	before := network.choice.Selected
	network.choice.SetSelected("sys-net")
	if network.choice.Selected != before {
		t.Errorf("%q shows", network.choice.Selected)
	}
	if !r.reads("Sys-net does not provide network.") {
		t.Errorf("below the field stands %q", network.said)
	}
}

func TestAQuestionOfTheSettingsLeadsBackToThem(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageVolumes)
	own := r.m.sheet
	r.tap("Revert …")
	r.mustSay("Revert Files (private) of vault?")
	r.press(fyne.KeyEscape)
	if r.m.sheet != own || r.m.config == nil {
		t.Fatal("Esc closes the settings with the question")
	}
	r.mustSay("Settings of vault")
	test.Tap(r.m.config.chips[pageAll])
	section := r.m.config.pages[pageAll].(*settings)
	section.search.SetText("vcpus")
	r.canvas.Focus(section.search)
	r.press(fyne.KeyReturn)
	r.canvas.Focused().(*control.Entry).SetText("4")
	r.tap("Set")
	r.asked("set vault vcpus 4")
	r.mustSay("Settings of vault")
}

func TestFeaturesAreSetAndTakenAway(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageFeatures)
	for _, name := range []string{"service.cups", "service.network-manager", "gui-default-allow-utf8-titles"} {
		if err := r.fake.RemoveFeature(t.Context(), "id-vault", name); err != nil {
			t.Fatal(err)
		}
	}
	r.fake.Calls()
	test.Tap(r.m.config.chips[pageFeatures])
	page := r.m.config.pages[pageFeatures].(*features)
	r.mustSay("The qube has no features of its own.")
	r.canvas.Focus(page.name)
	r.write("service.cups")
	r.press(fyne.KeyReturn) // the value is next
	r.press(fyne.KeyReturn)
	r.asked("set-feature vault service.cups \"1\"")
	if page.name.Text != "" || r.canvas.Focused() != fyne.Focusable(page.name) {
		t.Error("the fields are not ready for the next one")
	}
	r.write("gui-color")
	r.press(fyne.KeyReturn)
	r.write("blue green")
	r.press(fyne.KeyReturn)
	r.asked("set-feature vault gui-color \"blue green\"")
	if len(page.shown) != 2 || !r.reads("gui-color") {
		t.Fatalf("%d features show: %q", len(page.shown), r.drawn())
	}
	for _, o := range r.objects() {
		switch w := o.(type) {
		case *control.Check:
			test.Tap(w)
			r.asked("set-feature vault service.cups \"\"")
		case *control.Entry:
			if w.Text == "blue green" {
				w.SetText("blue")
				w.OnSubmitted(w.Text)
				r.asked("set-feature vault gui-color \"blue\"")
			}
		}
	}
	for range 2 {
		for _, o := range r.objects() {
			if b, ok := o.(*control.Button); ok && b.Icon != nil && b.Icon.Name() == control.Icon("trash").Name() {
				test.Tap(b)
				break
			}
		}
	}
	r.asked("remove-feature vault gui-color", "remove-feature vault service.cups")
	r.mustSay("The qube has no features of its own.")
	r.fake.Refuse("set-feature", &dom0.Error{Reason: "a feature's name has no spaces"})
	r.canvas.Focus(page.name)
	r.write("bad name")
	r.press(fyne.KeyReturn, fyne.KeyReturn)
	r.asked("set-feature vault bad name \"1\"")
	r.mustSay("A feature's name has no spaces.")
	if page.name.Text != "bad name" {
		t.Error("what was refused is gone")
	}
}

func TestFirewallRulesAreWrittenAsText(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageFirewall)
	page := r.m.config.pages[pageFirewall].(*firewall)
	if page.text.Text != "action=accept" || !page.apply.Disabled() {
		t.Fatalf("the rules are %q", page.text.Text)
	}
	page.text.SetText("action=accept dsthost=example.org\naction=drop")
	// What is not applied yet stays while other pages are looked at.
	test.Tap(r.m.config.chips[pageBasic])
	test.Tap(r.m.config.chips[pageFirewall])
	r.fake.Refuse("set-firewall", &dom0.Error{Reason: "line 1: no such host"})
	r.tap("Apply")
	r.mustSay("Line 1: no such host.")
	r.fake.Refuse("set-firewall", nil)
	r.tap("Apply")
	rules := "set-firewall vault \"action=accept dsthost=example.org\\naction=drop\""
	r.asked(rules, rules)
	if !page.apply.Disabled() || r.says("Line 1: no such host.") {
		t.Error("the page does not see that the rules hold")
	}
	page.text.SetText("nonsense")
	r.tap("Undo")
	if page.text.Text != "action=accept dsthost=example.org\naction=drop" {
		t.Errorf("undone is %q", page.text.Text)
	}
}

func TestSettingsFollowTheQube(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageBasic)
	if r.field("template").choice.Disabled() {
		t.Error("the template of a halted qube cannot be changed")
	}
	r.fake.Edit(func(s *dom0.Snapshot) {
		i := slices.IndexFunc(s.Qubes, func(q dom0.Qube) bool { return q.Name == "vault" })
		s.Qubes[i].State = dom0.Running
	})
	if f := r.field("template"); !f.choice.Disabled() || !strings.Contains(f.said, "while the qube is off") {
		t.Errorf("the template of a running qube can be changed; below it stands %q", f.said)
	}
	r.fake.Edit(func(s *dom0.Snapshot) {
		s.Qubes = slices.DeleteFunc(s.Qubes, func(q dom0.Qube) bool { return q.Name == "vault" })
	})
	if r.m.sheet != nil {
		t.Error("the settings of a removed qube stay open")
	}
}

func TestSettingsOpenByName(t *testing.T) {
	s := household()
	s.Link = dom0.Connecting
	r := dark(t, s)
	r.m.OpenSettings("work")
	if r.m.config != nil {
		t.Error("settings open before the daemon is there")
	}
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link = dom0.Connected })
	if r.m.config == nil || r.m.config.subject.Name != "work" {
		t.Fatal("the settings do not open")
	}
	r.m.OpenSettings("vault")
	if r.m.config.subject.Name != "vault" {
		t.Error("the settings of another qube do not open")
	}
	r.m.closeSheet()
	r.m.OpenSettings("nobody")
	r.mustSay("Could not open the settings of nobody")
	if r.m.config != nil {
		t.Error("the settings of nobody are open")
	}
}

func TestAPageThatCannotBeReadSaysWhy(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageBasic)
	r.fake.Refuse("properties", errors.New("the disk is gone"))
	test.Tap(r.m.config.chips[pageMemory])
	r.mustSay("The disk is gone.")
	r.fake.Refuse("properties", nil)
	r.tap("Retry")
	r.field("memory")
}

func TestTheLooksOfTheSettings(t *testing.T) {
	for name, variant := range map[string]fyne.ThemeVariant{"dark-en": fynetheme.VariantDark, "light-de": fynetheme.VariantLight} {
		for page, word := range map[int]string{pageBasic: "basic", pageIsolation: "isolation", pageDevices: "devices", pagePolicy: "policy"} {
			r := openIn(t, household(), variant, name[len(name)-2:], fyne.NewSize(1040, 700))
			r.configure("vault", page)
			test.AssertRendersToMarkup(t, "config-"+word+"-"+name+".xml", r.canvas)
		}
	}
}

// Tab goes as people read: pages, fields, Close.
func TestTabGoesAsPeopleRead(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageMemory)
	r.canvas.Focus(r.m.config.chips[pageAll])
	var order []string
	for range 4 {
		r.canvas.FocusNext()
		switch o := r.canvas.Focused().(type) {
		case *control.Entry:
			i := slices.IndexFunc(r.m.config.pages[pageMemory].(*form).fields, func(f *field) bool { return f.entry == o })
			order = append(order, r.m.config.pages[pageMemory].(*form).fields[i].row.Name)
		case *control.Button:
			order = append(order, o.Text)
		default:
			t.Fatalf("the focus is on %T", o)
		}
	}
	// The memory has a value of its own, so that its way back stands beside it.
	if want := []string{"memory", "Default", "maxmem", "vcpus"}; !slices.Equal(order, want) {
		t.Errorf("Tab went to %q, want %q", order, want)
	}
	r.canvas.FocusNext()
	if r.canvas.Focused() != fyne.Focusable(r.m.config.close) {
		t.Errorf("the last one is %T", r.canvas.Focused())
	}

	r.m.closeSheet()
	r.lookInside("vault", inApps)
	section := r.m.pane.sections[inApps].(*apps)
	r.canvas.Focus(r.m.pane.chips[len(r.m.pane.chips)-1])
	r.canvas.FocusNext()
	if r.canvas.Focused() != fyne.Focusable(section.search) {
		t.Errorf("behind the chips of the pane stands %T, want the search", r.canvas.Focused())
	}
	r.canvas.Focus(r.m.tools.more)
	r.canvas.FocusNext()
	if r.canvas.Focused() != fyne.Focusable(r.m.filter) {
		t.Errorf("behind the toolbar stands %T, want the filter", r.canvas.Focused())
	}
}

func TestDevicesAreAssignedAndTakenAway(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pageDevices)
	r.mustSay("Backup disk")
	r.mustSay("Disks · dom0:sda1 · 2.0 TB")
	r.mustSay("vault cannot start while it requires this device: a sandbox sees files, not devices.")
	r.mustSay("USB · sys-usb:2-1 · not there now")
	r.mustSay("It cannot be attached by gVisor: gVisor has no USB drivers.")
	modes := r.choices()
	if len(modes) != 2 || modes[0].Selected != "Do not start without it" || modes[1].Selected != "Ask each time it is there" {
		t.Fatalf("the modes are %+v", modes)
	}
	modes[0].SetSelected("Attach it whenever it is there")
	r.asked("device-mode vault block dom0:sda1:disk auto-attach")
	if r.says("vault cannot start while it requires this device: a sandbox sees files, not devices.") {
		t.Error("the old mode still shows")
	}
	r.tap("Take away")
	r.asked("unassign vault block dom0:sda1:disk")

	r.tap("Add a device …")
	r.mustSay("Assign a device to vault")
	fields := r.choices()
	if want := []string{"Backup disk (dom0:sda1)", "Intel Ethernet Connection (13) I219-LM (dom0:00_1f.6)", "Logitech Keyboard K120 (sys-usb:2-2)"}; !slices.Equal(fields[0].Options, want) {
		t.Fatalf("the choice is %q", fields[0].Options)
	}
	fields[0].SetSelected(fields[0].Options[1])
	if !slices.Equal(fields[1].Options, []string{"Do not start without it"}) {
		t.Errorf("a PCI device can be assigned as %q", fields[1].Options)
	}
	r.fake.Refuse("assign", &dom0.Error{Op: "assign", Subject: "vault", Reason: "vault cannot have PCI devices while its virt_mode is pvh"})
	r.tap("Assign")
	r.asked("assign vault pci dom0:00_1f.6:8086:15fb::p020000 required")
	if !r.reads("Vault cannot have PCI devices while its virt_mode is pvh.") {
		t.Error("the refusal is not shown in the question")
	}
	r.fake.Refuse("assign", nil)
	fields[0].SetSelected(fields[0].Options[2])
	r.tap("Assign")
	r.asked("assign vault usb sys-usb:2-2:046d:c31c ask-to-attach")
	r.mustSay("Settings of vault")
	r.mustSay("Logitech Keyboard K120")

	// What another program changes shows at once, and what is refused does not.
	r.fake.Edit(func(s *dom0.Snapshot) { s.Devices = nil })
	r.mustSay("No device is assigned to vault. Neither dom0 nor a running qube offers one now.")
	if !r.button("Add a device …").Disabled() {
		t.Error("a device can be added where there is none")
	}
}

func TestThePolicyIsShownFromBothEnds(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pagePolicy)
	page := r.m.config.pages[pagePolicy].(*permissions)
	r.mustSay("What vault may call")
	r.mustSay("Who may call vault")
	for _, text := range []string{"qubes.Filecopy", "work, untrusted", "asks you", "a new disposable of debian-12-dvm", "qubes.Gpg", "personal", "without asking"} {
		if !r.reads(text) {
			t.Errorf("the page does not read %q", text)
		}
	}
	r.canvas.Focus(page.search)
	r.write("disp")
	if r.reads("work, untrusted") || !r.reads("qubes.OpenInVM") {
		t.Error("the search does not choose")
	}
	r.mustSay("Nothing fits the search.")
	r.press(fyne.KeyEscape)
	if page.search.Text != "" || r.m.config == nil {
		t.Error("Esc does not empty the search first")
	}
	in := interior()
	for i := range 30 {
		in.Permissions = append(in.Permissions, dom0.Permission{Source: "vault", Target: dom0.Text(fmt.Sprintf("qube-%02d", i)), Service: "q.Many"})
	}
	r.fake.SetInside("vault", in)
	page.show(r.m.config.subject, false)
	if !r.reads("qube-10 and 19 more") || r.reads("qube-11") {
		t.Error("the names of a long list are not bounded")
	}
	in.Permissions = nil
	r.fake.SetInside("vault", in)
	page.show(r.m.config.subject, false)
	r.mustSay("Nothing: the policy lets it call no service.")
	r.mustSay("Nobody: the policy lets no qube call a service of it.")
	r.fake.Refuse("policy", &dom0.Error{Op: "policy", Subject: "vault", Reason: "the policy is wrong, so every call is denied: 30-user.policy:3: no such action"})
	page.show(r.m.config.subject, false)
	r.mustSay("The policy is wrong, so every call is denied: 30-user.policy:3: no such action.")
}

func TestThePolicyIsAskedAboutACall(t *testing.T) {
	r := dark(t, household())
	r.configure("vault", pagePolicy)
	in := interior()
	in.Explained = map[string]dom0.Explanation{
		"work qubes.Filecopy":    {Result: dom0.Asked, Targets: []dom0.Text{"@dispvm:debian-12-dvm", "work"}, Rule: "/etc/qubes/policy.d/90-default.policy:41"},
		"@default qubes.GetDate": {Result: dom0.Allowed, Target: "dom0", Rule: "/etc/qubes/policy.d/90-default.policy:36"},
		"work qubes.Gpg":         {Result: dom0.Denied, Reason: "a rule denies it", Rule: "30-user.policy:3"},
		"work no/service":        {Result: dom0.NoCall, Reason: "\"/\" is in the name of the service"},
	}
	r.fake.SetInside("vault", in)
	page := r.m.config.pages[pagePolicy].(*permissions)
	ask := func(service, target, want string) {
		t.Helper()
		page.service.SetText("")
		page.target.SetText("")
		r.canvas.Focus(page.service)
		r.write(service)
		r.press(fyne.KeyReturn)
		r.write(target)
		r.press(fyne.KeyReturn)
		r.mustSay(want)
	}
	ask("qubes.Filecopy", "work", "You would be asked, with the choice of: a new disposable of debian-12-dvm, work. (rule 90-default.policy:41)")
	ask("qubes.GetDate", "", "It would be allowed, to dom0. (rule 90-default.policy:36)")
	ask("qubes.Gpg", "work", "It would be denied: a rule denies it. (rule 30-user.policy:3)")
	ask("no/service", "work", "This is no call: \"/\" is in the name of the service.")
	ask("q.Other", "work", "It would be denied: no rule fits the call.")
	r.fake.Refuse("policy", &dom0.Error{Op: "policy", Subject: "vault", Reason: "the policy is wrong, so every call is denied: 30-user.policy:3: no such action"})
	r.tap("Ask the policy")
	r.mustSay("The policy is wrong, so every call is denied: 30-user.policy:3: no such action.")
	page.service.SetText("")
	r.tap("Ask the policy")
	if r.canvas.Focused() != fyne.Focusable(page.service) {
		t.Error("without a service the keyboard does not go there")
	}
}
