package manager

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/test"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/app/words"
	"cubicle/theme"
)

// noon is when the tests take place.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

const weakness = "The qube has a kernel of its own in user space; a flaw in it reaches dom0."

func labelled(name string) dom0.Label {
	labels := dom0test.Labels()
	return labels[slices.IndexFunc(labels, func(l dom0.Label) bool { return l.Name == name })]
}

func appQube(name, labelName string, state dom0.State) dom0.Qube {
	q := dom0.Qube{
		ID: dom0.QubeID("id-" + name), Name: dom0.Name(name), Class: dom0.AppVM, Label: labelled(labelName), State: state,
		Template: "debian-12", XID: -1, Engine: "runsc", Isolation: "gVisor", Weakness: weakness,
		MemoryMax: 400, VCPUs: 2, User: "user", Disk: 2_100_000_000,
	}
	if state.IsUp() {
		q.XID, q.Started, q.MemoryUsed, q.CPU = 0x8000, noon.Add(-78*time.Minute), 212<<20, 4
	}
	return q
}

func templateQube(name string) dom0.Qube {
	q := appQube(name, "black", dom0.Halted)
	q.Class, q.Template, q.Disk = dom0.TemplateVM, "", 612_000_000
	return q
}

// household is a small system with one of everything.
func household() dom0.Snapshot {
	broken := appQube("import", "purple", dom0.NA)
	broken.Problem = "qube.toml line 4: there is no label “mauve”"
	weak := appQube("media", "orange", dom0.Halted)
	weak.Engine, weak.Isolation, weak.Weakness = "crun", "namespaces", "The qube shares the host's kernel."
	old := appQube("personal", "yellow", dom0.Running)
	old.Outdated, old.NetVM = true, "sys-net"
	paused := appQube("sys-net", "gray", dom0.Paused)
	starting := appQube("untrusted", "red", dom0.Transient)
	return dom0.Snapshot{
		Link:   dom0.Connected,
		Labels: dom0test.Labels(),
		Qubes: []dom0.Qube{
			templateQube("debian-12"), broken, weak, old, paused, starting,
			appQube("vault", "black", dom0.Halted), appQube("work", "blue", dom0.Running),
		},
		Jobs: []dom0.Job{{ID: "1", Kind: "start", Qube: "untrusted", State: dom0.JobRunning,
			Text: "Starting untrusted — booting", Progress: 0.5}},
		Devices: []dom0.Device{
			{DeviceRef: dom0.DeviceRef{Class: dom0.Block, Backend: "dom0", Port: "sda1", ID: "disk"}, Offered: true, Title: "Backup disk", Size: 2e12,
				Assignments: []dom0.Assignment{{Qube: "vault", Mode: dom0.Required}}},
			{DeviceRef: dom0.DeviceRef{Class: dom0.PCI, Backend: "dom0", Port: "00_1f.6", ID: "8086:15fb::p020000"}, Offered: true, Title: "Intel Ethernet Connection (13) I219-LM"},
			{DeviceRef: dom0.DeviceRef{Class: dom0.USB, Backend: "sys-usb", Port: "2-1", ID: "*"}, Assignments: []dom0.Assignment{{Qube: "vault", Mode: dom0.AskToAttach}}},
			{DeviceRef: dom0.DeviceRef{Class: dom0.USB, Backend: "sys-usb", Port: "2-2", ID: "046d:c31c"}, Offered: true, Title: "Logitech Keyboard K120"},
		},
		Engines:         []dom0.Engine{{Name: "runsc", Isolation: "gVisor", Weakness: weakness}},
		DefaultTemplate: "debian-12", DefaultEngine: "runsc",
	}
}

// rig is a Manager in a window of the test driver.
type rig struct {
	t      testing.TB
	fake   *dom0test.Fake
	window fyne.Window
	canvas fyne.Canvas
	m      *Manager
	now    time.Time
	late   []func()
}

func open(t testing.TB, s dom0.Snapshot, variant fyne.ThemeVariant) *rig {
	t.Helper()
	return openIn(t, s, variant, "en", fyne.NewSize(1040, 600))
}

// openIn opens the window in a language and a size.
func openIn(t testing.TB, s dom0.Snapshot, variant fyne.ThemeVariant, language string, size fyne.Size) *rig {
	t.Helper()
	words.Use(language)
	t.Cleanup(func() { words.Use("en") })
	a := test.NewTempApp(t)
	a.Settings().SetTheme(theme.NewForced(variant))
	w := a.NewWindow("Qube Manager")
	w.SetPadded(false)
	r := &rig{t: t, fake: dom0test.NewFake(s), window: w, canvas: w.Canvas(), now: noon}
	r.m = New(r.fake, Options{
		Canvas:      w.Canvas(),
		Preferences: a.Preferences(),
		Clipboard:   a.Clipboard(),
		Spawn:       func(f func()) { f() },
		UI:          func(f func()) { f() },
		Later:       func(_ time.Duration, f func()) func() { r.late = append(r.late, f); return func() {} },
		Now:         func() time.Time { return r.now },
	})
	w.SetContent(r.m.Content())
	w.Resize(size)
	t.Cleanup(func() { r.m.Close(); w.Close() })
	return r
}

func dark(t testing.TB, s dom0.Snapshot) *rig { return open(t, s, fynetheme.VariantDark) }

// shown are the names in the table, top down.
func (r *rig) shown() []string {
	var names []string
	for i := range r.m.table.rows {
		names = append(names, string(r.m.table.rows[i].qube.Name))
	}
	return names
}

// place is a point in the row of that qube, in the window.
func (r *rig) place(name string) fyne.Position {
	r.t.Helper()
	i := slices.Index(r.shown(), name)
	if i < 0 {
		r.t.Fatalf("%s is not in the table: %v", name, r.shown())
	}
	at := fyne.CurrentApp().Driver().AbsolutePositionForObject(r.m.table.body)
	return at.Add(fyne.NewPos(60, float32(i*rowHeight+rowHeight/2)))
}

// click presses and releases a button on a qube's row, as a mouse does.
func (r *rig) click(name string, button desktop.MouseButton, modifier fyne.KeyModifier) {
	r.t.Helper()
	at := r.place(name)
	inside := at.Subtract(fyne.CurrentApp().Driver().AbsolutePositionForObject(r.m.table.body))
	point := fyne.PointEvent{Position: inside, AbsolutePosition: at}
	ev := &desktop.MouseEvent{PointEvent: point, Button: button, Modifier: modifier}
	r.m.table.body.MouseDown(ev)
	r.m.table.body.MouseUp(ev)
	if button == desktop.MouseButtonSecondary {
		r.m.table.body.TappedSecondary(&point)
		return
	}
	r.m.table.body.Tapped(&point)
}

func (r *rig) pick(name string) {
	r.t.Helper()
	r.now = r.now.Add(time.Second) // never a double tap with what was before
	r.click(name, desktop.MouseButtonPrimary, 0)
}

// press sends keys to what has the focus, as the driver does.
func (r *rig) press(keys ...fyne.KeyName) {
	for _, k := range keys {
		ev := &fyne.KeyEvent{Name: k}
		if f := r.canvas.Focused(); f != nil {
			f.TypedKey(ev)
		} else if on := r.canvas.OnTypedKey(); on != nil {
			on(ev)
		}
	}
}

// write types text into what has the focus.
func (r *rig) write(text string) {
	for _, c := range text {
		if f := r.canvas.Focused(); f != nil {
			f.TypedRune(c)
		} else if on := r.canvas.OnTypedRune(); on != nil {
			on(c)
		}
	}
}

// control presses Ctrl and a key.
func (r *rig) control(key fyne.KeyName) {
	s := &desktop.CustomShortcut{KeyName: key, Modifier: fyne.KeyModifierControl}
	if f, ok := r.canvas.Focused().(fyne.Shortcutable); ok {
		f.TypedShortcut(s)
		return
	}
	r.m.shortcut(s) // what the canvas calls; the test driver's keeps no shortcuts
}

// objects is everything that people see: the overlay's when there is one.
func (r *rig) objects() []fyne.CanvasObject {
	if top := r.canvas.Overlays().Top(); top != nil {
		return test.LaidOutObjects(top)
	}
	return test.LaidOutObjects(r.m.Content())
}

// button finds a visible button by its word.
func (r *rig) button(word string) *control.Button {
	r.t.Helper()
	for _, o := range r.objects() {
		if b, ok := o.(*control.Button); ok && b.Text == word && b.Visible() {
			return b
		}
	}
	r.t.Fatalf("there is no button %q", word)
	return nil
}

func (r *rig) tap(word string) {
	r.t.Helper()
	b := r.button(word)
	if b.Disabled() {
		r.t.Fatalf("the button %q is disabled", word)
	}
	test.Tap(b)
}

// tapChip taps the visible chip with that word.
func (r *rig) tapChip(word string) {
	r.t.Helper()
	for _, o := range r.objects() {
		if c, ok := o.(*control.Chip); ok && c.Title == word && c.Visible() {
			test.Tap(c)
			return
		}
	}
	r.t.Fatalf("there is no chip %q", word)
}

// choices are the visible choices, top down.
func (r *rig) choices() []*control.Select {
	var list []*control.Select
	for _, o := range r.objects() {
		if s, ok := o.(*control.Select); ok && s.Visible() {
			list = append(list, s)
		}
	}
	return list
}

// says reports whether a visible text is on the window.
func (r *rig) says(text string) bool {
	for _, o := range r.objects() {
		if l, ok := o.(*widget.Label); ok && l.Visible() && l.Text == text {
			return true
		}
	}
	return false
}

func (r *rig) mustSay(text string) {
	r.t.Helper()
	if !r.says(text) {
		var all []string
		for _, o := range r.objects() {
			if l, ok := o.(*widget.Label); ok && l.Visible() && l.Text != "" {
				all = append(all, l.Text)
			}
		}
		r.t.Errorf("the window does not say %q; it says %q", text, all)
	}
}

// asked compares the calls that reached the daemon since the last time.
func (r *rig) asked(want ...string) {
	r.t.Helper()
	if got := r.fake.Calls(); !slices.Equal(got, want) {
		r.t.Errorf("the daemon was asked %q, want %q", got, want)
	}
}

// menuItem runs an item of the open menu.
func (r *rig) menuItem(items []*fyne.MenuItem, word string) {
	r.t.Helper()
	for _, i := range items {
		if i.Label == word {
			if i.Disabled {
				r.t.Fatalf("the item %q is disabled", word)
			}
			i.Action()
			return
		}
	}
	r.t.Fatalf("there is no item %q", word)
}

func crowd(n int) dom0.Snapshot {
	s := household()
	s.Jobs = nil
	for i := range n - len(s.Qubes) {
		state := dom0.Halted
		if i%5 == 0 {
			state = dom0.Running
		}
		s.Qubes = append(s.Qubes, appQube(fmt.Sprintf("qube-%03d", i), dom0test.Labels()[i%8].Name, state))
	}
	return s
}
