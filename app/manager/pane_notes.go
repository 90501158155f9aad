package manager

import (
	"context"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// notes is the section of what people write about a qube. It is saved by
// itself, a moment after the last key and when people look elsewhere.
type notes struct {
	pane   *host
	box    fyne.CanvasObject
	text   *control.Entry
	status *widget.Label
	of     dom0.Qube // whose notes are shown; zero ID: not read yet
	saved  string    // as the daemon has them
	stop   func()
}

// notesPause is how long people may think before what they wrote is saved;
// notesMost bounds the text, in bytes.
const (
	notesPause = 800 * time.Millisecond
	notesMost  = 256 << 10
)

func newNotes(p *host) *notes {
	n := &notes{pane: p, status: widget.NewLabel("")}
	n.status.Importance = widget.LowImportance
	n.text = control.NewEntry(words.T("What this qube is for, what to keep in mind …"))
	n.text.MultiLine = true
	n.text.Wrapping = fyne.TextWrapWord
	n.text.Scroll = fyne.ScrollVerticalOnly
	n.text.OnChanged = func(string) { n.typed() }
	n.text.OnEscape = p.escape
	n.box = container.New(layout.NewCustomPaddedLayout(8, 0, 0, 0), control.Border(nil, n.status, nil, nil, n.text))
	return n
}

func (n *notes) title() string           { return words.T("Notes") }
func (n *notes) body() fyne.CanvasObject { return n.box }

func (n *notes) show(q dom0.Qube, fresh bool) {
	if !fresh {
		return // what people are writing is newer than what the daemon has
	}
	n.of = dom0.Qube{}
	n.text.SetText("")
	n.text.Disable()
	setLabel(n.status, "")
	var text string
	n.pane.ask(func(ctx context.Context) (err error) {
		text, err = n.pane.manager.client.Notes(ctx, q.ID)
		return err
	}, func() {
		n.saved = text
		n.text.SetText(text)
		n.text.Enable()
		n.of = q
	})
}

func (n *notes) typed() {
	if n.of.ID == "" || n.text.Text == n.saved {
		return
	}
	if n.stop != nil {
		n.stop()
	}
	if len(n.text.Text) > notesMost {
		setLabel(n.status, words.T("Too long to be saved."))
		return
	}
	setLabel(n.status, "…")
	n.stop = n.pane.manager.opts.Later(notesPause, n.save)
}

// leave saves what is not saved yet.
func (n *notes) leave() {
	n.save()
	n.of = dom0.Qube{}
}

func (n *notes) save() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
	text, q, m := n.text.Text, n.of, n.pane.manager
	if q.ID == "" || text == n.saved || len(text) > notesMost {
		return
	}
	n.saved = text
	m.inquire(func(ctx context.Context) error { return m.client.SetNotes(ctx, q.ID, text) }, func(err error) {
		status := words.T("Saved.")
		if err != nil {
			status = words.T("Not saved.")
			m.failed("notes", q.Name, err, func() {
				m.inquire(func(ctx context.Context) error { return m.client.SetNotes(ctx, q.ID, text) }, func(err error) {
					if err != nil {
						m.failed("notes", q.Name, err, nil)
					}
				})
			})
		}
		if n.of.ID == q.ID {
			setLabel(n.status, status)
		}
	})
}
