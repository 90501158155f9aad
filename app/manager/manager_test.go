package manager

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/create"
	"cubicle/app/dom0"
	"cubicle/theme"
)

// The main states as text, in both themes. A run that differs leaves its
// markup in testdata/failed; move it up one folder when the change is meant.
func TestLooks(t *testing.T) {
	states := []struct {
		name string
		from func() dom0.Snapshot
		do   func(*rig)
	}{
		{"household", household, func(r *rig) { r.pick("work") }},
		{"broken", household, func(r *rig) { r.pick("import") }},
		{"starting", household, func(r *rig) { r.pick("untrusted") }},
		{"filtered", household, func(r *rig) { r.write("va") }},
		{"nothing-matches", household, func(r *rig) { r.write("zebra") }},
		{"empty", func() dom0.Snapshot { s := household(); s.Qubes, s.Jobs = nil, nil; return s }, func(*rig) {}},
		{"connecting", func() dom0.Snapshot {
			return dom0.Snapshot{Link: dom0.Connecting, Problem: "Nothing answers on the bus at unix:path=/run/dbus/system_bus_socket."}
		}, func(*rig) {}},
		{"lost", household, func(r *rig) {
			r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Lost, "The connection to qubesd was lost." })
		}},
		{"failed", household, func(r *rig) {
			r.fake.PutJob(dom0.Job{ID: "1", Kind: "start", Qube: "untrusted", State: dom0.JobFailed, ErrorName: "QubesMemoryError", Error: "not enough memory: 400 MB needed, 212 MB free"})
		}},
		{"new-qube-taken", household, func(r *rig) { r.control(fyne.KeyN); r.write("work") }},
		{"remove", household, func(r *rig) { r.pick("vault"); r.press(fyne.KeyDelete) }},
	}
	for _, variant := range []struct {
		name string
		v    fyne.ThemeVariant
	}{{"dark", fynetheme.VariantDark}, {"light", fynetheme.VariantLight}} {
		for _, state := range states {
			t.Run(state.name+"-"+variant.name, func(t *testing.T) {
				r := open(t, state.from(), variant.v)
				state.do(r)
				test.AssertRendersToMarkup(t, state.name+"-"+variant.name+".xml", r.canvas)
			})
		}
	}
}

func TestToolbarActsOnTheSelection(t *testing.T) {
	r := dark(t, household())
	for _, word := range []string{"Start", "Shut down", "Pause", "Terminal"} {
		if !r.button(word).Disabled() {
			t.Errorf("%s is enabled with nothing selected", word)
		}
	}
	r.pick("vault")
	if !r.button("Shut down").Disabled() || !r.button("Pause").Disabled() {
		t.Error("a halted qube can be shut down or paused")
	}
	r.tap("Start")
	r.asked("start vault")

	r.pick("work")
	if !r.button("Start").Disabled() {
		t.Error("a running qube can be started")
	}
	r.tap("Terminal")
	r.tap("Pause")
	r.tap("Shut down")
	r.asked("app work qubes-run-terminal", "pause work", "shutdown work")

	r.pick("sys-net")
	r.tap("Resume")
	r.asked("unpause sys-net")
}

func TestSelectionOfSeveral(t *testing.T) {
	r := dark(t, household())
	r.pick("personal")
	r.click("work", desktop.MouseButtonPrimary, fyne.KeyModifierControl)
	r.mustSay("2 qubes selected")
	r.tap("Shut down")
	r.asked("shutdown personal", "shutdown work")

	r.pick("vault")
	r.click("sys-net", desktop.MouseButtonPrimary, fyne.KeyModifierShift)
	if got := len(r.m.table.chosen()); got != 3 {
		t.Errorf("Shift chose %d qubes, want sys-net to vault", got)
	}
	r.m.table.body.TypedShortcut(&fyne.ShortcutSelectAll{})
	if got := len(r.m.table.chosen()); got != 8 {
		t.Errorf("Ctrl+A chose %d qubes, want all 8", got)
	}
	// What the filter hides must not be hit.
	r.write("vault")
	r.mustSay("vault")
	if got := r.m.table.chosen(); len(got) != 1 || got[0].Name != "vault" {
		t.Errorf("with a filter %d qubes are selected, want vault alone", len(got))
	}
}

func TestKeyboardAlone(t *testing.T) {
	r := dark(t, household())
	r.press(fyne.KeyHome)
	r.press(fyne.KeyEnd, fyne.KeyReturn)
	r.asked("app work qubes-run-terminal")
	r.press(fyne.KeyUp, fyne.KeyReturn)
	r.asked("start vault")
	r.m.table.body.KeyDown(&fyne.KeyEvent{Name: desktop.KeyShiftLeft})
	r.press(fyne.KeyUp)
	r.m.table.body.KeyUp(&fyne.KeyEvent{Name: desktop.KeyShiftLeft})
	if got := len(r.m.table.chosen()); got != 2 {
		t.Errorf("Shift+Up chose %d qubes, want 2", got)
	}
	r.press(fyne.KeyEscape)
	if got := len(r.m.table.chosen()); got != 0 {
		t.Errorf("Esc left %d qubes selected", got)
	}
	// Typing begins a filter, Enter acts on its first row.
	r.write("vau")
	if got := r.shown(); !slices.Equal(got, []string{"vault"}) {
		t.Fatalf("typing shows %v", got)
	}
	r.press(fyne.KeyReturn)
	r.asked("start vault")
	r.press(fyne.KeyEscape)
	if got := len(r.shown()); got != 8 || r.m.filter.Text != "" {
		t.Errorf("Esc left the filter %q", r.m.filter.Text)
	}
	r.control(fyne.KeyF)
	if r.canvas.Focused() != r.m.filter {
		t.Error("Ctrl+F does not reach the filter")
	}
	r.control(fyne.KeyN)
	if r.m.page == nil {
		t.Error("Ctrl+N from the filter does not open the page")
	}
	r.press(fyne.KeyEscape)
	if r.m.page != nil || r.canvas.Overlays().Top() != nil {
		t.Error("Esc does not close the page")
	}
}

func TestSecondTapIsTheDefaultAction(t *testing.T) {
	r := dark(t, household())
	r.pick("vault")
	r.click("vault", desktop.MouseButtonPrimary, 0)
	r.asked("start vault")
	r.pick("vault")
	r.pick("work") // another row, a second later
	r.asked()
}

func TestFilterLooksAtEveryWord(t *testing.T) {
	r := dark(t, household())
	for filter, want := range map[string]string{
		"work":        "work",
		"WORK":        "work",
		"blue":        "work",
		"running":     "personal work",
		"run yellow":  "personal",
		"sys":         "personal sys-net",
		"broken":      "import",
		"zebra":       "",
		"  vault  ":   "vault",
		"black halt":  "debian-12 vault",
		"deb red":     "untrusted",
		"start":       "untrusted",
		"media media": "media",
	} {
		r.m.filter.SetText(filter)
		if got := strings.Join(r.shown(), " "); got != want {
			t.Errorf("%q shows %q, want %q", filter, got, want)
		}
	}
	r.m.filter.SetText("zebra")
	r.tap("Clear filter")
	if len(r.shown()) != 8 {
		t.Error("the filter was not cleared")
	}
}

func TestChipsGroupAndCount(t *testing.T) {
	r := dark(t, household())
	for g, want := range []struct {
		title string
		count int
	}{{"All", 8}, {"Running", 4}, {"App qubes", 7}, {"Templates", 1}, {"Disposables", 0}, {"Problems", 1}} {
		c := r.m.chips[g]
		if c.Title != want.title || c.Count != want.count {
			t.Errorf("chip %d is %s %d, want %s %d", g, c.Title, c.Count, want.title, want.count)
		}
		if want.count == 0 {
			if c.Visible() {
				t.Errorf("the chip %s is there without a qube", want.title)
			}
			continue
		}
		test.Tap(c)
		if len(r.shown()) != want.count || !c.Chosen {
			t.Errorf("%s shows %v", want.title, r.shown())
		}
	}
	r.fake.EditQube("import", func(q *dom0.Qube) { q.Problem, q.State = "", dom0.Halted })
	if r.m.chips[groupProblems].Visible() || len(r.shown()) != 8 {
		t.Error("the chip of problems stays without a problem")
	}
}

func TestColumnsSort(t *testing.T) {
	s := household()
	for i := range s.Qubes {
		s.Qubes[i].Disk = uint64(i) * 1000
	}
	r := dark(t, s)
	header := func(key columnKey) {
		i := slices.IndexFunc(r.m.table.cols, func(c column) bool { return c.key == key })
		r.m.table.head.Tapped(&fyne.PointEvent{Position: fyne.NewPos(r.m.table.places[i].x+1, 10)})
	}
	for _, step := range []struct {
		key         columnKey
		first, last string
	}{
		{colName, "work", "debian-12"}, // it was ascending
		{colName, "debian-12", "work"},
		{colDisk, "work", "debian-12"}, // figures: biggest first
		{colDisk, "debian-12", "work"},
		{colState, "import", "vault"}, // trouble first
		{colTemplate, "debian-12", "work"},
		{colIsolation, "debian-12", "media"},
	} {
		header(step.key)
		got := r.shown()
		if got[0] != step.first || got[len(got)-1] != step.last {
			t.Errorf("by %s: %v, want %s … %s", step.key, got, step.first, step.last)
		}
	}
	// The order is remembered.
	again := New(r.fake, Options{Canvas: r.canvas, Preferences: fyne.CurrentApp().Preferences()})
	defer again.Close()
	if again.table.order.by != colIsolation {
		t.Errorf("the next window sorts by %s", again.table.order.by)
	}
}

func TestDom0StandsFirstAndIsLeftAlone(t *testing.T) {
	s := household()
	admin := appQube("dom0", "black", dom0.Running)
	admin.Class = dom0.AdminVM
	s.Qubes = append(s.Qubes, admin)
	r := dark(t, s)
	for _, o := range []order{{colName, false}, {colName, true}, {colState, false}, {colMemory, true}} {
		r.m.table.order = o
		r.m.list()
		if got := r.shown()[0]; got != "dom0" {
			t.Errorf("by %s the first is %s", o.by, got)
		}
	}
	r.pick("dom0")
	for _, word := range []string{"Start", "Shut down", "Pause", "Terminal", ""} {
		if !r.button(word).Disabled() {
			t.Errorf("%q can be done to dom0", word)
		}
	}
	r.press(fyne.KeyDelete, fyne.KeyReturn)
	r.m.table.body.TypedShortcut(&fyne.ShortcutSelectAll{})
	r.tap("Shut down")
	for _, call := range r.fake.Calls() {
		if strings.Contains(call, "dom0") {
			t.Errorf("the daemon was asked %q", call)
		}
	}
}

func TestASortedTableKeepsItsSelection(t *testing.T) {
	r := dark(t, household())
	r.pick("work")
	r.fake.EditQube("work", func(q *dom0.Qube) { q.Name = "aaa" })
	if got := r.m.table.chosen(); len(got) != 1 || got[0].Name != "aaa" {
		t.Errorf("after the renaming %v is selected", got)
	}
	r.fake.Edit(func(s *dom0.Snapshot) {
		s.Qubes = slices.DeleteFunc(s.Qubes, func(q dom0.Qube) bool { return q.Name == "aaa" })
	})
	if got := r.m.table.chosen(); len(got) != 1 || got[0].Name != "debian-12" {
		t.Errorf("after the removal %v is selected, want the next one", got)
	}
}

func TestKillAsksAndCancelIsTheDefault(t *testing.T) {
	r := dark(t, household())
	r.pick("work")
	r.menuItem(r.m.menuItems(false), "Kill …")
	r.mustSay("Kill work?")
	if r.canvas.Focused() != r.button("Cancel") {
		t.Error("Cancel has not the focus")
	}
	r.press(fyne.KeyReturn)
	if r.m.sheet != nil {
		t.Error("Enter did not answer")
	}
	r.asked()
	r.menuItem(r.m.menuItems(true), "Kill …")
	r.tap("Kill")
	r.asked("kill work")
}

func TestRemoveNamesObjectAndLoss(t *testing.T) {
	r := dark(t, household())
	r.pick("vault")
	r.press(fyne.KeyDelete)
	r.mustSay("Remove vault and its 2.1 GB?")
	r.mustSay("All its files are deleted. There is no backup of it.")
	r.press(fyne.KeyEscape)
	r.asked()
	r.press(fyne.KeyDelete)
	r.tap("Cancel")
	r.asked()
	r.press(fyne.KeyDelete)
	r.tap("Remove")
	r.asked("remove vault")

	r.pick("debian-12")
	r.press(fyne.KeyDelete)
	r.mustSay("Built on it: import, media, personal, sys-net, untrusted, vault, work.")
	r.tap("Cancel")

	// What runs is not removed; the next step is offered.
	r.pick("work")
	r.press(fyne.KeyDelete)
	r.mustSay("Could not remove work")
	r.mustSay("It is running. Shut it down first, then remove it.")
	if r.m.sheet != nil {
		t.Error("a question about what cannot be done")
	}
	for _, o := range test.LaidOutObjects(r.m.notices.box) {
		if b, ok := o.(*control.Button); ok && b.Text == "Shut down" {
			test.Tap(b)
		}
	}
	r.asked("shutdown work")
	if r.says("Could not remove work") {
		t.Error("the panel stays after its step was taken")
	}
}

func TestCreate(t *testing.T) {
	r := dark(t, household())
	r.tap("New qube")
	page := r.m.page
	if page == nil {
		t.Fatal("no page")
	}
	if !r.button("Create").Disabled() {
		t.Error("Create is enabled without a name")
	}
	r.write("work")
	if !r.button("Create").Disabled() {
		t.Error("Create is enabled with a name that is taken")
	}
	r.write("-mail")
	r.fake.Refuse("create", &dom0.Error{Op: "create", Subject: "work-mail", Reason: "the pool is full: 12 MB are free"})
	r.tap("Create")
	r.asked("create work-mail AppVM red debian-12")
	r.mustSay("The pool is full: 12 MB are free.")
	if r.m.page != page || r.button("Create").Disabled() {
		t.Error("the page went or stays busy after a refusal")
	}
	r.fake.Refuse("create", nil)
	r.press(fyne.KeyReturn)
	r.asked("create work-mail AppVM red debian-12")
	if r.m.page != nil {
		t.Error("the page stays after the daemon accepted")
	}
	// The job shows up, ends, and the qube is started as wished.
	job := dom0.Job{ID: "job1", Kind: "create", Qube: "work-mail", State: dom0.JobRunning, Text: "Creating work-mail — making its volumes", Progress: 0.3}
	r.fake.PutJob(job)
	r.mustSay("Creating work-mail — making its volumes")
	r.fake.Edit(func(s *dom0.Snapshot) { s.Qubes = append(s.Qubes, appQube("work-mail", "red", dom0.Halted)) })
	r.asked()
	job.State = dom0.JobDone
	r.fake.PutJob(job)
	r.asked("start work-mail")
	r.fake.PutJob(job)
	r.asked()
}

// The job may end before the daemon's answer is here.
func TestCreateWhoseJobWasFaster(t *testing.T) {
	s := household()
	s.Qubes = append(s.Qubes, appQube("quick", "red", dom0.Halted))
	r := dark(t, s)
	r.control(fyne.KeyN)
	r.write("quickly")
	r.fake.PutJob(dom0.Job{ID: "job1", Kind: "create", Qube: "quickly", State: dom0.JobDone})
	r.fake.Edit(func(s *dom0.Snapshot) { s.Qubes = append(s.Qubes, appQube("quickly", "red", dom0.Halted)) })
	// The page knows the name now; the request is the one under way.
	r.m.create(r.m.page, create.Wish{Name: "quickly", Kind: create.KindApp, Label: labelled("red"), Template: "debian-12", StartNow: true})
	r.asked("create quickly AppVM red debian-12", "start quickly")
}

func TestCreateATemplateClones(t *testing.T) {
	r := dark(t, household())
	r.control(fyne.KeyN)
	r.write("debian-12-office")
	for _, o := range r.objects() {
		if c, ok := o.(*control.Chip); ok && c.Title == create.KindTemplate.Title() {
			test.Tap(c)
		}
	}
	r.tap("Create")
	r.asked("clone debian-12 debian-12-office")
}

func TestCloneOffersAFreeName(t *testing.T) {
	r := dark(t, household())
	r.pick("vault")
	r.menuItem(r.m.menuItems(false), "Clone …")
	r.press(fyne.KeyReturn)
	r.asked("clone vault vault-1")
	r.menuItem(r.m.menuItems(false), "Clone …")
	r.canvas.Focused().(interface{ SetText(string) }).SetText("work")
	r.press(fyne.KeyReturn)
	r.asked()
	if !r.button("Clone").Disabled() {
		t.Error("a taken name can be used")
	}
	r.press(fyne.KeyEscape)
}

func TestRunACommand(t *testing.T) {
	r := dark(t, household())
	r.pick("work")
	r.menuItem(r.m.menuItems(false), "Run command …")
	r.press(fyne.KeyReturn)
	r.asked()
	r.write("xclock")
	for _, o := range r.objects() {
		if c, ok := o.(interface{ SetChecked(bool) }); ok {
			c.SetChecked(true)
		}
	}
	r.tap("Run")
	r.asked("run work xclock root")
}

func TestFailuresSayWhatWhoWhyAndWhatNext(t *testing.T) {
	r := dark(t, household())
	r.fake.Refuse("start", &dom0.Error{Op: "start", Subject: "vault", Name: "QubesVMNotHaltedError", Reason: "vault is not halted"})
	r.pick("vault")
	r.tap("Start")
	r.asked("start vault")
	r.mustSay("Could not start vault")
	r.mustSay("Vault is not halted.")
	r.tap("Copy")
	if got := fyne.CurrentApp().Clipboard().Content(); got != "Could not start vault: Vault is not halted." {
		t.Errorf("copied %q", got)
	}
	r.fake.Refuse("start", nil)
	r.tap("Retry")
	r.asked("start vault")
	if r.says("Could not start vault") {
		t.Error("the panel stays while it is tried again")
	}
	// A job that fails later, with the way to try again.
	r.fake.PutJob(dom0.Job{ID: "job2", Kind: "start", Qube: "vault", State: dom0.JobRunning})
	r.fake.PutJob(dom0.Job{ID: "job2", Kind: "start", Qube: "vault", State: dom0.JobFailed, Error: "no room"})
	r.mustSay("Could not start vault")
	r.mustSay("No room.")
	r.tap("Retry")
	r.asked("start vault")
	// One panel per failure, and no more than three.
	for _, name := range []dom0.Name{"a", "b", "c", "d", "d"} {
		r.m.failed("start", name, &dom0.Error{Reason: "x"}, nil)
	}
	if got := len(r.m.notices.list); got != maxNotices {
		t.Errorf("%d panels", got)
	}
	// A qube that will not go is what Kill is for.
	r.fake.PutJob(dom0.Job{ID: "9", Kind: "shutdown", Qube: "work", State: dom0.JobFailed, Error: "it did not answer within 60 s"})
	r.tap("Kill …")
	r.mustSay("Kill work?")
}

func TestOldFailuresAreNotTold(t *testing.T) {
	s := household()
	s.Jobs = append(s.Jobs, dom0.Job{ID: "7", Kind: "start", Qube: "vault", State: dom0.JobFailed, Error: "long ago"})
	r := dark(t, s)
	if len(r.m.notices.list) != 0 {
		t.Error("a failure from before the window was opened is told")
	}
}

func TestJobsCanBeCancelled(t *testing.T) {
	r := dark(t, household())
	r.pick("untrusted")
	r.mustSay("Starting untrusted — booting")
	r.tap("Cancel")
	r.asked("cancel 1")
}

// The job of a command lasts as long as the command.
func TestACommandDoesNotKeepItsQubeBusy(t *testing.T) {
	r := dark(t, household())
	r.fake.PutJob(dom0.Job{ID: "5", Kind: "run", Qube: "work", State: dom0.JobRunning, Text: "Running a command in work", Progress: 0.9})
	r.fake.PutJob(dom0.Job{ID: "6", Kind: "app", Qube: "vault", State: dom0.JobRunning, Text: "Starting vault — booting", Progress: 0.3})
	busy := map[dom0.Name]bool{}
	for i := range r.m.table.rows {
		busy[r.m.table.rows[i].qube.Name] = r.m.table.rows[i].job.ID != ""
	}
	if busy["work"] || !busy["vault"] || !busy["untrusted"] {
		t.Errorf("busy are %v; want vault, which is being started for a program, and not work", busy)
	}
}

func TestWithoutTheDaemonNothingIsOffered(t *testing.T) {
	r := dark(t, household())
	r.pick("vault")
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Lost, "The connection to qubesd was lost." })
	for _, word := range []string{"New qube", "Start", "Terminal"} {
		if !r.button(word).Disabled() {
			t.Errorf("%s is enabled without a daemon", word)
		}
	}
	r.press(fyne.KeyReturn, fyne.KeyDelete)
	r.control(fyne.KeyN)
	r.asked()
	if r.m.sheet != nil {
		t.Error("a page without a daemon")
	}
	if len(r.shown()) != 8 {
		t.Error("the last known state went")
	}
	r.fake.Edit(func(s *dom0.Snapshot) { s.Link, s.Problem = dom0.Connected, "" })
	if r.button("Start").Disabled() || len(r.m.link.box.Objects) != 0 {
		t.Error("the window does not come back to life")
	}
}

func TestTheTipExplainsAWeakIsolation(t *testing.T) {
	r := dark(t, household())
	i := slices.IndexFunc(r.m.table.cols, func(c column) bool { return c.key == colIsolation })
	row := slices.Index(r.shown(), "media")
	at := fyne.NewPos(r.m.table.places[i].x+4, float32(row*rowHeight+10))
	r.m.table.body.MouseMoved(&desktop.MouseEvent{PointEvent: fyne.PointEvent{Position: at, AbsolutePosition: at}})
	if len(r.late) == 0 {
		t.Fatal("no tip was asked for")
	}
	r.late[len(r.late)-1]()
	if len(r.m.tip.layer.Objects) < 2 {
		t.Error("no tip")
	}
	r.m.table.body.MouseOut()
	if len(r.m.tip.layer.Objects) != 0 {
		t.Error("the tip stays")
	}
}

func TestTheThemeChangesWhileTheWindowIsOpen(t *testing.T) {
	r := dark(t, household())
	fyne.CurrentApp().Settings().SetTheme(theme.NewForced(fynetheme.VariantLight))
	r.m.table.body.Refresh()
	want := theme.NewForced(fynetheme.VariantLight).Color(fynetheme.ColorNameForeground, 0)
	for _, l := range test.WidgetRenderer(r.m.table.body).(*bodyRenderer).lines {
		if got := l.cells[0].Color; got != want {
			t.Fatalf("a name is drawn in %v, want %v", got, want)
		}
	}
}

func TestClosedManagersHearNothing(t *testing.T) {
	r := dark(t, household())
	r.m.Close()
	r.fake.EditQube("work", func(q *dom0.Qube) { q.Name = "changed" })
	if _, ok := r.m.state.ByName("changed"); ok {
		t.Error("a closed Manager follows the daemon")
	}
}

func TestTheMenuIsForTheRowUnderThePointer(t *testing.T) {
	r := dark(t, household())
	r.click("vault", desktop.MouseButtonSecondary, 0)
	if !slices.ContainsFunc(r.objects(), func(o fyne.CanvasObject) bool { _, ok := o.(*widget.Menu); return ok }) &&
		!slices.ContainsFunc(r.objects(), func(o fyne.CanvasObject) bool { _, ok := o.(*widget.PopUpMenu); return ok }) {
		t.Error("no menu at the row")
	}
	if got := r.m.table.chosen(); len(got) != 1 || got[0].Name != "vault" {
		t.Errorf("the menu is for %v", got)
	}
	r.canvas.Overlays().Remove(r.canvas.Overlays().Top())
	r.m.Focus()
	r.press(desktop.KeyMenu)
	if r.canvas.Overlays().Top() == nil {
		t.Error("no menu by the keyboard")
	}
}

func TestTheStatusLineCountsWindowsAndRemembersTheBackup(t *testing.T) {
	r := dark(t, household())
	r.pick("work")
	r.mustSay("App qube on debian-12 · started 10:42 · last backup: never · 2 vCPUs · 400 MB memory · offline")
	r.m.counted(map[string]int{"work": 3, "no qube": 1})
	r.mustSay("App qube on debian-12 · started 10:42 · 3 windows · last backup: never · 2 vCPUs · 400 MB memory · offline")
	r.m.counted(map[string]int{"work": 1})
	r.fake.EditQube("work", func(q *dom0.Qube) { q.LastBackup = noon.Add(-49 * time.Hour) })
	r.mustSay("App qube on debian-12 · started 10:42 · 1 window · last backup: 12 Mar 11:00 · 2 vCPUs · 400 MB memory · offline")
	r.m.counted(map[string]int{})
	r.mustSay("App qube on debian-12 · started 10:42 · 0 windows · last backup: 12 Mar 11:00 · 2 vCPUs · 400 MB memory · offline")
	r.pick("vault") // off: it cannot have windows
	r.mustSay("App qube on debian-12 · halted · last backup: never · 2 vCPUs · 400 MB memory · offline")
}

func TestStandaloneAndDisposableTemplateAreAskedForByTheirNames(t *testing.T) {
	r := dark(t, household())
	for kind, call := range map[string]string{
		"Standalone":          "create mail StandaloneVM red debian-12",
		"Disposable template": "create mail AppVM red debian-12 template_for_dispvms=True",
	} {
		r.control(fyne.KeyN)
		r.write("mail")
		r.tapChip(kind)
		r.tap("Create")
		r.asked(call)
	}
}

func TestDiskUpdatesAndDisposablesShowWhereTheyMatter(t *testing.T) {
	s := household()
	s.Disk = dom0.Disk{Size: 100e9, Used: 12e9}
	r := dark(t, s)
	r.mustSay("8 qubes · 4 running · 848 MB of memory in use · 12 GB of 100 GB disk in use")
	r.fake.Edit(func(s *dom0.Snapshot) { s.Disk.Used = 97e9 })
	r.mustSay("Only 3.0 GB of disk are left: remove what is not needed, or qubes will fail to start.")

	r.fake.EditQube("debian-12", func(q *dom0.Qube) { q.Updates = true })
	r.pick("debian-12")
	r.mustSay("There are updates for it.")
	if text := (column{key: colTemplate}).text(&r.m.table.chosen()[0]); text != "(template) · updates" {
		t.Errorf("the table says %q", text)
	}
	r.fake.EditQube("vault", func(q *dom0.Qube) { q.DisposableTemplate = true })
	r.pick("vault")
	r.mustSay("Disposable template on debian-12 · halted · last backup: never · 2 vCPUs · 400 MB memory · offline")

	disposables := r.m.chips[groupDisposables]
	if disposables.Visible() {
		t.Error("there is a chip for disposables without one")
	}
	r.fake.Edit(func(s *dom0.Snapshot) {
		q := appQube("disp123", "red", dom0.Running)
		q.Class, q.Template = dom0.DispVM, "vault"
		s.Qubes = append(s.Qubes, q)
	})
	if !disposables.Visible() || disposables.Count != 1 {
		t.Errorf("one disposable: the chip counts %d", disposables.Count)
	}
	test.Tap(disposables)
	if got := r.shown(); !slices.Equal(got, []string{"disp123"}) {
		t.Errorf("the disposables are %v", got)
	}
	r.fake.Edit(func(s *dom0.Snapshot) {
		s.Qubes = slices.DeleteFunc(s.Qubes, func(q dom0.Qube) bool { return q.Class == dom0.DispVM })
	})
	if disposables.Visible() || len(r.shown()) != 8 {
		t.Errorf("without a disposable the table shows %v", r.shown())
	}
}

func TestRemovingTellsOfTheLastBackup(t *testing.T) {
	r := dark(t, household())
	r.fake.EditQube("vault", func(q *dom0.Qube) { q.LastBackup = noon.Add(-49 * time.Hour) })
	r.pick("vault")
	r.press(fyne.KeyDelete)
	r.mustSay("All its files are deleted. Its last backup is of 12 Mar 11:00.")
}
