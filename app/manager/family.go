package manager

import (
	"cmp"
	"slices"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/dom0"
	"cubicle/app/words"
)

// family is what rows of one family have in common.
type family string

// The families, as the preferences name them.
const (
	byNothing  family = ""
	byLabel    family = "label"
	byTemplate family = "template"
	byNetwork  family = "network"
)

func (f family) title() string {
	switch f {
	case byLabel:
		return words.T("By label")
	case byTemplate:
		return words.T("By template")
	case byNetwork:
		return words.T("By network")
	}
	return words.T("Not grouped")
}

// of is the family's place in the order and its heading.
func (f family) of(q *dom0.Qube) (place int, heading string) {
	if q.Class == dom0.AdminVM {
		return -1, words.T("This computer")
	}
	switch f {
	case byLabel:
		return q.Label.Index, words.Label(q.Label.Name)
	case byTemplate:
		if q.Template == "" {
			return 0, words.T("Templates")
		}
		return 1, words.T("on %s", q.Template)
	}
	if q.NetVM == "" {
		return 1, words.T("offline")
	}
	return 0, words.T("network by %s", q.NetVM)
}

// families sets rows in families, each below its heading, and keeps their
// order within.
func families(rows []row, f family) []row {
	if f == byNothing || len(rows) == 0 {
		return rows
	}
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b row) int {
		x, xs := f.of(&a.qube)
		y, ys := f.of(&b.qube)
		return cmp.Or(cmp.Compare(x, y), strings.Compare(xs, ys))
	})
	var out []row
	last := ""
	for _, r := range sorted {
		if _, heading := f.of(&r.qube); heading != last {
			out = append(out, row{heading: heading})
			last = heading
		}
		out = append(out, r)
	}
	return out
}

// setBy chooses how rows are grouped.
func (m *Manager) setBy(f family) {
	switch f {
	case byLabel, byTemplate, byNetwork:
		m.by = f
	default:
		m.by = byNothing
	}
	m.byButton.SetText(m.by.title())
}

// chooseBy opens the menu of families.
func (m *Manager) chooseBy() {
	var items []*fyne.MenuItem
	for _, f := range []family{byNothing, byLabel, byTemplate, byNetwork} {
		i := fyne.NewMenuItem(f.title(), func() {
			m.setBy(f)
			m.keep()
			m.list()
			m.table.reveal()
		})
		i.Checked = f == m.by
		items = append(items, i)
	}
	menu := widget.NewPopUpMenu(fyne.NewMenu("", items...), m.canvas)
	menu.ShowAtRelativePosition(fyne.NewPos(0, m.byButton.Size().Height+4), m.byButton)
}

// columnItems are the columns that can be put away, each checked while shown.
func (m *Manager) columnItems() []*fyne.MenuItem {
	var items []*fyne.MenuItem
	for _, c := range m.table.cols {
		if c.key == colName || c.key == colState {
			continue
		}
		hidden := m.table.hidden[c.key]
		i := fyne.NewMenuItem(c.title, func() {
			m.table.hide(c.key, !hidden)
			m.keep()
		})
		i.Checked = !hidden
		items = append(items, i)
	}
	return items
}

// columnMenu opens the menu of columns beside the pointer.
func (m *Manager) columnMenu(at fyne.Position) {
	m.tip.hide()
	widget.ShowPopUpMenuAtPosition(fyne.NewMenu("", m.columnItems()...), m.canvas, at)
}
