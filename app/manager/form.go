package manager

import (
	"context"
	"slices"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/create"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
)

// form is a page of settings: some rows of the property table, each in a
// field of its own kind. A change goes to the daemon when it is made; what
// the daemon has against it stands below the field.
type form struct {
	pane   *host
	word   string
	names  []string // the rows, in order; those that a qube has not are left out
	box    fyne.CanvasObject
	list   *fyne.Container
	fields []*field
	of     dom0.QubeID
}

func newForm(p *host, word string, names ...string) *form {
	f := &form{pane: p, word: word, names: names, list: container.New(layout.NewFormLayout())}
	f.box = container.NewVScroll(container.New(layout.NewCustomPaddedLayout(0, 0, 0, 16), f.list))
	return f
}

func (f *form) title() string           { return f.word }
func (f *form) body() fyne.CanvasObject { return f.box }

// leave takes what was typed and not confirmed.
func (f *form) leave() {
	for _, one := range f.fields {
		one.typed()
	}
}

func (f *form) show(q dom0.Qube, _ bool) {
	var rows []dom0.Property
	f.pane.ask(func(ctx context.Context) (err error) {
		rows, err = f.pane.manager.client.Properties(ctx, q.ID)
		return err
	}, func() { f.draw(q.ID, rows) })
}

// draw brings the fields in line with the rows; it makes them anew only for
// another qube, so that the keyboard stays where it is.
func (f *form) draw(id dom0.QubeID, rows []dom0.Property) {
	var own []dom0.Property
	for _, name := range f.names {
		if i := slices.IndexFunc(rows, func(r dom0.Property) bool { return r.Name == name }); i >= 0 {
			own = append(own, rows[i])
		}
	}
	same := id == f.of && slices.EqualFunc(own, f.fields, func(r dom0.Property, one *field) bool { return r.Name == one.row.Name })
	if !same {
		f.of, f.fields = id, nil
		f.list.RemoveAll()
		for _, row := range own {
			one := newField(f.pane, row, f.wide())
			f.fields = append(f.fields, one)
			f.list.Add(one.caption())
			f.list.Add(one.box)
		}
	}
	for i, one := range f.fields {
		one.set(own[i])
	}
	f.box.Refresh() // the scroller gives the list its room
}

// wide is what a field may have beside its caption.
func (f *form) wide() float32 {
	widest := float32(0)
	for _, name := range f.names {
		widest = max(widest, fyne.MeasureText(settingWord(name), f.pane.manager.textSize(), fyne.TextStyle{}).Width)
	}
	return f.pane.room() - widest - 56
}

// field is one property.
type field struct {
	pane *host
	row  dom0.Property
	box  *fyne.Container

	entry   *control.Entry
	check   *control.Check
	colours *create.Swatches
	choice  *control.Select
	values  []option // of the choice

	reset *control.Button
	hint  *fyne.Container // lines below the field
	said  string          // what stands in them
	bad   bool            // and whether it is a refusal
	wide  float32         // what they may have
	quiet bool            // what changes in a field now is not people's doing
}

// option is something that can be chosen.
type option struct {
	text  string
	value string
	unset bool // back to the default
}

// caption is the property's name in people's words.
func (f *field) caption() fyne.CanvasObject {
	paint := control.NewPainter()
	text := canvas.NewText(settingWord(f.row.Name), paint.Ink(fynetheme.ColorNameForeground))
	text.TextSize = paint.Size(fynetheme.SizeNameText)
	return container.New(layout.NewCustomPaddedLayout(8, 0, 0, 8), container.NewVBox(text))
}

func newField(p *host, row dom0.Property, wide float32) *field {
	f := &field{pane: p, row: row, wide: wide, hint: container.New(layout.NewCustomPaddedVBoxLayout(0))}
	f.reset = control.NewButton(words.T("Default"), nil, f.back)
	f.reset.Importance = widget.LowImportance
	f.reset.OnEscape = p.escape
	var input fyne.CanvasObject
	switch {
	case row.Type == "bool":
		f.check = control.NewCheck("", func(on bool) { f.want(map[bool]string{true: "True", false: "False"}[on]) })
		f.check.OnEscape = p.escape
		input = f.check
	case row.Type == "label":
		f.colours = create.NewSwatches(p.manager.state.Labels, f.want)
		f.colours.OnEscape = p.escape
		input = f.colours
	case row.Type == "vm" || row.Name == "engine":
		f.choice = control.NewSelect(nil, func(text string) { f.choose(text) })
		f.choice.OnEscape = p.escape
		input = container.NewStack(f.choice, control.NewGround("", fynetheme.ColorNameInputBorder, 6))
	default:
		f.entry = control.NewEntry("")
		f.entry.OnEscape = p.escape
		f.entry.OnSubmitted = func(string) { f.typed() }
		f.entry.OnChanged = func(string) { f.hinted() }
		input = f.entry
	}
	f.box = container.New(layout.NewCustomPaddedVBoxLayout(0), control.Border(nil, nil, nil, f.reset, input),
		container.New(layout.NewCustomPaddedLayout(2, 6, 4, 0), f.hint))
	return f
}

// set shows a row as the daemon has it now.
func (f *field) set(row dom0.Property) {
	before := f.row
	f.row, f.quiet = row, true
	defer func() { f.quiet = false }()
	switch {
	case f.check != nil:
		if on := row.Value == "True"; f.check.Checked != on {
			f.check.SetChecked(on)
		}
		able(f.check, row.Settable)
	case f.colours != nil:
		f.colours.Select(row.Value)
	case f.choice != nil:
		f.values = f.options()
		texts := make([]string, len(f.values))
		now := ""
		for i, o := range f.values {
			texts[i] = o.text
			if o.unset == row.Default && (o.unset || o.value == row.Value) {
				now = o.text
			}
		}
		if !slices.Equal(texts, f.choice.Options) {
			f.choice.SetOptions(texts)
		}
		if f.choice.Selected != now {
			f.choice.SetSelected(now)
		}
		able(f.choice, row.Settable)
	default:
		// What people type is not taken from under their hands.
		if f.entry.Text == before.Value || f.entry.Text == "" {
			f.entry.SetText(row.Value)
		}
		able(f.entry, row.Settable)
	}
	control.Show(f.reset, row.Settable && !row.Default && f.choice == nil && row.Type != "label")
	f.hinted()
}

// able lets people change a widget or not.
func able(w fyne.Disableable, settable bool) {
	switch {
	case settable && w.Disabled():
		w.Enable()
	case !settable && !w.Disabled():
		w.Disable()
	}
}

// hinted says below the field what the property means.
func (f *field) hinted() {
	text := words.Known(f.row.Help)
	q := &f.pane.subject
	switch {
	case f.row.Name == "engine" && q.Weakness != "":
		text = q.Isolation + ": " + words.Known(q.Weakness)
	case f.entry != nil && f.row.Settable && strings.TrimSpace(f.entry.Text) != f.row.Value:
		text = words.T("Press Enter to change it.")
	}
	if !f.row.Settable && isUp(q) {
		text += " " + words.T("It can be changed while the qube is off.")
	}
	f.say(text, false)
}

func (f *field) say(text string, bad bool) {
	if f.said == text && f.bad == bad {
		return
	}
	f.said, f.bad = text, bad
	paint := control.NewPainter()
	ink, small := paint.Ink(theme.Muted), paint.Size(fynetheme.SizeNameCaptionText)
	if bad {
		ink = paint.Ink(fynetheme.ColorNameError)
	}
	f.hint.RemoveAll()
	for _, line := range wrap(text, f.wide, small) {
		one := canvas.NewText(line, ink)
		one.TextSize = small
		f.hint.Add(one)
	}
}

// options are the values of a choice, the default first.
func (f *field) options() []option {
	first := option{text: words.T("Default"), unset: true}
	if f.row.Default {
		first.text = words.T("Default (%s)", f.optionText(f.row.Value))
	}
	list := []option{first}
	if f.row.Type == "vm" && f.row.Name != "template" {
		none := words.T("offline")
		if f.row.Name != "netvm" {
			none = words.T("none")
		}
		list = append(list, option{text: none, value: ""})
	}
	if f.row.Name == "template" {
		list = nil // it has no default once it is chosen
		if f.row.Default {
			list = []option{first}
		}
	}
	state := f.pane.manager.state
	if f.row.Name == "engine" {
		for _, e := range state.Engines {
			list = append(list, option{text: f.optionText(e.Name), value: e.Name})
		}
	}
	for i := range state.Qubes {
		q := &state.Qubes[i]
		fits := f.row.Name == "template" && q.Class == dom0.TemplateVM || f.row.Name == "default_dispvm" && q.DisposableTemplate ||
			f.row.Name == "netvm" && q.ID != f.pane.subject.ID && givesNetwork(state, q)
		if fits {
			list = append(list, option{text: string(q.Name), value: string(q.Name)})
		}
	}
	// What it is now can be kept, whatever it is.
	if !f.row.Default && !slices.ContainsFunc(list, func(o option) bool { return !o.unset && o.value == f.row.Value }) {
		list = append(list, option{text: f.optionText(f.row.Value), value: f.row.Value})
	}
	return list
}

// givesNetwork reports whether a qube is one that others have their network
// from, or says of itself that it gives some.
func givesNetwork(s *dom0.Snapshot, q *dom0.Qube) bool {
	return q.ProvidesNetwork || slices.ContainsFunc(s.Qubes, func(other dom0.Qube) bool { return other.NetVM == q.Name })
}

func (f *field) optionText(value string) string {
	switch {
	case value == "" && f.row.Name == "netvm":
		return words.T("offline")
	case value == "":
		return words.T("none")
	case f.row.Name == "engine":
		for _, e := range f.pane.manager.state.Engines {
			if e.Name == value {
				return e.Isolation + " (" + e.Name + ")"
			}
		}
	}
	return string(dom0.CleanLine(value))
}

func (f *field) choose(text string) {
	i := slices.IndexFunc(f.values, func(o option) bool { return o.text == text })
	switch {
	case f.quiet || i < 0:
	case f.values[i].unset:
		f.back()
	default:
		f.want(f.values[i].value)
	}
}

// typed takes what is in the entry, if it is new.
func (f *field) typed() {
	if f.entry == nil || !f.row.Settable {
		return
	}
	if text := strings.TrimSpace(f.entry.Text); text != f.row.Value {
		f.want(text)
	}
}

// want changes the property.
func (f *field) want(value string) {
	if f.quiet || value == f.row.Value && !f.row.Default {
		return
	}
	client := f.pane.manager.client
	f.tell(func(ctx context.Context, id dom0.QubeID) error { return client.SetProperty(ctx, id, f.row.Name, value) })
}

// back gives the property its default.
func (f *field) back() {
	if f.row.Default {
		return
	}
	if f.entry != nil {
		f.entry.SetText(f.row.Value)
	}
	client := f.pane.manager.client
	f.tell(func(ctx context.Context, id dom0.QubeID) error { return client.ResetProperty(ctx, id, f.row.Name) })
}

func (f *field) tell(change func(context.Context, dom0.QubeID) error) {
	id := f.pane.subject.ID
	f.pane.manager.inquire(func(ctx context.Context) error { return change(ctx, id) }, func(err error) {
		if err == nil {
			f.pane.again(id)
			return
		}
		why := strings.TrimPrefix(reason(err), "Property "+f.row.Name+": ")
		if f.entry == nil {
			f.set(f.row) // a choice that did not come about is not shown
		}
		f.say(why, true)
	})
}

// settingWord is a property's name in people's words.
func settingWord(name string) string {
	switch name {
	case "label":
		return words.T("Colour")
	case "template":
		return words.T("Template")
	case "netvm":
		return words.T("Network")
	case "default_dispvm":
		return words.T("Its disposables")
	case "template_for_dispvms":
		return words.T("Makes disposables")
	case "autostart":
		return words.T("Autostart")
	case "include_in_backups":
		return words.T("In backups")
	case "default_user":
		return words.T("User")
	case "provides_network":
		return words.T("Gives network")
	case "visible_ip":
		return words.T("IP address")
	case "visible_gateway":
		return words.T("Gateway")
	case "mac":
		return words.T("MAC address")
	case "memory":
		return words.T("Memory (MB)")
	case "maxmem":
		return words.T("At most (MB)")
	case "vcpus":
		return words.T("vCPUs")
	case "engine":
		return words.T("Isolation")
	case "virt_mode":
		return words.T("Virtualization")
	case "kernel":
		return words.T("Kernel")
	case "kernelopts":
		return words.T("Kernel options")
	case "qrexec_timeout":
		return words.T("Start within (s)")
	case "shutdown_timeout":
		return words.T("Shut down within (s)")
	case "debug":
		return words.T("Debugging")
	}
	return name
}
