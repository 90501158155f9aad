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
	"cubicle/theme"
)

// notice is one inline panel: what failed, for which qube, why, and what to
// do next.
type notice struct {
	key    string // a second failure of the same kind replaces the first
	title  string // "Could not start work"
	reason string
	next   string // the button's word, empty: none
	act    func()

	look    string // a second button, which only shows something; empty: none
	lookAct func()
}

// maxNotices bounds the panels; the oldest makes room.
const maxNotices = 3

// notices stacks the panels above the table.
type notices struct {
	box     *fyne.Container
	list    []notice
	copy    func(string)
	resized func()
}

func newNotices(copyText func(string)) *notices {
	return &notices{box: container.NewVBox(), copy: copyText}
}

// add shows n, in the place of an older one with its key.
func (n *notices) add(add notice) {
	n.drop(add.key)
	n.list = append(n.list, add)
	n.list = n.list[max(0, len(n.list)-maxNotices):]
	n.draw()
}

// drop removes the panel with that key.
func (n *notices) drop(key string) {
	for i := range n.list {
		if n.list[i].key == key {
			n.list = append(n.list[:i:i], n.list[i+1:]...)
			n.draw()
			return
		}
	}
}

func (n *notices) draw() {
	n.box.RemoveAll()
	for _, one := range n.list {
		n.box.Add(n.panel(one))
	}
	n.resized()
}

func (n *notices) panel(one notice) fyne.CanvasObject {
	title := widget.NewLabel(one.title)
	title.TextStyle.Bold = true
	title.Truncation = fyne.TextTruncateEllipsis
	reason := widget.NewLabel(one.reason)
	reason.Wrapping = fyne.TextWrapWord
	buttons := container.NewHBox()
	if one.next != "" {
		buttons.Add(control.NewButton(one.next, nil, func() {
			n.drop(one.key)
			one.act()
		}))
	}
	if one.look != "" {
		buttons.Add(control.NewButton(one.look, nil, one.lookAct))
	}
	buttons.Add(control.NewButton(words.T("Copy"), nil, func() { n.copy(one.title + ": " + one.reason) }))
	closer := control.NewButton("", control.Icon("close"), func() { n.drop(one.key) })
	closer.Importance = widget.LowImportance
	buttons.Add(closer)
	icon := canvas.NewImageFromResource(control.ColorIcon("warning", fynetheme.ColorNameError))
	icon.SetMinSize(fyne.NewSquareSize(20))
	text := container.New(layout.NewCustomPaddedVBoxLayout(-10), title, reason)
	return panel(theme.ErrorGround, fynetheme.ColorNameError,
		control.Border(nil, nil, container.NewCenter(icon), container.NewCenter(buttons), text))
}

// panel is content on a rounded ground with an edge.
func panel(ground, edge fyne.ThemeColorName, content fyne.CanvasObject) fyne.CanvasObject {
	back := control.NewGround(ground, edge, 8)
	return container.New(layout.NewCustomPaddedLayout(4, 4, 12, 12),
		container.NewStack(back, container.New(layout.NewCustomPaddedLayout(2, 2, 12, 8), content)))
}
