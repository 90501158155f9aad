package manager

import (
	"context"
	"slices"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// features is the page of a qube's services and features: a service is on or
// off, another feature has a text.
type features struct {
	pane  *host
	box   fyne.CanvasObject
	list  *fyne.Container
	none  *widget.Label
	fault *widget.Label
	name  *control.Entry
	value *control.Entry
	shown []dom0.Feature
}

func newFeatures(p *host) *features {
	f := &features{pane: p, list: container.New(layout.NewFormLayout()), none: widget.NewLabel(""), fault: widget.NewLabel("")}
	f.none.Wrapping = fyne.TextWrapWord
	f.fault.Wrapping = fyne.TextWrapWord
	f.fault.Importance = widget.DangerImportance
	f.fault.Hide()
	f.name = control.NewEntry(words.T("Name, such as service.cups"))
	f.value = control.NewEntry(words.T("Value (1)"))
	f.name.OnSubmitted = func(string) { p.manager.canvas.Focus(f.value) }
	f.value.OnSubmitted = func(string) { f.add() }
	add := control.NewButton(words.T("Add"), control.Icon("plus"), f.add)
	for _, e := range []*control.Entry{f.name, f.value} {
		e.OnEscape = p.escape
	}
	add.OnEscape = p.escape
	line := control.Border(nil, nil, nil, add, container.NewGridWithColumns(2, f.name, f.value))
	f.box = control.Border(nil, container.NewVBox(f.fault, line), nil, nil,
		container.NewVScroll(container.New(layout.NewCustomPaddedLayout(0, 0, 0, 16), container.NewVBox(f.none, f.list))))
	return f
}

func (f *features) title() string           { return words.T("Services") }
func (f *features) body() fyne.CanvasObject { return f.box }
func (f *features) leave()                  {}

func (f *features) show(q dom0.Qube, fresh bool) {
	if fresh {
		f.say("")
	}
	var list []dom0.Feature
	f.pane.ask(func(ctx context.Context) (err error) {
		list, err = f.pane.manager.client.Features(ctx, q.ID)
		return err
	}, func() { f.draw(list, fresh) })
}

func (f *features) draw(list []dom0.Feature, anew bool) {
	setLabel(f.none, words.T("The qube has no features of its own."))
	control.Show(f.none, len(list) == 0)
	if !anew && slices.Equal(list, f.shown) {
		return
	}
	f.shown = list
	f.list.RemoveAll()
	for _, one := range list {
		caption, field := f.line(one)
		f.list.Add(caption)
		f.list.Add(field)
	}
	f.box.Refresh()
}

// line is one feature: its name, and what it is set to.
func (f *features) line(one dom0.Feature) (caption, field fyne.CanvasObject) {
	paint := control.NewPainter()
	service, isService := strings.CutPrefix(one.Name, dom0.ServicePrefix)
	shown := one.Name
	if isService {
		shown = service
	}
	name := canvas.NewText(cut(shown, f.pane.room()/2-48, f.pane.manager.textSize(), fyne.TextStyle{}), paint.Ink(fynetheme.ColorNameForeground))
	name.TextSize = paint.Size(fynetheme.SizeNameText)
	drop := control.NewButton("", control.Icon("trash"), func() {
		f.tell(func(ctx context.Context, id dom0.QubeID) error {
			return f.pane.manager.client.RemoveFeature(ctx, id, one.Name)
		}, nil)
	})
	drop.Importance = widget.LowImportance
	drop.OnEscape = f.pane.escape
	var input fyne.CanvasObject
	if isService {
		check := control.NewCheck("", nil)
		check.Checked = one.Value != ""
		check.OnChanged = func(on bool) { f.set(one.Name, map[bool]string{true: "1"}[on], nil) }
		check.OnEscape = f.pane.escape
		input = check
	} else {
		entry := control.NewEntry("")
		entry.SetText(string(one.Value))
		entry.OnSubmitted = func(text string) { f.set(one.Name, text, nil) }
		entry.OnEscape = f.pane.escape
		input = entry
	}
	return container.New(layout.NewCustomPaddedLayout(0, 0, 0, 8), container.NewHBox(container.NewCenter(name))), control.Border(nil, nil, nil, drop, input)
}

func (f *features) add() {
	name, value := strings.TrimSpace(f.name.Text), f.value.Text
	if name == "" {
		f.pane.manager.canvas.Focus(f.name)
		return
	}
	if value == "" {
		value = "1"
	}
	f.set(name, value, func() {
		f.name.SetText("")
		f.value.SetText("")
		f.pane.manager.canvas.Focus(f.name)
	})
}

func (f *features) set(name, value string, done func()) {
	f.tell(func(ctx context.Context, id dom0.QubeID) error {
		return f.pane.manager.client.SetFeature(ctx, id, name, value)
	}, done)
}

// tell changes something and shows the list as it is then; a refusal stands
// above the fields.
func (f *features) tell(change func(context.Context, dom0.QubeID) error, done func()) {
	id := f.pane.subject.ID
	f.pane.manager.inquire(func(ctx context.Context) error { return change(ctx, id) }, func(err error) {
		if err != nil {
			f.say(reason(err))
			f.shown = nil // a check that was refused is drawn as it was
			f.pane.again(id)
			return
		}
		f.say("")
		if done != nil {
			done()
		}
		f.pane.again(id)
	})
}

func (f *features) say(why string) {
	setLabel(f.fault, why)
	control.Show(f.fault, why != "")
}
