package manager

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/words"
)

// sheet is a page above the table: the one thing that is being decided.
type sheet struct {
	popup *widget.PopUp
	back  fyne.Focusable // what had the focus before
	over  fyne.Canvas
	wide  float32
	gone  func()
	stays bool // a question about it opens above it rather than in its place
}

// openSheet shows content, as wide as width if the window allows.
func openSheet(over fyne.Canvas, content fyne.CanvasObject, width float32, gone func()) *sheet {
	s := &sheet{over: over, back: over.Focused(), gone: gone, wide: width}
	s.popup = widget.NewModalPopUp(container.New(layout.NewCustomPaddedLayout(12, 12, 16, 16), content), over)
	s.fit()
	s.popup.Show()
	return s
}

// fit gives the sheet the height that its content needs.
func (s *sheet) fit() {
	size := fyne.NewSize(min(s.wide, s.over.Size().Width-48), s.popup.MinSize().Height)
	s.popup.Resize(size)
	// Fyne centres it when it is shown, and not again when it grows.
	if room := s.over.Size().Subtract(size); s.popup.Visible() && s.popup.Position() != (fyne.Position{}) {
		s.popup.Move(fyne.NewPos(room.Width/2, max(0, room.Height/2)))
	}
}

// close takes the sheet away and gives the focus back.
func (s *sheet) close() {
	s.popup.Hide()
	if s.back != nil {
		s.over.Focus(s.back)
	}
	if s.gone != nil {
		s.gone()
	}
}

// question asks before something that cannot be undone.
type question struct {
	icon   fyne.Resource
	title  string
	loss   string
	detail string // second paragraph, may be empty
	do     string // the button's word
	act    func()
}

// ask opens the question; Cancel has the focus, so that Enter, Space and Esc
// all change nothing.
func (m *Manager) ask(q question) {
	title := heading(q.title)
	loss := widget.NewLabel(q.loss)
	loss.Wrapping = fyne.TextWrapWord
	text := container.NewVBox(title, loss)
	if q.detail != "" {
		detail := widget.NewLabel(q.detail)
		detail.Wrapping = fyne.TextWrapWord
		text.Add(detail)
	}
	icon := canvas.NewImageFromResource(q.icon)
	icon.SetMinSize(fyne.NewSquareSize(28))
	cancel := control.NewButton(words.T("Cancel"), nil, m.closeSheet)
	cancel.OnEscape = m.closeSheet
	do := control.NewButton(q.do, nil, func() {
		m.closeSheet()
		q.act()
	})
	do.Importance = widget.DangerImportance
	do.OnEscape = m.closeSheet
	// The picture stands beside the title; the text below it gets its height
	// from the width that it will have.
	const width = 480
	text.Resize(fyne.NewSize(width-96, text.MinSize().Height))
	body := control.Border(nil, nil, container.New(layout.NewCustomPaddedLayout(8, 0, 0, 8), container.NewVBox(icon)), nil, text)
	content := control.Border(nil, container.New(layout.NewCustomPaddedLayout(12, 0, 0, 0),
		container.NewHBox(layout.NewSpacer(), cancel, do)), nil, nil, body)
	m.openSheet(content, width)
	m.canvas.Focus(cancel)
}

// heading is a sheet's title.
func heading(text string) *widget.Label {
	l := widget.NewLabel(text)
	l.TextStyle.Bold = true
	l.SizeName = fynetheme.SizeNameSubHeadingText
	l.Wrapping = fyne.TextWrapWord
	return l
}

// prompt asks for one line of text, or for one of several.
type prompt struct {
	title       string
	hint        string
	placeholder string
	text        string
	options     []string // what can be chosen; empty: any text
	do          string
	// check returns why the text cannot be used, or "".
	check func(string) string
	// extra stands below the entry, may be nil.
	extra fyne.CanvasObject
	act   func(string)
	// try is act where the daemon may refuse the text: the prompt stays open
	// until done(nil).
	try func(text string, done func(error))
}

// askText opens the prompt.
func (m *Manager) askText(p prompt) {
	var field fyne.CanvasObject
	var first fyne.Focusable
	entry, choice := control.NewEntry(p.placeholder), control.NewSelect(p.options, nil)
	text := func() string { return entry.Text }
	if len(p.options) > 0 {
		choice.SetSelected(p.text)
		choice.OnEscape = m.closeSheet
		text = func() string { return choice.Selected }
		field, first = container.NewStack(choice, control.NewGround("", fynetheme.ColorNameInputBorder, 6)), choice
	} else {
		entry.SetText(p.text)
		field, first = entry, entry
	}
	fault := newFault()
	submit := func() {}
	do := control.NewButton(p.do, nil, func() { submit() })
	do.Importance = widget.HighImportance
	do.OnEscape = m.closeSheet
	cancel := control.NewButton(words.T("Cancel"), nil, m.closeSheet)
	cancel.OnEscape = m.closeSheet
	entry.OnEscape = m.closeSheet
	touched := false
	check := func() {
		why := p.check(text())
		do.Able(why == "")
		if text() == "" && !touched {
			why = "" // nothing typed yet is no mistake
		}
		fault.set(why)
	}
	entry.OnChanged = func(string) { touched = true; check() }
	choice.OnChanged = func(string) { touched = true; check() }
	var own *sheet
	submit = func() {
		touched = true
		check()
		if p.check(text()) != "" {
			return
		}
		if p.try == nil {
			m.closeSheet()
			p.act(text())
			return
		}
		do.Able(false)
		p.try(text(), func(err error) {
			if m.sheet != own {
				return // people went on
			}
			do.Able(true)
			if err != nil {
				fault.set(reason(err))
				return
			}
			m.closeSheet()
		})
	}
	entry.OnSubmitted = func(string) { submit() }
	check()
	body := container.NewVBox(heading(p.title))
	if p.hint != "" {
		hint := widget.NewLabel(p.hint)
		hint.Wrapping = fyne.TextWrapWord
		body.Add(hint)
	}
	body.Add(field)
	body.Add(fault.box)
	if p.extra != nil {
		body.Add(p.extra)
	}
	body.Add(container.NewHBox(layout.NewSpacer(), cancel, do))
	m.openSheet(body, promptWide)
	own = m.sheet
	m.canvas.Focus(first)
}

const promptWide = 460

// fault is the place below a field where its mistake is explained: two lines
// that are there also while there is none, so that nothing jumps.
type fault struct {
	box   *fyne.Container
	lines [2]*canvas.Text
}

func newFault() *fault {
	f := &fault{box: container.New(layout.NewCustomPaddedVBoxLayout(0))}
	for i := range f.lines {
		f.lines[i] = canvas.NewText("", nil)
		f.box.Add(container.New(layout.NewCustomPaddedLayout(0, 0, 8, 0), f.lines[i]))
	}
	f.set("")
	return f
}

func (f *fault) set(why string) {
	paint := control.NewPainter()
	textSize := paint.Size(fynetheme.SizeNameText) - 1
	lines := wrap(why, promptWide-48, textSize)
	for i, t := range f.lines {
		text := ""
		if i < len(lines) {
			text = lines[i]
		}
		control.SetText(t, text, paint.Ink(fynetheme.ColorNameError), textSize)
	}
}
