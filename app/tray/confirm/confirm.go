// Package confirm asks before something is lost, in a small window of its
// own: the tray has no other window to ask in.
package confirm

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/tray"
	"cubicle/app/words"
)

// Asker puts questions, each once at a time.
type Asker struct {
	App fyne.App
	// Spawn runs an answer's work off the UI's goroutine.
	Spawn func(func())

	open map[string]fyne.Window
}

// New makes an asker for an app.
func New(a fyne.App) *Asker {
	return &Asker{App: a, Spawn: func(f func()) { go f() }, open: map[string]fyne.Window{}}
}

// width is that of the text in a question, in letters of the theme's size.
const width = 26

// Ask opens the question's window, or brings it forward. Cancel has the
// focus; Esc and closing mean no.
func (a *Asker) Ask(q tray.Question) fyne.Window {
	if w := a.open[q.Key]; w != nil {
		w.RequestFocus()
		return w
	}
	w := a.App.NewWindow(q.Title)
	a.open[q.Key] = w
	w.SetOnClosed(func() { delete(a.open, q.Key) })
	cancel := control.NewButton(words.T("Cancel"), nil, w.Close)
	confirm := control.NewButton(q.Confirm, nil, func() {
		w.Close()
		a.Spawn(q.Do)
	})
	confirm.Importance = widget.DangerImportance
	cancel.OnEscape, confirm.OnEscape = w.Close, w.Close
	w.Canvas().SetOnTypedKey(func(ev *fyne.KeyEvent) {
		if ev.Name == fyne.KeyEscape {
			w.Close()
		}
	})
	icon := canvas.NewImageFromResource(control.LabelIcon(q.Shape, q.Color))
	icon.FillMode = canvas.ImageFillContain
	side := control.NewPainter().Size("text") * 2
	icon.SetMinSize(fyne.NewSquareSize(side))
	text := widget.NewLabel(q.Text)
	text.Wrapping = fyne.TextWrapWord
	body := control.Border(nil, nil, container.NewVBox(icon), nil, text)
	buttons := container.NewHBox(layout.NewSpacer(), cancel, confirm)
	w.SetContent(container.NewPadded(container.NewPadded(control.Border(nil, buttons, nil, nil, body))))
	wide := side + width*control.NewPainter().Size("text")
	text.Resize(fyne.NewSize(wide-side, 0))
	w.Resize(fyne.NewSize(wide, text.MinSize().Height+6*side/2))
	w.CenterOnScreen()
	w.Show()
	w.RequestFocus()
	w.Canvas().Focus(cancel)
	return w
}
