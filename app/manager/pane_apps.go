package manager

import (
	"context"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// apps is the section of programs: type a few letters, press Enter.
type apps struct {
	pane   *host
	box    fyne.CanvasObject
	search *control.Entry
	list   *fyne.Container
	hint   *widget.Label
	start  *control.Button
	known  []dom0.App
	of     dom0.QubeID // whose apps are known
}

func newApps(p *host) *apps {
	a := &apps{pane: p, list: container.New(layout.NewCustomPaddedVBoxLayout(0)), hint: widget.NewLabel("")}
	a.search = control.NewEntry(words.T("Find an application"))
	a.search.OnChanged = func(string) { a.draw() }
	a.search.OnSubmitted = func(string) {
		if found := a.found(); len(found) > 0 {
			a.open(found[0])
		}
	}
	a.search.OnEscape = func() {
		if a.search.Text != "" {
			a.search.SetText("")
			return
		}
		p.escape()
	}
	a.hint.Wrapping = fyne.TextWrapWord
	a.start = control.NewButton(words.T("Start"), control.Icon("play"), func() { p.manager.start() })
	a.start.OnEscape = p.escape
	top := container.New(layout.NewCustomPaddedLayout(8, 4, 0, 0), a.search)
	below := container.NewVBox(a.hint, container.NewHBox(a.start))
	a.box = control.Border(top, below, nil, nil, container.NewVScroll(a.list))
	return a
}

func (a *apps) title() string           { return words.T("Apps") }
func (a *apps) body() fyne.CanvasObject { return a.box }
func (a *apps) leave()                  {}

func (a *apps) show(q dom0.Qube, _ bool) {
	if a.of != q.ID {
		a.of, a.known = q.ID, nil
		a.search.SetText("")
	}
	a.draw()
	var list []dom0.App
	a.pane.ask(func(ctx context.Context) (err error) {
		list, err = a.pane.manager.client.Apps(ctx, q.ID)
		return err
	}, func() {
		a.known = list
		a.draw()
	})
}

// found are the terminal and the programs that every word of the search is in.
func (a *apps) found() []dom0.App {
	all := append([]dom0.App{{ID: dom0.TerminalApp, Name: dom0.CleanLine(words.T("Terminal"))}}, a.known...)
	query := strings.Fields(strings.ToLower(a.search.Text))
	var list []dom0.App
next:
	for _, one := range all {
		for _, w := range query {
			if !contains(string(one.Name), w) && !contains(string(one.Comment), w) && !contains(one.ID, w) {
				continue next
			}
		}
		list = append(list, one)
	}
	return list
}

func (a *apps) draw() {
	q := &a.pane.subject
	a.list.RemoveAll()
	found := a.found()
	for _, one := range found {
		text := cut(string(one.Name), a.pane.room()-56, a.pane.manager.textSize(), fyne.TextStyle{})
		icon := control.Icon("app")
		if one.ID == dom0.TerminalApp {
			icon = control.Icon("terminal")
		}
		b := control.NewButton(text, icon, func() { a.open(one) })
		b.Alignment, b.Importance = widget.ButtonAlignLeading, widget.LowImportance
		b.OnEscape = a.pane.escape
		b.Able(canOpen(q) && a.pane.manager.state.Link == dom0.Connected)
		a.list.Add(b)
	}
	hint := ""
	switch {
	case len(found) == 0:
		hint = words.T("No application is called so.")
	case len(a.known) == 0 && canStart(q):
		hint = words.T("Its applications are known after the first start.")
	}
	setLabel(a.hint, hint)
	control.Show(a.hint, hint != "")
	control.Show(a.start, hint != "" && len(found) > 0)
	a.list.Refresh()
}

func (a *apps) open(app dom0.App) {
	m := a.pane.manager
	if !canOpen(&a.pane.subject) || m.state.Link != dom0.Connected {
		return
	}
	m.do("app", []dom0.Qube{a.pane.subject}, func(ctx context.Context, q dom0.Qube) (dom0.JobID, error) {
		return m.client.StartApp(ctx, q.ID, app.ID)
	})
}
