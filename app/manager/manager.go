// Package manager is the Qube Manager: one window that shows every qube as
// it is now, does what is asked, and says why when it cannot.
//
// It knows the daemon through dom0.Client alone and draws from snapshots;
// it never asks for anything that a snapshot has. Make it with New, put
// Content into a window, call Close when the window is gone.
package manager

import (
	"context"
	"image/color"
	"sync/atomic"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/create"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
)

// Options are what a Manager needs besides the daemon. The functions are
// parameters so that tests run without goroutines and clocks.
type Options struct {
	Canvas      fyne.Canvas
	Preferences fyne.Preferences
	Clipboard   fyne.Clipboard

	Spawn func(func())                       // runs an action that blocks; go
	UI    func(func())                       // runs on the UI goroutine; fyne.Do
	Later func(time.Duration, func()) func() // runs on the UI goroutine later; returns a stop
	Now   func() time.Time

	// Windows tells how many windows each qube has on the desktop, whenever
	// that changes, from any goroutine, until it is stopped; nil: nobody
	// knows.
	Windows func(tell func(map[string]int)) (stop func())
}

// Manager is the window's content and its state. Its methods are called on
// the UI goroutine.
type Manager struct {
	client dom0.Client
	canvas fyne.Canvas
	prefs  fyne.Preferences
	opts   Options

	ctx     context.Context
	cancel  context.CancelFunc
	unwatch func()
	newest  atomic.Pointer[dom0.Snapshot]
	queued  atomic.Bool

	state *dom0.Snapshot
	group group
	by    family // how the rows are set in families

	table    *table
	tools    *toolbar
	filter   *control.Entry
	byButton *control.Button
	chips    []*control.Chip
	notices  *notices
	link     *linkPanel
	errands  *errands
	details  *details
	pane     *pane
	empty    *emptyState
	tip      *tip
	sheet    *sheet
	page     *create.Page // when the sheet is the new-qube page
	config   *config      // when the sheet, or the one below it, is the settings
	wanted   func()       // what was asked for before the daemon is there; nil: nothing
	main     *fyne.Container
	content  fyne.CanvasObject

	jobs    map[dom0.JobID]dom0.JobState // as last seen; nil before the first live snapshot
	retries map[dom0.JobID]func()
	windows map[dom0.Name]int        // on the desktop; nil while nobody told
	starts  map[dom0.JobID]dom0.Name // create jobs after which the qube of that name starts
}

// New makes the window's content and follows client until Close.
func New(client dom0.Client, opts Options) *Manager {
	if opts.Spawn == nil {
		opts.Spawn = func(f func()) { go f() }
	}
	if opts.UI == nil {
		opts.UI = fyne.Do
	}
	if opts.Later == nil {
		opts.Later = func(d time.Duration, f func()) func() {
			t := time.AfterFunc(d, func() { fyne.Do(f) })
			return func() { t.Stop() }
		}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	m := &Manager{
		client:  client,
		canvas:  opts.Canvas,
		prefs:   opts.Preferences,
		opts:    opts,
		state:   client.Snapshot(),
		retries: map[dom0.JobID]func(){},
		starts:  map[dom0.JobID]dom0.Name{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.build()
	m.remembered()
	m.show(m.state)
	m.unwatch = client.Watch(m.hear)
	if opts.Windows != nil {
		unwatch, uncount := m.unwatch, opts.Windows(m.counted)
		m.unwatch = func() { unwatch(); uncount() }
	}
	// What came while the window was made was told to nobody.
	if now := client.Snapshot(); now != m.state {
		m.show(now)
	}
	return m
}

// Close stops following the daemon; it does not close the client.
func (m *Manager) Close() {
	m.unwatch()
	m.cancel()
}

// Content is what the window shows.
func (m *Manager) Content() fyne.CanvasObject { return m.content }

// Focus gives the keyboard to the table.
func (m *Manager) Focus() { m.canvas.Focus(m.table.body) }

// hear takes a snapshot from any goroutine; only the newest is drawn.
func (m *Manager) hear(s *dom0.Snapshot) {
	m.newest.Store(s)
	if m.queued.Swap(true) {
		return
	}
	m.opts.UI(func() {
		m.queued.Store(false)
		if m.ctx.Err() == nil {
			m.show(m.newest.Load())
		}
	})
}

// counted takes the numbers of windows from any goroutine.
func (m *Manager) counted(windows map[string]int) {
	m.opts.UI(func() {
		if m.ctx.Err() != nil {
			return
		}
		m.windows = map[dom0.Name]int{}
		for name, n := range windows {
			m.windows[dom0.Name(name)] = n // looked up by a qube's name only
		}
		m.details.show(m.table.chosen())
	})
}

func (m *Manager) build() {
	m.table = newTable()
	m.table.now = m.opts.Now
	m.table.onOrder = func(order) { m.keep(); m.list() }
	m.table.onSelect = m.selected
	m.table.onActivate = m.activate
	m.table.onMenu = m.contextMenu
	m.table.onColumns = m.columnMenu
	m.table.onKey = m.key
	m.table.onRune = m.search
	m.table.onShortcut = m.shortcut
	m.tools = newToolbar(m)
	m.notices = newNotices(func(text string) {
		if m.opts.Clipboard != nil {
			m.opts.Clipboard.SetContent(text)
		}
	})
	m.notices.resized = m.rearrange
	m.link = newLinkPanel()
	m.link.resized = m.rearrange
	m.errands = newErrands(func(id dom0.JobID) { m.cancelJob(id) })
	m.errands.resized = m.rearrange
	m.details = newDetails(m)
	m.empty = newEmptyState()
	m.tip = newTip(m.opts.Later)
	m.table.onTip = m.tip.want

	m.filter = control.NewEntry(words.T("Filter qubes"))
	m.filter.Icon = control.ColorIcon("search", theme.Muted)
	m.filter.OnChanged = func(string) { m.list(); m.table.reveal() }
	m.filter.OnKey = m.filterKey
	m.filter.OnShortcut = m.shortcut

	chips := container.NewHBox()
	for g := range group(groups) {
		c := control.NewChip(g.title(), func() { m.pickGroup(g) })
		c.OnEscape = m.Focus
		m.chips = append(m.chips, c)
		chips.Add(c)
	}

	m.byButton = control.NewButton("", control.Icon("group"), nil)
	m.byButton.Importance = widget.LowImportance
	m.byButton.OnEscape = m.Focus
	m.byButton.OnTapped = m.chooseBy
	m.setBy(byNothing)
	bar := container.New(layout.NewCustomPaddedLayout(8, 4, 12, 12),
		container.New(&toolbarLayout{}, m.tools.box, m.filter))
	top := container.NewStack(control.NewGround(theme.Panel, "", 0), container.NewVBox(bar,
		container.New(layout.NewCustomPaddedLayout(0, 8, 12, 12), control.Border(nil, nil, chips, m.byButton))))
	m.pane = newPane(m)
	middle := container.New(&beside{m.pane}, container.NewStack(m.table.content(), m.empty.box), m.pane.box)
	m.main = container.New(&pile{grow: 4}, top, m.link.box, m.notices.box, m.errands.box, middle, m.details.box)
	m.content = container.NewStack(m.main, m.tip.layer)

	for _, s := range []*desktop.CustomShortcut{
		{KeyName: fyne.KeyF, Modifier: fyne.KeyModifierControl},
		{KeyName: fyne.KeyN, Modifier: fyne.KeyModifierControl},
		{KeyName: fyne.KeyI, Modifier: fyne.KeyModifierControl},
		{KeyName: fyne.KeyComma, Modifier: fyne.KeyModifierControl},
	} {
		m.canvas.AddShortcut(s, m.shortcut)
	}
	m.canvas.SetOnTypedKey(func(ev *fyne.KeyEvent) {
		switch {
		case m.sheet != nil && ev.Name == fyne.KeyEscape:
			m.closeSheet()
		case m.sheet == nil:
			m.Focus()
			m.table.body.TypedKey(ev)
		}
	})
	m.canvas.SetOnTypedRune(func(r rune) {
		if m.sheet == nil {
			m.table.body.TypedRune(r)
		}
	})
}

// toolbarLayout sets the buttons left and the filter right, the filter as
// wide as half of what is left, within reason.
type toolbarLayout struct{}

func (*toolbarLayout) MinSize(o []fyne.CanvasObject) fyne.Size {
	a, b := o[0].MinSize(), o[1].MinSize()
	return fyne.NewSize(a.Width+16+max(b.Width, 180), max(a.Height, b.Height))
}

func (*toolbarLayout) Layout(o []fyne.CanvasObject, size fyne.Size) {
	left := o[0].MinSize()
	wide := min(max((size.Width-left.Width-16)*0.7, 180), 360)
	o[0].Resize(fyne.NewSize(left.Width, size.Height))
	o[0].Move(fyne.NewPos(0, 0))
	high := o[1].MinSize().Height
	o[1].Resize(fyne.NewSize(wide, high))
	o[1].Move(fyne.NewPos(size.Width-wide, (size.Height-high)/2))
}

// pile sets objects below each other without gaps; the one with index grow
// takes the height that is left.
type pile struct{ grow int }

func (p *pile) MinSize(o []fyne.CanvasObject) fyne.Size {
	size := fyne.Size{}
	for _, one := range o {
		if one.Visible() {
			min := one.MinSize()
			size = fyne.NewSize(max(size.Width, min.Width), size.Height+min.Height)
		}
	}
	return size
}

func (p *pile) Layout(o []fyne.CanvasObject, size fyne.Size) {
	spare := size.Height - p.MinSize(o).Height
	y := float32(0)
	for i, one := range o {
		if !one.Visible() {
			continue
		}
		high := one.MinSize().Height
		if i == p.grow {
			high += spare
		}
		one.Move(fyne.NewPos(0, y))
		one.Resize(fyne.NewSize(size.Width, high))
		y += high
	}
}

// show draws a snapshot.
func (m *Manager) show(s *dom0.Snapshot) {
	old := m.state
	m.state = s
	m.table.remember(s, old)
	m.follow(s)
	m.link.show(s)
	m.errands.show(s)
	m.list()
	if m.page != nil {
		m.page.Update(s)
	}
	if m.config != nil {
		m.config.follow(s)
	}
	if again := m.wanted; again != nil && s.Link == dom0.Connected {
		again()
	}
}

// rearrange gives the panels above the table their room, and keeps the
// cursor in sight.
func (m *Manager) rearrange() {
	// A wrapped text knows its height only once it has its width.
	m.main.Layout.Layout(m.main.Objects, m.main.Size())
	m.main.Refresh()
	m.table.reveal()
}

// list applies group, filter and order to the state.
func (m *Manager) list() {
	n := counts(m.state)
	if m.group.passes() && n[m.group] == 0 {
		m.group = groupAll // the chip goes with the last of its qubes
	}
	for g, c := range m.chips {
		c.Set(n[g], group(g) == m.group)
		control.Show(c, !group(g).passes() || n[g] > 0)
	}
	rows := view(m.state, m.group, m.filter.Text, m.table.order)
	m.table.show(families(rows, m.by))
	m.empty.show(m, len(rows))
	m.selected()
}

// selected brings toolbar and details in line with the selection.
func (m *Manager) selected() {
	chosen := m.table.chosen()
	m.tools.show(m.able(chosen))
	m.details.show(chosen)
	m.pane.show(chosen)
}

func (m *Manager) pickGroup(g group) {
	m.group = g
	m.keep()
	m.list()
}

// search starts filtering with a rune typed elsewhere.
func (m *Manager) search(r rune) {
	m.canvas.Focus(m.filter)
	m.filter.TypedRune(r)
}

// filterKey is the keyboard's way out of the filter.
func (m *Manager) filterKey(key fyne.KeyName) bool {
	switch key {
	case fyne.KeyEscape:
		m.filter.SetText("")
		m.Focus()
	case fyne.KeyDown:
		m.Focus()
		if len(m.table.chosen()) == 0 {
			m.table.picks.move(1, false)
			m.table.selected(true)
		}
	case fyne.KeyReturn, fyne.KeyEnter:
		if i := m.table.picks.firstOr(m.table.picks.cursor); i >= 0 {
			m.table.picks.pick(i, false, false)
			m.table.selected(true)
			m.activate(m.table.rows[i].qube.ID)
		}
	default:
		return false
	}
	return true
}

// key takes what the table has no use for.
func (m *Manager) key(key fyne.KeyName) bool {
	switch key {
	case fyne.KeyDelete:
		m.remove()
	case desktop.KeyMenu:
		if i := m.table.picks.index(m.table.picks.cursor); i >= 0 {
			at := fyne.CurrentApp().Driver().AbsolutePositionForObject(m.table.body)
			m.contextMenu(at.AddXY(margin+iconSize, float32((i+1)*rowHeight)))
		}
	case fyne.KeyEscape:
		switch {
		case m.filter.Text != "":
			m.filter.SetText("")
		case len(m.table.picks.chosen) > 0:
			m.table.picks.clear()
			m.table.selected(false)
		}
	default:
		return false
	}
	return true
}

func (m *Manager) shortcut(s fyne.Shortcut) {
	custom, ok := s.(*desktop.CustomShortcut)
	if !ok || m.sheet != nil || custom.Modifier != fyne.KeyModifierControl {
		return
	}
	switch custom.KeyName {
	case fyne.KeyF:
		m.canvas.Focus(m.filter)
		m.filter.TypedShortcut(&fyne.ShortcutSelectAll{})
	case fyne.KeyN:
		m.newQube(create.Wish{})
	case fyne.KeyI:
		m.openPane(!m.pane.isOpen())
	case fyne.KeyComma:
		m.settings()
	}
}

func (m *Manager) openSheet(content fyne.CanvasObject, width float32) {
	var under *sheet
	if m.sheet != nil && m.sheet.stays {
		under = m.sheet
	} else {
		m.closeSheet()
	}
	m.tip.hide()
	m.sheet = openSheet(m.canvas, content, width, func() {
		m.sheet, m.page = under, nil
		if under == nil {
			m.config = nil
		}
	})
}

func (m *Manager) closeSheet() {
	if m.sheet != nil {
		m.sheet.close()
	}
}

func (m *Manager) ink(name fyne.ThemeColorName) color.Color { return control.NewPainter().Ink(name) }

func (m *Manager) textSize() float32 { return control.NewPainter().Size(fynetheme.SizeNameText) }

// Keys of the preferences.
const (
	prefSort  = "manager.sort"
	prefDown  = "manager.sort.down"
	prefGroup = "manager.group"
	prefBy    = "manager.by"
	prefHide  = "manager.columns.hidden"
	prefPane  = "manager.pane"
	prefPart  = "manager.pane.section"
)

// keep writes order and group down for the next time.
func (m *Manager) keep() {
	if m.prefs == nil {
		return
	}
	m.prefs.SetString(prefSort, string(m.table.order.by))
	m.prefs.SetBool(prefDown, m.table.order.down)
	m.prefs.SetInt(prefGroup, int(m.group))
	m.prefs.SetString(prefBy, string(m.by))
	m.prefs.SetStringList(prefHide, m.table.hiddenColumns())
	m.prefs.SetBool(prefPane, m.pane.isOpen())
	m.prefs.SetInt(prefPart, m.pane.at)
}

func (m *Manager) remembered() {
	if m.prefs == nil {
		return
	}
	for _, c := range m.table.cols {
		if string(c.key) == m.prefs.String(prefSort) {
			m.table.order = order{by: c.key, down: m.prefs.Bool(prefDown)}
		}
	}
	if g := m.prefs.Int(prefGroup); g > 0 && g < groups {
		m.group = group(g)
	}
	m.setBy(family(m.prefs.String(prefBy)))
	for _, key := range m.prefs.StringList(prefHide) {
		m.table.hide(columnKey(key), true)
	}
	if i := m.prefs.Int(prefPart); i > 0 && i < len(m.pane.sections) {
		m.pane.at = i
	}
	control.Show(m.pane.box, m.prefs.Bool(prefPane))
	m.details.toggled(m.pane.isOpen())
	m.pane.draw()
}
