package manager

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/create"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
)

// emptyState stands where rows would: it says why there are none and what to
// do about it.
type emptyState struct {
	box    *fyne.Container
	icon   *canvas.Image
	title  *widget.Label
	text   *widget.Label
	button *control.Button
}

func newEmptyState() *emptyState {
	e := &emptyState{icon: &canvas.Image{}}
	e.icon.SetMinSize(fyne.NewSquareSize(48))
	e.title = widget.NewLabel("")
	e.title.SizeName = fynetheme.SizeNameSubHeadingText
	e.title.TextStyle.Bold = true
	e.title.Alignment = fyne.TextAlignCenter
	e.text = widget.NewLabel("")
	e.text.Alignment = fyne.TextAlignCenter
	e.button = control.NewButton("", nil, nil)
	e.button.Importance = widget.HighImportance
	e.box = container.NewCenter(container.NewVBox(container.NewCenter(e.icon), e.title, e.text, container.NewCenter(e.button)))
	e.box.Hide()
	return e
}

// show explains a table of n rows.
func (e *emptyState) show(m *Manager, n int) {
	if n > 0 {
		control.Show(e.box, false)
		return
	}
	icon, title, text, word, act := "", "", "", "", func() {}
	switch {
	case m.state.Link == dom0.Connecting:
		icon, title = "unplugged", words.T("Waiting for qubesd")
		text = words.T("The list appears as soon as the daemon answers.")
		if m.state.Problem != "" {
			text = m.state.Problem + "\n" + words.T("Start it with “cubicle up”; this window notices by itself.")
		}
	case len(m.state.Qubes) == 0:
		title = words.T("No qubes yet")
		text = words.T("A qube is a computer of its own for one part of your life:\nwork, banking, a link from a stranger. Begin with one.")
		word, act = words.T("New qube"), func() { m.newQube(create.Wish{}) }
	case m.filter.Text != "":
		icon, title = "search", words.T("Nothing matches “%s”", cut(m.filter.Text, 300, m.textSize(), fyne.TextStyle{Bold: true}))
		text = words.T("The filter looks at name, colour, state, template and network.")
		word, act = words.T("Clear filter"), func() { m.filter.SetText(""); m.pickGroup(groupAll); m.Focus() }
	default:
		icon, title = "info", words.T("None here")
		text = words.T("No qube belongs to “%s” now.", m.group.title())
		word, act = words.T("Show all"), func() { m.pickGroup(groupAll); m.Focus() }
	}
	drawing := control.Picture("qube-manager")
	if icon != "" {
		drawing = control.ColorIcon(icon, theme.Muted)
	}
	control.SetImage(e.icon, drawing)
	setLabel(e.title, title)
	setLabel(e.text, text)
	if e.button.Text != word {
		e.button.SetText(word)
	}
	e.button.OnTapped = act
	control.Show(e.button, word != "")
	control.Show(e.box, true)
	e.box.Refresh()
}
