package manager

import (
	"context"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// firewall is the page of the rules for a qube's connections: a rule a line,
// as the daemon writes them. They are replaced together.
type firewall struct {
	pane  *host
	box   fyne.CanvasObject
	text  *control.Entry
	apply *control.Button
	undo  *control.Button
	fault *widget.Label
	saved dom0.Text
	of    dom0.QubeID // whose rules are shown
}

func newFirewall(p *host) *firewall {
	f := &firewall{pane: p, fault: widget.NewLabel("")}
	hint := widget.NewLabel(words.T("One rule a line; the first that fits a connection decides. For example: action=accept proto=tcp dsthost=example.org dstports=443-443"))
	hint.Wrapping = fyne.TextWrapWord
	f.text = control.NewEntry("action=accept")
	f.text.MultiLine = true
	f.text.TextStyle.Monospace = true
	f.text.Wrapping = fyne.TextWrapOff
	f.text.Scroll = fyne.ScrollBoth
	f.text.OnChanged = func(string) { f.changed() }
	f.text.OnEscape = p.escape
	f.fault.Wrapping = fyne.TextWrapWord
	f.fault.Importance = widget.DangerImportance
	f.fault.SizeName = fynetheme.SizeNameText
	f.fault.Hide()
	f.apply = control.NewButton(words.T("Apply"), nil, f.write)
	f.undo = control.NewButton(words.T("Undo"), nil, func() { f.text.SetText(string(f.saved)); f.say("") })
	f.apply.OnEscape, f.undo.OnEscape = p.escape, p.escape
	f.box = control.Border(hint, container.NewVBox(f.fault, container.NewHBox(layout.NewSpacer(), f.undo, f.apply)), nil, nil, f.text)
	f.changed()
	return f
}

func (f *firewall) title() string           { return words.T("Firewall") }
func (f *firewall) body() fyne.CanvasObject { return f.box }
func (f *firewall) leave()                  {}

func (f *firewall) show(q dom0.Qube, _ bool) {
	if f.of == q.ID && f.text.Text != string(f.saved) {
		return // what people are writing is newer than what the daemon has
	}
	var rules dom0.Text
	f.pane.ask(func(ctx context.Context) (err error) {
		rules, err = f.pane.manager.client.Firewall(ctx, q.ID)
		return err
	}, func() {
		f.of, f.saved = q.ID, rules
		f.text.SetText(string(rules))
		f.changed()
	})
}

func (f *firewall) changed() {
	fresh := f.text.Text != string(f.saved)
	f.apply.Able(fresh)
	f.undo.Able(fresh)
}

func (f *firewall) write() {
	id, text := f.pane.subject.ID, f.text.Text
	f.pane.manager.inquire(func(ctx context.Context) error { return f.pane.manager.client.SetFirewall(ctx, id, text) }, func(err error) {
		if err != nil {
			f.say(reason(err))
			return
		}
		f.say("")
		f.saved = dom0.CleanLines(text)
		f.changed()
		f.pane.again(id)
	})
}

func (f *firewall) say(why string) {
	setLabel(f.fault, why)
	control.Show(f.fault, why != "")
}
