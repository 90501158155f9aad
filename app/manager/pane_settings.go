package manager

import (
	"context"
	"image/color"
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
	"cubicle/theme"
)

// settings is the section of the property table: all rows, searchable, each
// changed where it stands.
type settings struct {
	pane   *host
	box    fyne.CanvasObject
	search *control.Entry
	list   *fyne.Container
	rows   []dom0.Property
	of     dom0.QubeID
}

func newSettings(p *host) *settings {
	s := &settings{pane: p, list: container.New(layout.NewCustomPaddedVBoxLayout(0))}
	s.search = control.NewEntry(words.T("Find a setting"))
	s.search.OnChanged = func(string) { s.draw() }
	s.search.OnSubmitted = func(string) {
		for _, row := range s.found() {
			if row.Settable {
				s.edit(row)
				return
			}
		}
	}
	s.search.OnEscape = func() {
		if s.search.Text != "" {
			s.search.SetText("")
			return
		}
		p.escape()
	}
	top := container.New(layout.NewCustomPaddedLayout(8, 4, 0, 0), s.search)
	s.box = control.Border(top, nil, nil, nil, container.NewVScroll(s.list))
	return s
}

func (s *settings) title() string           { return words.T("Settings") }
func (s *settings) body() fyne.CanvasObject { return s.box }
func (s *settings) leave()                  {}

func (s *settings) show(q dom0.Qube, _ bool) {
	if s.of != q.ID {
		s.of, s.rows = q.ID, nil
		s.search.SetText("")
		s.draw()
	}
	var rows []dom0.Property
	s.pane.ask(func(ctx context.Context) (err error) {
		rows, err = s.pane.manager.client.Properties(ctx, q.ID)
		return err
	}, func() {
		s.rows = rows
		s.draw()
	})
}

func (s *settings) found() []dom0.Property {
	query := strings.Fields(strings.ToLower(s.search.Text))
	var list []dom0.Property
next:
	for _, row := range s.rows {
		for _, w := range query {
			if !contains(row.Name, w) && !contains(words.Known(row.Help), w) && !contains(row.Value, w) {
				continue next
			}
		}
		list = append(list, row)
	}
	return list
}

func (s *settings) draw() {
	s.list.RemoveAll()
	found := s.found()
	for _, row := range found {
		s.list.Add(s.line(row))
	}
	if len(found) == 0 && len(s.rows) > 0 {
		s.list.Add(widget.NewLabel(words.T("No setting matches.")))
	}
	s.list.Refresh()
}

// line is one property: its name and value, and below what it means.
func (s *settings) line(row dom0.Property) fyne.CanvasObject {
	m := s.pane.manager
	paint := control.NewPainter()
	small := paint.Size(fynetheme.SizeNameCaptionText)
	name := canvas.NewText(row.Name, paint.Ink(fynetheme.ColorNameForeground))
	name.TextSize = m.textSize()
	shown, ink := showValue(row), paint.Ink(fynetheme.ColorNameForeground)
	if row.Default {
		ink = paint.Ink(theme.Muted)
	}
	value := canvas.NewText(cut(shown, s.pane.room()-name.MinSize().Width-72, m.textSize(), fyne.TextStyle{Bold: !row.Default}), ink)
	value.TextStyle.Bold = !row.Default
	value.TextSize = m.textSize()
	tools := container.NewHBox(container.NewCenter(value))
	if !row.Settable {
		room := canvas.NewRectangle(color.Transparent) // as wide as the button of others
		room.SetMinSize(fyne.NewSize(34, 26))
		tools.Add(room)
	} else {
		edit := control.NewButton("", control.Icon("edit"), func() { s.edit(row) })
		edit.Importance = widget.LowImportance
		edit.OnEscape = m.Focus
		tools.Add(edit)
	}
	texts := container.New(layout.NewCustomPaddedVBoxLayout(0))
	for _, one := range wrap(words.Known(row.Help), s.pane.room()-16, small) {
		help := canvas.NewText(one, paint.Ink(theme.Muted))
		help.TextSize = small
		texts.Add(help)
	}
	head := control.Border(nil, nil, container.NewCenter(name), tools)
	return container.New(layout.NewCustomPaddedLayout(2, 2, 4, 0),
		container.New(layout.NewCustomPaddedVBoxLayout(0), head, texts, container.New(layout.NewCustomPaddedLayout(4, 0, 0, 0), widget.NewSeparator())))
}

// showValue is a value in people's words.
func showValue(row dom0.Property) string {
	switch {
	case row.Type == "bool" && row.Value == "True":
		return words.T("yes")
	case row.Type == "bool":
		return words.T("no")
	case row.Value == "":
		return "–"
	}
	return string(dom0.CleanLine(row.Value))
}

// edit changes one property; the daemon says what is wrong with a value.
func (s *settings) edit(row dom0.Property) {
	m, q := s.pane.manager, s.pane.subject
	if row.Type == "bool" {
		next := "True"
		if row.Value == "True" {
			next = "False"
		}
		s.pane.act("set", func(ctx context.Context, id dom0.QubeID) error { return m.client.SetProperty(ctx, id, row.Name, next) })
		return
	}
	var extra fyne.CanvasObject
	if !row.Default {
		reset := control.NewButton(words.T("Back to the default"), nil, func() {
			m.closeSheet()
			s.pane.act("set", func(ctx context.Context, id dom0.QubeID) error { return m.client.ResetProperty(ctx, id, row.Name) })
		})
		reset.OnEscape = m.closeSheet
		extra = container.NewHBox(reset)
	}
	m.askText(prompt{
		title:       words.T("%s of %s", row.Name, q.Name),
		hint:        words.Known(row.Help),
		placeholder: row.Name,
		text:        row.Value,
		options:     s.options(row),
		do:          words.T("Set"),
		check:       func(string) string { return "" },
		extra:       extra,
		try: func(text string, done func(error)) {
			m.inquire(func(ctx context.Context) error { return m.client.SetProperty(ctx, q.ID, row.Name, text) }, func(err error) {
				done(err)
				if err == nil {
					s.pane.again(q.ID)
				}
			})
		},
	})
}

// options are the values that a property can have, where they are few.
func (s *settings) options(row dom0.Property) []string {
	state := s.pane.manager.state
	var list []string
	switch {
	case row.Name == "engine":
		for _, e := range state.Engines {
			list = append(list, e.Name)
		}
	case row.Type == "label":
		for _, l := range state.Labels {
			list = append(list, l.Name)
		}
	case row.Name == "template":
		for i := range state.Qubes {
			if state.Qubes[i].Class == dom0.TemplateVM {
				list = append(list, string(state.Qubes[i].Name))
			}
		}
	}
	return list
}
