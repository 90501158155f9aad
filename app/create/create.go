// Package create is the page on which a qube is made: one page, the name
// checked while it is typed, every mistake explained where it is.
package create

import (
	"image/color"
	"slices"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
)

// Wish is what the page was filled in with.
type Wish struct {
	Name     dom0.Name
	Kind     Kind
	Label    dom0.Label // of all but a template
	Template dom0.Name  // what it is based on, or what it begins as a copy of
	Network  Network    // of all but a template
	StartNow bool
	Advanced Advanced // of all but a template
}

// Page is the form. Make it with New, put Content into a window, and hand
// the keyboard to First.
type Page struct {
	// OnCreate gets a complete wish; OnCancel ends the page.
	OnCreate func(Wish)
	OnCancel func()
	// OnDraft asks for the property table of a new qube of a class on a
	// template; the answer goes to Offer. OnCheck asks what is wrong with a
	// property's value. OnGrown tells that the page needs another height. All
	// may be nil.
	OnDraft func(class dom0.Class, template string)
	OnCheck func(class dom0.Class, property, value string, answer func(why string))
	OnGrown func()

	snapshot *dom0.Snapshot
	wish     Wish
	touched  bool // the name was typed in
	busy     bool

	content  fyne.CanvasObject
	name     *control.Entry
	fault    *canvas.Text
	colours  *Swatches
	kind     Kind
	kinds    []*control.Chip
	template *control.Select
	tempHint *canvas.Text
	network  *network
	start    *control.Check
	advanced *advanced
	drafted  draft // what table was asked for
	cancel   *control.Button
	create   *control.Button
	failure  *widget.Label
	failBox  *fyne.Container
}

// New fills the page with what s offers and with the wish of an earlier try.
func New(s *dom0.Snapshot, earlier Wish) *Page {
	p := &Page{snapshot: s, wish: earlier}
	p.build()
	p.Update(s)
	return p
}

// Content is the page as it is put into a window.
func (p *Page) Content() fyne.CanvasObject { return p.content }

// First is the widget that the keyboard begins at.
func (p *Page) First() fyne.Focusable { return p.name }

func (p *Page) build() {
	leave := func() { p.OnCancel() }
	p.name = control.NewEntry(words.T("work, shopping, vault …"))
	p.name.OnEscape = leave
	p.name.SetText(string(p.wish.Name))
	p.name.OnChanged = func(string) { p.touched = true; p.check() }
	p.name.OnSubmitted = func(string) { p.submit() }
	p.fault = canvas.NewText(" ", color.Transparent)

	p.colours = NewSwatches(nil, func(string) { p.check() })
	p.colours.OnEscape = leave

	kinds := container.NewHBox()
	for _, kind := range Kinds() {
		one := control.NewChip(kind.Title(), func() { p.setKind(kind) })
		one.OnEscape = leave
		p.kinds = append(p.kinds, one)
		kinds.Add(one)
	}

	p.template = control.NewSelect(nil, func(string) { p.check() })
	p.template.OnEscape = leave
	p.tempHint = canvas.NewText("", color.Transparent)

	p.network = newNetwork(p, p.wish.Network)

	p.start = control.NewCheck(words.T("Start it now"), nil)
	p.start.OnEscape = leave
	p.start.Checked = p.wish.Name == "" || p.wish.StartNow

	p.cancel = control.NewButton(words.T("Cancel"), nil, leave)
	p.cancel.OnEscape = leave
	p.create = control.NewButton(words.T("Create"), nil, p.submit)
	p.create.OnEscape = leave
	p.create.Importance = widget.HighImportance

	p.failure = widget.NewLabel("")
	p.failure.Wrapping = fyne.TextWrapWord
	p.failure.Importance = widget.DangerImportance
	p.failBox = container.NewStack(p.failure)
	p.failBox.Hide()

	title := widget.NewLabel(words.T("New qube"))
	title.TextStyle.Bold = true
	title.SizeName = fynetheme.SizeNameHeadingText
	form := container.New(&formLayout{},
		caption(words.T("Name")), p.name, blank(), p.fault,
		caption(words.T("Kind")), kinds,
		caption(words.T("Colour")), p.colours,
		caption(words.T("Template")), container.NewStack(p.template, control.NewGround("", fynetheme.ColorNameInputBorder, 6)), blank(), p.tempHint,
		caption(words.T("Network")), p.network.box)
	p.advanced = newAdvanced(p, p.wish.Advanced)
	more := container.New(layout.NewCustomPaddedVBoxLayout(0), control.Border(nil, nil, p.start, p.advanced.toggle), p.advanced.box)
	buttons := container.NewHBox(layout.NewSpacer(), p.cancel, p.create)
	p.content = control.Border(container.NewVBox(title, p.failBox), buttons, nil, nil, container.New(layout.NewCustomPaddedVBoxLayout(4), form, more))

	kind := p.wish.Kind
	if kind == "" {
		kind = KindApp
	}
	p.setKind(kind)
}

// caption is a field's name.
func caption(text string) *widget.Label {
	l := widget.NewLabel(text)
	l.Alignment = fyne.TextAlignTrailing
	return l
}

func blank() fyne.CanvasObject { return canvas.NewText("", color.Transparent) }

// Update takes a newer snapshot: templates and names come and go while the
// page is open.
func (p *Page) Update(s *dom0.Snapshot) {
	p.snapshot = s
	var templates []string
	for i := range s.Qubes {
		if s.Qubes[i].Class == dom0.TemplateVM {
			templates = append(templates, string(s.Qubes[i].Name))
		}
	}
	if !slices.Equal(templates, p.template.Options) {
		p.template.SetOptions(templates)
	}
	if !slices.Contains(templates, p.template.Selected) {
		choice := string(p.wish.Template)
		if !slices.Contains(templates, choice) {
			choice = string(s.DefaultTemplate)
		}
		if !slices.Contains(templates, choice) && len(templates) > 0 {
			choice = templates[0]
		}
		if slices.Contains(templates, choice) {
			p.template.SetSelected(choice)
		} else {
			p.template.ClearSelected()
		}
	}
	p.colours.SetLabels(s.Labels)
	if p.colours.Selected == "" {
		choice := p.wish.Label.Name
		if choice == "" && len(s.Labels) > 0 {
			choice = s.Labels[0].Name
		}
		p.colours.Select(choice)
	}
	p.network.update(s)
	p.advanced.setEngines(s, p.advanced.wish().Engine)
	p.check()
}

// Offer takes the property table of the qube that the page would make.
func (p *Page) Offer(rows []dom0.Property) {
	p.network.offer(rows)
	p.advanced.offer(rows)
}

// draft is what a property table depends on.
type draft struct {
	class    dom0.Class
	template string
}

// draft asks for the table of another class or template.
func (p *Page) draft() {
	next := draft{p.kind.Class(), p.template.Selected}
	if next != p.drafted && next.template != "" && p.kind != KindTemplate && p.OnDraft != nil {
		p.drafted = next
		p.OnDraft(next.class, next.template)
	}
}

// Open asks for what the page needs to know; call it when the page is shown.
func (p *Page) Open() { p.draft() }

func (p *Page) grown() {
	if p.content != nil {
		p.content.Refresh()
	}
	if p.OnGrown != nil {
		p.OnGrown()
	}
}

func (p *Page) setKind(kind Kind) {
	p.kind = kind
	for i, one := range Kinds() {
		p.kinds[i].Set(-1, one == kind)
	}
	own := kind != KindTemplate // a template takes all else from what it copies
	control.Show(p.colours, own)
	control.Show(p.network.box, own)
	control.Show(p.start, kind.startsAtOnce())
	control.Show(p.advanced.toggle, own)
	if !own {
		p.advanced.fold(true)
	}
	p.check()
	p.grown()
}

// nameFault is why the name cannot be used, or "".
func (p *Page) nameFault() string {
	text := p.name.Text
	if why := dom0.NameFault(text); why != "" {
		return words.Known(why)
	}
	for i := range p.snapshot.Qubes {
		if string(p.snapshot.Qubes[i].Name) == text {
			return words.T("there is a qube %s already", text)
		}
	}
	return ""
}

func (p *Page) templateFault() string {
	switch {
	case len(p.template.Options) == 0:
		return words.T("There is no template yet. “cubicle up” makes one.")
	case p.template.Selected == "":
		return words.T("Choose a template.")
	}
	return ""
}

// check shows what is wrong, where it is wrong.
func (p *Page) check() {
	if p.content == nil {
		return
	}
	paint := control.NewPainter()
	textSize := paint.Size(fynetheme.SizeNameCaptionText) + 1
	wrong := func(t *canvas.Text, text string) {
		control.SetText(t, text, paint.Ink(fynetheme.ColorNameError), textSize)
	}
	quiet := func(t *canvas.Text, text string) { control.SetText(t, text, paint.Ink(theme.Muted), textSize) }

	name, template := p.nameFault(), p.templateFault()
	switch {
	case name == "" || !p.touched && p.name.Text == "":
		quiet(p.fault, words.T("Letters, digits, “_”, “.” and “-”; a letter first."))
	default:
		wrong(p.fault, upperFirst(name)+".")
	}
	switch {
	case template != "":
		wrong(p.tempHint, template)
	default:
		quiet(p.tempHint, p.kind.hint(p.template.Selected))
	}
	p.advanced.draw(paint)
	wrongMore := p.kind != KindTemplate && len(p.advanced.faults) > 0
	p.create.Able(name == "" && template == "" && !wrongMore && !p.busy)
	p.draft()
}

func upperFirst(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

// label is the chosen one of the snapshot's.
func (p *Page) label() dom0.Label {
	i := slices.IndexFunc(p.snapshot.Labels, func(l dom0.Label) bool { return l.Name == p.colours.Selected })
	if i < 0 {
		return dom0.Label{}
	}
	return p.snapshot.Labels[i]
}

func (p *Page) submit() {
	p.touched = true
	p.check()
	name, err := dom0.ParseName(p.name.Text)
	if err != nil || p.create.Disabled() {
		return
	}
	p.SetBusy(true)
	w := Wish{
		Name:     name,
		Kind:     p.kind,
		Label:    p.label(),
		Template: dom0.Name(p.template.Selected), // one of the snapshot's
		StartNow: p.start.Checked && p.kind.startsAtOnce(),
	}
	if p.kind != KindTemplate {
		w.Network, w.Advanced = p.network.wish(), p.advanced.wish()
	}
	p.OnCreate(w)
}

// SetBusy keeps a second press away while the daemon is asked.
func (p *Page) SetBusy(busy bool) {
	p.busy = busy
	p.check()
}

// Fail shows why the daemon refused; the page stays as it was filled in.
func (p *Page) Fail(reason string) {
	p.SetBusy(false)
	p.failure.SetText(reason)
	p.failBox.Show()
	p.grown()
}
