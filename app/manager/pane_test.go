package manager

import (
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/app/words"
)

// interior is what the qube work has inside.
func interior() dom0test.Interior {
	return dom0test.Interior{
		Apps: []dom0.App{
			{ID: "firefox-esr", Name: "Firefox ESR", Comment: "Browse the World Wide Web"},
			{ID: "org.xfce.mousepad", Name: "Mousepad", Comment: "Simple text editor"},
			{ID: "xterm", Name: dom0.CleanLine("XTerm " + strings.Repeat("with a name of no end ", 6))},
		},
		Console:  "[    0.01] starting\n\x1b[32mok\x1b[0m agent is up\n\u202eevil\n",
		Messages: "2026-03-14 10:42:01 job done · job: start",
		Notes:    "Mail and documents.",
		Volumes: []dom0.Volume{
			{Name: "root", Size: 10 << 30, Usage: 40 << 20},
			{Name: "private", Size: 2 << 30, Usage: 300 << 20, Keeps: true, Revisions: []string{"1@2026-03-13T09:30:00Z"}},
			{Name: "volatile", Size: 10 << 30},
		},
		Properties: map[string]string{"memory": "512", "autostart": "True"},
		Firewall:   "action=accept",
		Calls: []dom0.Call{
			{Time: noon.Add(-time.Minute), Source: "work", Asked: "vault", Target: "vault", Service: "qubes.Gpg", Allowed: true, Running: true, Rule: "30-user.policy:3", Opening: 2300 * time.Microsecond},
			{Time: noon.Add(-2 * time.Minute), Source: "work", Asked: "@default", Target: "untrusted", Service: "qubes.OpenURL", Allowed: true, Rule: "/etc/qubes/policy.d/90-default.policy:41", Asking: 3 * time.Second, Opening: 1200 * time.Millisecond,
				Failure: "untrusted was shut down"},
			{Time: noon.Add(-26 * time.Hour), Source: "untrusted", Asked: "work", Service: "qubes.Filecopy+with-an-argument-that-has-no-end-and-goes-on-and-on", Reason: "a rule denies it"},
		},
		Permissions: []dom0.Permission{
			{Source: "vault", Target: "work", Service: "qubes.Filecopy", Ask: true}, {Source: "vault", Target: "untrusted", Service: "qubes.Filecopy", Ask: true},
			{Source: "vault", Target: "@dispvm:debian-12-dvm", Service: "qubes.OpenInVM"}, {Source: "vault", Target: "dom0", Service: "qubes.GetDate"},
			{Source: "work", Target: "vault", Service: "qubes.Gpg", Ask: true}, {Source: "personal", Target: "vault", Service: "qubes.Gpg"},
		},
		DeviceLacks: map[dom0.DeviceClass]string{
			dom0.Block: "a sandbox sees files, not devices", dom0.USB: "gVisor has no USB drivers", dom0.Webcam: "gVisor has no USB drivers",
			dom0.Mic: "it has no way of passing devices to a qube", dom0.PCI: "a sandbox has no devices of its own",
		},
		Features: map[string]string{"service.cups": "1", "service.network-manager": "", "gui-default-allow-utf8-titles": "1"},
	}
}

// lookInside opens the pane on a section for the qube of that name.
func (r *rig) lookInside(name string, section int) {
	r.t.Helper()
	r.fake.SetInside(dom0.Name(name), interior())
	r.pick(name)
	if !r.m.pane.isOpen() {
		r.control(fyne.KeyI)
	}
	r.m.pane.turn(section)
}

// The sections, as they stand in the pane.
const (
	inApps = iota
	inDevices
	inVolumes
	inCalls
	inConsole
	inLog
	inNotes
	inSettings
)

func TestTheLooksOfThePane(t *testing.T) {
	for _, v := range []struct {
		name    string
		variant fyne.ThemeVariant
		lang    string
	}{{"dark-en", fynetheme.VariantDark, "en"}, {"light-de", fynetheme.VariantLight, "de"}} {
		for i, section := range []string{"apps", "devices", "volumes", "calls", "console", "log", "notes", "settings"} {
			t.Run(section+"-"+v.name, func(t *testing.T) {
				r := openIn(t, household(), v.variant, v.lang, fyne.NewSize(1024, 600))
				r.lookInside("vault", i)
				test.AssertRendersToMarkup(t, "pane-"+section+"-"+v.name+".xml", r.canvas)
			})
		}
	}
}

func TestAppsAreFoundAndOpened(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inApps)
	section := r.m.pane.sections[inApps].(*apps)
	r.canvas.Focus(section.search)
	r.write("fire")
	r.press(fyne.KeyReturn)
	r.asked("app work firefox-esr")
	section.search.SetText("editor")
	r.tap("Mousepad")
	r.asked("app work org.xfce.mousepad")
	section.search.SetText("zebra")
	r.mustSay("No application is called so.")
	r.canvas.Focus(section.search)
	r.press(fyne.KeyReturn)
	r.asked()
	r.press(fyne.KeyEscape)
	if section.search.Text != "" {
		t.Error("Esc leaves the search")
	}
	// Another qube's apps are its own, and a name of no end is cut.
	r.pick("vault")
	r.mustSay("Its applications are known after the first start.")
	r.pick("work")
	for _, o := range r.objects() {
		if b, ok := o.(*control.Button); ok && strings.HasPrefix(b.Text, "XTerm") && !strings.Contains(b.Text, "…") {
			t.Errorf("a long name is shown whole: %q", b.Text)
		}
	}
}

func TestVolumesAreRevertedAndResizedWhileHalted(t *testing.T) {
	r := dark(t, household())
	r.lookInside("vault", inVolumes)
	r.mustSay("State of 13 Mar 09:30")
	r.tap("Revert …")
	r.mustSay("Revert Files (private) of vault?")
	r.press(fyne.KeyReturn) // Cancel has the focus
	r.asked()
	r.tap("Revert …")
	r.tap("Revert")
	r.asked("revert vault private 1@2026-03-13T09:30:00Z")

	r.tap("Resize …")
	entry := r.canvas.Focused().(*control.Entry)
	entry.SetText("1")
	if !r.button("Resize").Disabled() {
		t.Error("a volume can shrink")
	}
	entry.SetText("2,5")
	r.tap("Resize")
	r.asked(fmt.Sprintf("resize vault private %d", 2385<<20))

	// A refusal says what failed, for which qube and why.
	r.fake.Refuse("revert", &dom0.Error{Op: "revert", Reason: "no revision"})
	r.tap("Revert …")
	r.tap("Revert")
	r.mustSay("Could not revert a volume of vault")
	r.mustSay("No revision.")

	r.lookInside("work", inVolumes)
	r.mustSay("Shut work down to resize a volume or to revert it.")
	if !r.button("Revert …").Disabled() {
		t.Error("a running qube can be reverted")
	}
}

func TestTheConsoleIsCleanedAndFollows(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inConsole)
	section := r.m.pane.sections[inConsole].(*transcript)
	if got := section.grid.Text(); got != "[    0.01] starting\nok agent is up\nevil" {
		t.Errorf("the console shows %q", got)
	}
	more := interior()
	more.Console += "more\n"
	r.fake.SetInside("work", more)
	r.late[len(r.late)-1]()
	if got := section.grid.Text(); !strings.HasSuffix(got, "more") {
		t.Errorf("the console does not follow: %q", got)
	}
	r.tap("Copy")
	if got := fyne.CurrentApp().Clipboard().Content(); got != string(section.text) {
		t.Errorf("copied %q", got)
	}
	// Nobody asks for what nobody looks at.
	asked := r.m.pane.asked
	r.control(fyne.KeyI)
	r.late[len(r.late)-1]()
	if r.m.pane.asked != asked {
		t.Error("a closed pane asks on")
	}
}

func TestAFailedQuestionCanBeAskedAgain(t *testing.T) {
	r := dark(t, household())
	r.fake.Refuse("console", &dom0.Error{Op: "console", Reason: "the disk is gone"})
	r.lookInside("work", inConsole)
	r.mustSay("The disk is gone.")
	if !r.m.pane.trouble.box.Visible() {
		t.Error("the trouble does not show")
	}
	r.fake.Refuse("console", nil)
	r.tap("Retry")
	if r.m.pane.trouble.box.Visible() || r.m.pane.sections[inConsole].(*transcript).text == "" {
		t.Error("the second try does not show")
	}
}

func TestAFailureLeadsToTheConsole(t *testing.T) {
	r := dark(t, household())
	r.fake.SetInside("untrusted", interior())
	r.m.filter.SetText("vault")
	r.fake.PutJob(dom0.Job{ID: "1", Kind: "start", Qube: "untrusted", State: dom0.JobFailed, Error: "its agent did not answer"})
	r.tap("Show console")
	section := r.m.pane.sections[r.m.pane.at]
	if section.title() != "Console" || section.(*transcript).text == "" || r.m.pane.subject.Name != "untrusted" {
		t.Errorf("the pane shows %s of %s", section.title(), r.m.pane.subject.Name)
	}
	if r.m.pane.sections[r.m.pane.log].title() != "Log" {
		t.Error("the log is not where it is looked for")
	}
}

func TestThePaneComesBackWithTheDaemon(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inVolumes)
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Lost, "The connection to qubesd was lost." })
	r.fake.Refuse("console", &dom0.Error{Op: "console", Reason: "qubesd did not answer in time"})
	r.m.pane.turn(inConsole)
	if !r.m.pane.trouble.box.Visible() {
		t.Fatal("a console without a daemon")
	}
	r.fake.Refuse("console", nil)
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Connected, "" })
	if r.m.pane.trouble.box.Visible() || r.m.pane.sections[inConsole].(*transcript).text == "" {
		t.Error("the console does not come back with the daemon")
	}
}

func TestNotesAreSavedByThemselves(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inNotes)
	section := r.m.pane.sections[inNotes].(*notes)
	if section.text.Text != "Mail and documents." {
		t.Fatalf("the notes are %q", section.text.Text)
	}
	r.asked()
	section.text.SetText("Mail.")
	r.asked()
	r.late[len(r.late)-1]()
	r.asked(`set-notes work "Mail."`)
	r.mustSay("Saved.")
	// Who looks elsewhere loses nothing, and writes to the right qube.
	section.text.SetText("Mail!")
	r.pick("vault")
	r.asked(`set-notes work "Mail!"`)
	if section.text.Text != "" {
		t.Errorf("vault has the notes %q", section.text.Text)
	}
	section.text.SetText("Keys")
	r.fake.Refuse("set-notes", &dom0.Error{Op: "notes", Reason: "disk full"})
	r.late[len(r.late)-1]()
	r.mustSay("Could not save the notes of vault")
	r.asked(`set-notes vault "Keys"`)
	r.fake.Refuse("set-notes", nil)
	r.tap("Retry")
	r.asked(`set-notes vault "Keys"`)
}

func TestSettingsAreFoundAndSet(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inSettings)
	section := r.m.pane.sections[inSettings].(*settings)
	if got := len(section.found()); got < 15 {
		t.Errorf("only %d settings", got)
	}
	section.search.SetText("virtual processors")
	if got := section.found(); len(got) != 1 || got[0].Name != "vcpus" {
		t.Fatalf("found %v", got)
	}
	r.canvas.Focus(section.search)
	r.press(fyne.KeyReturn)
	r.mustSay("vcpus of work")
	entry := r.canvas.Focused().(*control.Entry)
	entry.SetText("many")
	r.tap("Set")
	r.asked()
	if !r.reads("many") || r.m.sheet == nil {
		t.Errorf("the daemon's reason does not show: %q", r.drawn())
	}
	entry.SetText("4")
	r.tap("Set")
	r.asked("set work vcpus 4")
	if r.m.sheet != nil {
		t.Error("the prompt stays")
	}
	section.search.SetText("vcpus")
	r.press(fyne.KeyReturn)
	r.tap("Back to the default")
	r.asked("reset work vcpus")
	// A truth value turns at once; some choose among few.
	section.edit(section.rows[slices.IndexFunc(section.rows, func(p dom0.Property) bool { return p.Name == "autostart" })])
	r.asked("set work autostart False")
	section.search.SetText("")
	section.edit(section.rows[slices.IndexFunc(section.rows, func(p dom0.Property) bool { return p.Name == "label" })])
	choice, ok := r.canvas.Focused().(*control.Select)
	if !ok || len(choice.Options) != 8 {
		t.Fatal("labels cannot be chosen")
	}
	choice.SetSelected("green")
	r.tap("Set")
	r.asked("set work label green")
}

// drawn are the texts of the canvas, besides labels.
func (r *rig) drawn() (all []string) {
	for _, o := range r.objects() {
		if c, ok := o.(*canvas.Text); ok && c.Visible() && c.Text != "" {
			all = append(all, c.Text)
		}
	}
	return all
}

// reads reports whether a drawn text has the word in it.
func (r *rig) reads(word string) bool {
	return slices.ContainsFunc(r.drawn(), func(s string) bool { return strings.Contains(s, word) })
}

func TestThePaneFollowsTheSelectionAndIsRemembered(t *testing.T) {
	r := dark(t, household())
	r.tap("Details")
	r.mustSay("Select one qube to see what is inside.")
	r.lookInside("work", inVolumes)
	r.mustSay("Files (private)")
	again := New(r.fake, Options{Canvas: r.canvas, Preferences: fyne.CurrentApp().Preferences(), Spawn: func(f func()) { f() }, UI: func(f func()) { f() }})
	defer again.Close()
	if !again.pane.isOpen() || again.pane.at != inVolumes {
		t.Error("the pane is not remembered")
	}
	r.tap("Details")
	if r.m.pane.isOpen() {
		t.Error("the pane does not close")
	}
}

func TestColumnsArePutAwayAndRemembered(t *testing.T) {
	r := dark(t, household())
	r.menuItem(r.m.columnItems(), "Network")
	i := slices.IndexFunc(r.m.table.cols, func(c column) bool { return c.key == colNetwork })
	if r.m.table.places[i].width != 0 {
		t.Error("the column stays")
	}
	again := New(r.fake, Options{Canvas: r.canvas, Preferences: fyne.CurrentApp().Preferences()})
	if !again.table.hidden[colNetwork] {
		t.Error("the column comes back")
	}
	again.Close()
	r.menuItem(r.m.columnItems(), "Network")
	if r.m.table.places[i].width == 0 {
		t.Error("the column does not come back")
	}
	r.m.table.hide(colName, true)
	if r.m.table.hidden[colName] {
		t.Error("names can be put away")
	}
	r.m.table.head.TappedSecondary(&fyne.PointEvent{AbsolutePosition: fyne.NewPos(50, 120)})
	if r.canvas.Overlays().Top() == nil {
		t.Error("no menu at the headers")
	}
}

func TestFamiliesHaveHeadings(t *testing.T) {
	r := dark(t, household())
	r.m.setBy(byTemplate)
	r.m.list()
	var got []string
	for _, row := range r.m.table.rows {
		if row.heading != "" {
			got = append(got, "["+row.heading+"]")
		} else {
			got = append(got, string(row.qube.Name))
		}
	}
	want := "[Templates] debian-12 [on debian-12] import media personal sys-net untrusted vault work"
	if strings.Join(got, " ") != want {
		t.Errorf("the table is %v, want %s", got, want)
	}
	// Headings are no rows for keys, taps and actions.
	r.m.Focus()
	r.press(fyne.KeyHome)
	if c := r.m.table.chosen(); len(c) != 1 || c[0].Name != "debian-12" {
		t.Errorf("Home chose %v", c)
	}
	r.press(fyne.KeyDown)
	if c := r.m.table.chosen(); len(c) != 1 || c[0].Name != "import" {
		t.Errorf("Down chose %v", c)
	}
	r.press(fyne.KeyUp, fyne.KeyUp)
	if c := r.m.table.chosen(); len(c) != 1 || c[0].Name != "debian-12" {
		t.Errorf("Up chose %v", c)
	}
	r.m.table.body.TypedShortcut(&fyne.ShortcutSelectAll{})
	if n := len(r.m.table.chosen()); n != 8 {
		t.Errorf("Ctrl+A chose %d", n)
	}
	if r.m.table.body.at(fyne.NewPos(50, 5)) != -1 {
		t.Error("a heading can be tapped")
	}
	for f, first := range map[family]string{byLabel: "red", byNetwork: "network by sys-net"} {
		r.m.setBy(f)
		r.m.list()
		if got := r.m.table.rows[0].heading; got != first {
			t.Errorf("by %s the first heading is %q, want %q", f, got, first)
		}
	}
	again := New(r.fake, Options{Canvas: r.canvas, Preferences: fyne.CurrentApp().Preferences()})
	defer again.Close()
	r.m.chooseBy()
	if r.canvas.Overlays().Top() == nil {
		t.Error("no menu of families")
	}
}

func TestAdvancedWishesReachTheDaemon(t *testing.T) {
	r := dark(t, household())
	r.control(fyne.KeyN)
	r.write("mail")
	r.tap("Advanced")
	fields := map[string]*control.Entry{}
	for _, o := range r.objects() {
		if e, ok := o.(*control.Entry); ok {
			fields[e.PlaceHolder] = e
		}
	}
	memory, cpus := fields["400"], fields["2"]
	if memory == nil || cpus == nil || fields["user"] == nil {
		t.Fatalf("the defaults do not show: %v", fields)
	}
	memory.SetText("lots")
	if !r.reads("not a number") || !r.button("Create").Disabled() {
		t.Errorf("a wrong memory: %q", r.drawn())
	}
	memory.SetText("1024")
	if r.button("Create").Disabled() {
		t.Error("a mended memory does not free the button")
	}
	fields["user"].SetText("alice")
	r.tap("Create")
	r.asked("create mail AppVM red debian-12 default_user=alice memory=1024")
}

// Nothing is cut in German at 1024×600: every button and chip stands in the
// window at its full size.
func TestGermanFits(t *testing.T) {
	views := map[string]func(*rig){
		"table": func(r *rig) { r.pick("work") },
		"pane":  func(r *rig) { r.lookInside("vault", inVolumes) },
		"apps":  func(r *rig) { r.lookInside("vault", inApps) },
		"new":   func(r *rig) { r.control(fyne.KeyN); r.tap(words.T("Advanced")) },
		"ask":   func(r *rig) { r.pick("vault"); r.press(fyne.KeyDelete) },
		"lost": func(r *rig) {
			r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Lost, words.T("The connection to qubesd was lost.") })
		},
		"empty":     func(r *rig) { r.fake.Edit(func(s *dom0.Snapshot) { s.Qubes, s.Jobs = nil, nil }) },
		"notes":     func(r *rig) { r.lookInside("vault", inNotes) },
		"memory":    func(r *rig) { r.configure("vault", pageMemory) },
		"network":   func(r *rig) { r.configure("vault", pageNetwork) },
		"settings":  func(r *rig) { r.configure("vault", pageBasic) },
		"isolation": func(r *rig) { r.configure("vault", pageIsolation) },
		"devices":   func(r *rig) { r.configure("vault", pageDevices) },
		"assign":    func(r *rig) { r.configure("vault", pageDevices); r.tap(words.T("Add a device …")) },
		"policy":    func(r *rig) { r.configure("vault", pagePolicy) },
		"inside":    func(r *rig) { r.lookInside("vault", inDevices) },
		"calls":     func(r *rig) { r.lookInside("vault", inCalls) },
		"failed": func(r *rig) {
			r.fake.PutJob(dom0.Job{ID: "1", Kind: "shutdown", Qube: "work", State: dom0.JobFailed, Error: "it did not answer within 60 s"})
		},
	}
	for name, do := range views {
		t.Run(name, func(t *testing.T) {
			r := openIn(t, household(), fynetheme.VariantDark, "de", fyne.NewSize(1024, 600))
			do(r)
			if got := r.canvas.Size(); got.Width > 1024 || got.Height > 600 {
				t.Errorf("the window needs %v", got)
			}
			driver := fyne.CurrentApp().Driver()
			for _, o := range r.objects() {
				switch w := o.(type) {
				case *control.Button, *control.Chip, *control.Entry, *widget.Label, *canvas.Text:
					at, size := driver.AbsolutePositionForObject(o), o.Size()
					out := at.X < 0 || at.Y < 0 || at.X+size.Width > 1024 || at.Y+size.Height > 600
					least := o.MinSize().Width
					switch {
					case !o.Visible() || size.Width <= 0 || !out && least <= size.Width+0.5 || inScroller(r, o):
					case out:
						t.Errorf("%s %T %q stands at %v with %v", name, w, textOf(o), at, size)
					default:
						t.Errorf("%s: %T %q has a width of %.0f and needs %.0f", name, w, textOf(o), size.Width, least)
					}
				}
			}
		})
	}
}

func textOf(o fyne.CanvasObject) string {
	switch w := o.(type) {
	case *control.Button:
		return w.Text
	case *control.Chip:
		return w.Title
	case *widget.Label:
		return w.Text
	case *canvas.Text:
		return w.Text
	}
	return ""
}

// What keeps a revision has its way back beside it, and nothing is asked.
func TestARevisionIsKeptAndLetGo(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inVolumes) // also of a qube that runs
	r.mustSay("State of 13 Mar 09:30")
	r.tap("Keep")
	r.asked("keep work private 1@2026-03-13T09:30:00Z true")
	r.mustSay("Kept state of 13 Mar 09:30")
	r.tap("Let go")
	r.asked("keep work private 1@2026-03-13T09:30:00Z false")
	r.mustSay("State of 13 Mar 09:30")
	r.fake.Refuse("keep", &dom0.Error{Op: "keep", Subject: "work", Reason: "at most 64 revisions of a volume can be kept: let another go"})
	r.tap("Keep")
	r.mustSay("Could not keep a revision of work")
}

func TestCallsOpenByName(t *testing.T) {
	s := household()
	s.Link = dom0.Connecting
	r := dark(t, s)
	r.m.OpenCalls("work")
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link = dom0.Connected })
	if p := r.m.pane; !p.isOpen() || p.subject.Name != "work" || p.at != inCalls {
		t.Fatalf("open %v: %s, section %d", p.isOpen(), p.subject.Name, p.at)
	}
	r.m.pane.turn(inNotes)
	for _, none := range []string{"dom0", "nobody", "no name"} {
		r.m.OpenCalls(none)
		if p := r.m.pane; p.subject.Name != "work" || p.at != inNotes {
			t.Errorf("%s: %s, section %d", none, p.subject.Name, p.at)
		}
	}
	r.m.filter.SetText("work")
	r.m.OpenCalls("vault")
	if p := r.m.pane; p.subject.Name != "vault" || p.at != inCalls || r.m.filter.Text != "" {
		t.Errorf("%s, section %d", p.subject.Name, p.at)
	}
}

func TestCallsAreShownWithWhatWasDecided(t *testing.T) {
	r := dark(t, household())
	r.lookInside("work", inCalls)
	section := r.m.pane.sections[inCalls].(*calls)
	for _, text := range []string{
		"qubes.Gpg", "work › vault", "allowed · rule 30-user.policy:3 ·", "11:59",
		"work › (left to the policy) › untrusted", "untrusted was shut down",
		"untrusted › work", "denied", "a rule denies it", "rule 90-default.policy:41",
	} {
		if !r.reads(text) {
			t.Errorf("the section does not read %q", text)
		}
	}
	// It follows: a call that ended, and one that came.
	in := interior()
	in.Calls[0].Running = false
	in.Calls = append([]dom0.Call{{Time: noon, Source: "work", Asked: "@dispvm", Service: "qubes.OpenInVM", Reason: "no rule fits the call"}}, in.Calls...)
	r.fake.SetInside("work", in)
	late := r.late
	r.late = nil
	for _, f := range late {
		f()
	}
	if len(section.shown) != 4 || section.shown[1].Running || !r.reads("work › a new disposable") {
		t.Errorf("after a while it shows %+v", section.shown)
	}
	in.Calls = nil
	r.fake.SetInside("work", in)
	section.show(r.m.pane.subject, false)
	r.mustSay("No program in work has called another qube, and none was called here, since qubesd was started.")
	r.fake.Refuse("calls", &dom0.Error{Op: "calls", Subject: "work", Reason: "qubesd did not answer in time"})
	section.show(r.m.pane.subject, false)
	r.mustSay("Qubesd did not answer in time.")
	// Nothing is asked when people look elsewhere.
	r.m.pane.turn(inNotes)
	if section.next != nil {
		t.Error("the section goes on asking")
	}
}

// inScroller reports whether o can be scrolled into sight.
func inScroller(r *rig, o fyne.CanvasObject) bool {
	for _, s := range r.objects() {
		if scroll, ok := s.(interface{ ScrollToBottom() }); ok {
			for _, inside := range test.LaidOutObjects(scroll.(fyne.CanvasObject)) {
				if inside == o {
					return true
				}
			}
		}
	}
	return false
}

// With CUBICLE_PICTURES set to a folder, every view is painted there in both
// themes, both languages and two sizes, for people to look at; -run picks some
// (TestPictures/config-basic-dark).
func TestPictures(t *testing.T) {
	folder := os.Getenv("CUBICLE_PICTURES")
	if folder == "" {
		t.Skip("CUBICLE_PICTURES names no folder")
	}
	views := map[string]func(*rig){
		"table": func(r *rig) { r.pick("work") },
		"long": func(r *rig) {
			r.fake.Edit(func(s *dom0.Snapshot) {
				for i := range s.Qubes[1:] {
					q := &s.Qubes[i+1]
					q.Name = dom0.Name(fmt.Sprintf("%s-%d-abcdefghijklmnopqrstuvwxyz", q.Name, i)[:31])
					q.Template, q.NetVM = "debian-12-with-many-programs-xx", "sys-firewall-of-the-second-floo"
				}
			})
			r.pick("vault-5-abcdefghijklmnopqrstuvwxyz"[:31])
			r.control(fyne.KeyI)
		},
		"families": func(r *rig) { r.m.setBy(byLabel); r.m.list() },
		"new":      func(r *rig) { r.control(fyne.KeyN); r.write("mail"); r.tap(words.T("Advanced")) },
		"setting": func(r *rig) {
			r.lookInside("work", inSettings)
			s := r.m.pane.sections[inSettings].(*settings)
			s.edit(s.rows[slices.IndexFunc(s.rows, func(p dom0.Property) bool { return p.Name == "memory" })])
			r.canvas.Focused().(*control.Entry).SetText("lots")
			r.tap(words.T("Set"))
		},
		"failed": func(r *rig) {
			r.fake.PutJob(dom0.Job{ID: "1", Kind: "start", Qube: "untrusted", State: dom0.JobFailed, Error: "not enough memory: 400 MB needed, 212 MB free"})
		},
		"broken": func(r *rig) { r.pick("import") },
		"lost": func(r *rig) {
			r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Lost, words.T("The connection to qubesd was lost.") })
		},
		"empty": func(r *rig) { r.fake.Edit(func(s *dom0.Snapshot) { s.Qubes, s.Jobs = nil, nil }) },
	}
	for i, name := range []string{"basic", "apps", "network", "firewall", "devices", "volumes", "memory", "isolation", "features", "policy", "all"} {
		views["config-"+name] = func(r *rig) { r.configure("vault", i) }
	}
	for i, name := range []string{"apps", "devices", "volumes", "calls", "console", "log", "notes", "settings"} {
		views["pane-"+name] = func(r *rig) { r.lookInside("vault", i) }
	}
	for name, do := range views {
		for _, theme := range []struct {
			name    string
			variant fyne.ThemeVariant
		}{{"dark", fynetheme.VariantDark}, {"light", fynetheme.VariantLight}} {
			for _, language := range []string{"en", "de"} {
				for _, size := range []fyne.Size{fyne.NewSize(1280, 800), fyne.NewSize(1024, 600)} {
					picture := fmt.Sprintf("%s-%s-%s-%.0f", name, theme.name, language, size.Width)
					t.Run(picture, func(t *testing.T) {
						r := openIn(t, household(), theme.variant, language, size)
						do(r)
						f, err := os.Create(filepath.Join(folder, picture+".png"))
						if err != nil {
							t.Fatal(err)
						}
						defer f.Close()
						if err := png.Encode(f, r.canvas.Capture()); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	}
}
