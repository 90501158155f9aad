// Package create is the page on which a qube is made: one page, the name
// checked while it is typed, every mistake explained where it is.
package create

import (
	"fmt"
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
	"cubicle/theme"
)

// The kinds of qube, as the page names them.
const (
	KindApp      = "App qube"
	KindTemplate = "Template"
)

// Wish is what the page was filled in with.
type Wish struct {
	Name     dom0.Name
	Kind     string // KindApp or KindTemplate
	Label    string // of an app qube
	Template string // an app qube's template, or what a new template begins as
	StartNow bool
}

// Page is the form. Make it with New, put Content into a window, and hand
// the keyboard to First.
type Page struct {
	// OnCreate gets a complete wish; OnCancel ends the page.
	OnCreate func(Wish)
	OnCancel func()

	snapshot *dom0.Snapshot
	wish     Wish
	touched  bool // the name was typed in
	busy     bool

	content  fyne.CanvasObject
	name     *control.Entry
	fault    *canvas.Text
	colours  *Swatches
	kind     string
	kinds    []*control.Chip
	template *control.Select
	tempHint *canvas.Text
	start    *control.Check
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
	p.name = control.NewEntry("work, shopping, vault …")
	p.name.OnEscape = leave
	p.name.SetText(string(p.wish.Name))
	p.name.OnChanged = func(string) { p.touched = true; p.check() }
	p.name.OnSubmitted = func(string) { p.submit() }
	p.fault = canvas.NewText(" ", color.Transparent)

	p.colours = NewSwatches(nil, func(string) { p.check() })
	p.colours.OnEscape = leave

	kinds := container.NewHBox()
	for _, kind := range []string{KindApp, KindTemplate} {
		one := control.NewChip(kind, func() { p.setKind(kind) })
		one.OnEscape = leave
		p.kinds = append(p.kinds, one)
		kinds.Add(one)
	}

	p.template = control.NewSelect(nil, func(string) { p.check() })
	p.template.OnEscape = leave
	p.tempHint = canvas.NewText("", color.Transparent)

	p.start = control.NewCheck("Start it now", nil)
	p.start.OnEscape = leave
	p.start.Checked = p.wish.Name == "" || p.wish.StartNow

	p.cancel = control.NewButton("Cancel", nil, leave)
	p.cancel.OnEscape = leave
	p.create = control.NewButton("Create", nil, p.submit)
	p.create.OnEscape = leave
	p.create.Importance = widget.HighImportance

	p.failure = widget.NewLabel("")
	p.failure.Wrapping = fyne.TextWrapWord
	p.failure.Importance = widget.DangerImportance
	p.failBox = container.NewStack(p.failure)
	p.failBox.Hide()

	title := widget.NewLabel("New qube")
	title.TextStyle.Bold = true
	title.SizeName = fynetheme.SizeNameHeadingText
	form := container.New(&formLayout{},
		caption("Name"), p.name, blank(), p.fault,
		caption("Kind"), kinds,
		caption("Colour"), p.colours,
		caption("Template"), container.NewStack(p.template, control.NewGround("", fynetheme.ColorNameInputBorder, 6)), blank(), p.tempHint,
		blank(), p.start)
	buttons := container.NewHBox(layout.NewSpacer(), p.cancel, p.create)
	p.content = container.NewBorder(container.NewVBox(title, p.failBox), buttons, nil, nil, form)

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
			templates = append(templates, s.Qubes[i].Name)
		}
	}
	if !slices.Equal(templates, p.template.Options) {
		p.template.SetOptions(templates)
	}
	if !slices.Contains(templates, p.template.Selected) {
		choice := p.wish.Template
		if !slices.Contains(templates, choice) {
			choice = s.DefaultTemplate
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
		choice := p.wish.Label
		if choice == "" && len(s.Labels) > 0 {
			choice = s.Labels[0].Name
		}
		p.colours.Select(choice)
	}
	p.check()
}

func (p *Page) setKind(kind string) {
	p.kind = kind
	for _, one := range p.kinds {
		one.Set(-1, one.Title == kind)
	}
	if p.kind == KindTemplate {
		p.colours.Hide()
		p.start.Hide()
	} else {
		p.colours.Show()
		p.start.Show()
	}
	p.check()
	if p.content != nil {
		p.content.Refresh()
	}
}

// nameFault is why the name cannot be used, or "".
func (p *Page) nameFault() string {
	text := p.name.Text
	if why := dom0.NameFault(text); why != "" {
		return why
	}
	for i := range p.snapshot.Qubes {
		if p.snapshot.Qubes[i].Name == text {
			return fmt.Sprintf("there is a qube %s already", text)
		}
	}
	return ""
}

func (p *Page) templateFault() string {
	switch {
	case len(p.template.Options) == 0:
		return "There is no template yet. “cubicle up” makes one."
	case p.template.Selected == "":
		return "Choose a template."
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
		quiet(p.fault, "Letters, digits, “_”, “.” and “-”; a letter first.")
	default:
		wrong(p.fault, upperFirst(name)+".")
	}
	switch {
	case template != "":
		wrong(p.tempHint, template)
	case p.kind == KindTemplate:
		quiet(p.tempHint, fmt.Sprintf("The new template begins as a copy of %s.", p.template.Selected))
	default:
		quiet(p.tempHint, "Its programs come from here; its files stay its own.")
	}
	p.create.Able(name == "" && template == "" && !p.busy)
}

func upperFirst(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

func (p *Page) submit() {
	p.touched = true
	p.check()
	name, err := dom0.ParseName(p.name.Text)
	if err != nil || p.create.Disabled() {
		return
	}
	p.SetBusy(true)
	p.OnCreate(Wish{
		Name:     name,
		Kind:     p.kind,
		Label:    p.colours.Selected,
		Template: p.template.Selected,
		StartNow: p.start.Checked && p.kind == KindApp,
	})
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
	p.content.Refresh()
}
