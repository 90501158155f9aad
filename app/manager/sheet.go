package manager

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
)

// sheet is a page above the table: the one thing that is being decided.
type sheet struct {
	popup *widget.PopUp
	back  fyne.Focusable // what had the focus before
	over  fyne.Canvas
	gone  func()
}

// openSheet shows content, as wide as width if the window allows.
func openSheet(over fyne.Canvas, content fyne.CanvasObject, width float32, gone func()) *sheet {
	s := &sheet{over: over, back: over.Focused(), gone: gone}
	s.popup = widget.NewModalPopUp(container.New(layout.NewCustomPaddedLayout(12, 12, 16, 16), content), over)
	s.popup.Resize(fyne.NewSize(min(width, over.Size().Width-48), s.popup.MinSize().Height))
	s.popup.Show()
	return s
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
	cancel := control.NewButton("Cancel", nil, m.closeSheet)
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
	body := container.NewBorder(nil, nil, container.New(layout.NewCustomPaddedLayout(8, 0, 0, 8), container.NewVBox(icon)), nil, text)
	content := container.NewBorder(nil, container.New(layout.NewCustomPaddedLayout(12, 0, 0, 0),
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

// prompt asks for one line of text.
type prompt struct {
	title       string
	hint        string
	placeholder string
	text        string
	do          string
	// check returns why the text cannot be used, or "".
	check func(string) string
	// extra stands below the entry, may be nil.
	extra fyne.CanvasObject
	act   func(string)
}

// askText opens the prompt.
func (m *Manager) askText(p prompt) {
	entry := control.NewEntry(p.placeholder)
	entry.SetText(p.text)
	fault := canvas.NewText("", m.ink(fynetheme.ColorNameError))
	fault.TextSize = m.textSize() - 1
	submit := func() {}
	do := control.NewButton(p.do, nil, func() { submit() })
	do.Importance = widget.HighImportance
	do.OnEscape = m.closeSheet
	cancel := control.NewButton("Cancel", nil, m.closeSheet)
	cancel.OnEscape = m.closeSheet
	entry.OnEscape = m.closeSheet
	touched := false
	check := func(text string) {
		why := p.check(text)
		do.Able(why == "")
		if text == "" && !touched {
			why = "" // nothing typed yet is no mistake
		}
		control.SetText(fault, why, m.ink(fynetheme.ColorNameError), m.textSize()-1)
	}
	entry.OnChanged = func(text string) { touched = true; check(text) }
	submit = func() {
		touched = true
		check(entry.Text)
		if p.check(entry.Text) != "" {
			return
		}
		m.closeSheet()
		p.act(entry.Text)
	}
	entry.OnSubmitted = func(string) { submit() }
	check(entry.Text)
	body := container.NewVBox(heading(p.title))
	if p.hint != "" {
		hint := widget.NewLabel(p.hint)
		hint.Wrapping = fyne.TextWrapWord
		body.Add(hint)
	}
	body.Add(entry)
	body.Add(container.New(layout.NewCustomPaddedLayout(0, 0, 8, 0), fault))
	if p.extra != nil {
		body.Add(p.extra)
	}
	body.Add(container.NewHBox(layout.NewSpacer(), cancel, do))
	m.openSheet(body, 460)
	m.canvas.Focus(entry)
}
