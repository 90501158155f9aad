package manager

import (
	"context"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// transcript is a section of cleaned text that grows: the qube's console, or
// what the daemon said of it. It follows while people look.
type transcript struct {
	pane   *host
	word   string
	none   string // what stands there while there is no text
	fetch  func(context.Context, dom0.QubeID, int) (dom0.Text, error)
	box    fyne.CanvasObject
	grid   *widget.TextGrid
	scroll *container.Scroll
	empty  *widget.Label
	copy   *control.Button
	text   dom0.Text
	next   func() // stops the next look; nil: none is due
}

// transcriptLines is how much is asked for, transcriptPause between two looks.
const (
	transcriptLines = 400
	transcriptPause = 2 * time.Second
)

func newConsole(p *host) *transcript {
	t := newTranscript(p, words.T("Console"), words.T("The qube has written nothing to its console. It begins anew at every start."))
	t.fetch = p.manager.client.Console
	return t
}

func newMessages(p *host) *transcript {
	t := newTranscript(p, words.T("Log"), words.T("qubesd has said nothing about this qube since it was started."))
	t.fetch = p.manager.client.Messages
	return t
}

func newTranscript(p *host, word, none string) *transcript {
	t := &transcript{pane: p, word: word, none: none, grid: widget.NewTextGrid(), empty: widget.NewLabel("")}
	t.grid.Scroll = fyne.ScrollNone
	t.scroll = container.NewScroll(t.grid)
	t.empty.Wrapping = fyne.TextWrapWord
	t.copy = control.NewButton(words.T("Copy"), nil, func() {
		if c := p.manager.opts.Clipboard; c != nil {
			c.SetContent(string(t.text))
		}
	})
	t.copy.OnEscape = p.escape
	t.box = control.Border(nil, container.NewHBox(t.copy), nil, nil, container.NewStack(t.scroll, container.NewVBox(t.empty)))
	return t
}

func (t *transcript) title() string           { return t.word }
func (t *transcript) body() fyne.CanvasObject { return t.box }

func (t *transcript) leave() {
	if t.next != nil {
		t.next()
		t.next = nil
	}
}

func (t *transcript) show(q dom0.Qube, fresh bool) {
	if fresh {
		t.set("")
		setLabel(t.empty, "")
	}
	t.leave()
	var text dom0.Text
	t.pane.ask(func(ctx context.Context) (err error) {
		text, err = t.fetch(ctx, q.ID, transcriptLines)
		return err
	}, func() {
		t.set(text)
		t.next = t.pane.manager.opts.Later(transcriptPause, func() {
			if t.next != nil && t.pane.isOpen() && t.pane.subject.ID == q.ID {
				t.show(t.pane.subject, false)
			}
		})
	})
}

// set draws the text; who reads its end goes on reading there.
func (t *transcript) set(text dom0.Text) {
	setLabel(t.empty, t.none)
	control.Show(t.empty, text == "")
	t.copy.Able(text != "")
	if text == t.text && text != "" {
		return
	}
	end := t.scroll.Offset.Y+t.scroll.Size().Height >= t.grid.MinSize().Height-4
	t.text = text
	t.grid.SetText(string(text))
	t.scroll.Refresh()
	if end {
		t.scroll.ScrollToBottom()
	}
}
