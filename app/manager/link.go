package manager

import (
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
)

// linkPanel says that the daemon is not there and what to do.
type linkPanel struct {
	box     *fyne.Container
	text    *widget.Label
	shown   string
	resized func()
}

func newLinkPanel() *linkPanel {
	l := &linkPanel{text: widget.NewLabel("")}
	l.text.Wrapping = fyne.TextWrapWord
	l.box = container.NewVBox()
	return l
}

func (l *linkPanel) show(s *dom0.Snapshot) {
	text := ""
	if s.Link == dom0.Lost {
		// What is known stays in sight, marked as old.
		text = strings.TrimSpace(s.Problem + " " + words.T("Running qubes go on; the list shows the last known state. Trying again …"))
	}
	if text == l.shown {
		return
	}
	l.shown = text
	l.box.RemoveAll()
	if text != "" {
		l.text.SetText(text)
		icon := widget.NewIcon(control.ColorIcon("unplugged", fynetheme.ColorNameWarning))
		l.box.Add(panel(theme.NoticeGround, fynetheme.ColorNameWarning, control.Border(nil, nil, icon, nil, l.text)))
	}
	l.resized()
}
