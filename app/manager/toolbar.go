package manager

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/create"
	"cubicle/app/words"
)

// toolbar is the row of buttons.
type toolbar struct {
	box                                                  *fyne.Container
	create, start, shutdown, pause, open, settings, more *control.Button
}

func newToolbar(m *Manager) *toolbar {
	t := &toolbar{}
	make := func(text, icon string, act func()) *control.Button {
		b := control.NewButton(text, control.Icon(icon), act)
		b.Importance = widget.LowImportance
		b.OnEscape = m.Focus
		return b
	}
	t.create = make(words.T("New qube"), "plus", func() { m.newQube(create.Wish{}) })
	t.create.Importance = widget.HighImportance
	t.start = make(words.T("Start"), "play", m.start)
	t.shutdown = make(words.T("Shut down"), "stop", m.shutdown)
	t.pause = make(words.T("Pause"), "pause", m.pauseOrResume)
	t.open = make(words.T("Terminal"), "terminal", m.terminal)
	t.settings = make(words.T("Settings"), "settings", m.settings)
	t.more = make("", "more", nil)
	t.more.OnTapped = func() {
		menu := widget.NewPopUpMenu(fyne.NewMenu("", m.menuItems(false)...), m.canvas)
		menu.ShowAtRelativePosition(fyne.NewPos(0, t.more.Size().Height+4), t.more)
	}
	t.box = container.NewHBox(t.create, t.start, t.shutdown, t.pause, t.open, t.settings, t.more)
	return t
}

// show enables what can be done.
func (t *toolbar) show(a ability) {
	t.create.Able(a.live)
	t.start.Able(a.start)
	t.shutdown.Able(a.shutdown)
	t.pause.Able(a.pause || a.resume)
	word, icon := words.T("Pause"), "pause"
	if a.resume && !a.pause {
		word, icon = words.T("Resume"), "play"
	}
	if t.pause.Text != word {
		t.pause.Text = word
		t.pause.SetIcon(control.Icon(icon))
	}
	t.open.Able(a.open)
	t.settings.Able(a.settings)
	t.more.Able(a.kill || a.open || a.clone || a.remove)
}

// contextMenu opens the menu of the selection beside the pointer.
func (m *Manager) contextMenu(at fyne.Position) {
	m.tip.hide()
	widget.ShowPopUpMenuAtPosition(fyne.NewMenu("", m.menuItems(true)...), m.canvas, at)
}
