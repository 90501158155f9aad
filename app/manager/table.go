package manager

import (
	"image/color"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// table is the list of qubes: a row of headers above a body that scrolls.
// The body draws only the rows in sight, and touches only what changed.
type table struct {
	head   *tableHead
	body   *tableBody
	scroll *container.Scroll

	cols    []column
	hidden  map[columnKey]bool // columns that people put away
	wide    []float32
	places  []place
	rows    []row
	order   order
	history map[dom0.QubeID][]float64 // CPU use, oldest first
	picks   selection

	onOrder    func(order)
	onSelect   func()
	onActivate func(dom0.QubeID)
	onMenu     func(fyne.Position)
	onKey      func(fyne.KeyName) bool
	onRune     func(rune)
	onShortcut func(fyne.Shortcut)
	onColumns  func(at fyne.Position)
	onTip      func(text string, at fyne.Position) // empty: none
	now        func() time.Time
}

func newTable() *table {
	t := &table{cols: columns(), order: order{by: colName}, history: map[dom0.QubeID][]float64{}, hidden: map[columnKey]bool{}, now: time.Now}
	t.picks.clear()
	t.head = &tableHead{table: t, over: -1}
	t.head.ExtendBaseWidget(t.head)
	t.body = &tableBody{table: t, over: -1}
	t.body.ExtendBaseWidget(t.body)
	t.scroll = container.NewVScroll(t.body)
	t.scroll.OnScrolled = func(fyne.Position) { t.body.paint() }
	t.measure()
	return t
}

// content is the table as it is put into a window.
func (t *table) content() fyne.CanvasObject {
	return container.New(&pile{grow: 1}, t.head, t.scroll)
}

// show replaces the rows.
func (t *table) show(rows []row) {
	resized := len(rows) != len(t.rows)
	t.rows = rows
	t.picks.show(rows)
	if t.measure() {
		t.arrange(t.body.Size().Width)
		t.head.Refresh()
	}
	if resized {
		t.scroll.Refresh()
	}
	t.body.paint()
}

// measure finds the widest text of each column and reports a change.
func (t *table) measure() bool {
	th := fyne.CurrentApp().Settings().Theme()
	textSize := th.Size(fynetheme.SizeNameText)
	caption := th.Size(fynetheme.SizeNameCaptionText)
	wide := make([]float32, len(t.cols))
	for i, c := range t.cols {
		wide[i] = fyne.MeasureText(c.sample, textSize, fyne.TextStyle{}).Width
		// The header needs room for its arrow.
		wide[i] = max(wide[i], fyne.MeasureText(c.title, caption, fyne.TextStyle{Bold: true}).Width+14-c.extra())
	}
	seen := map[string]bool{}
	for r := range t.rows {
		if t.rows[r].heading != "" {
			continue
		}
		for i, c := range t.cols {
			if c.figure || c.key == colState {
				continue // their samples hold the widest
			}
			text := c.text(&t.rows[r].qube)
			if key := string(c.key) + "\x00" + text; !seen[key] {
				seen[key] = true
				wide[i] = max(wide[i], min(fyne.MeasureText(text, textSize, fyne.TextStyle{Bold: c.key == colName}).Width+1, nameMax))
			}
		}
	}
	changed := len(t.wide) != len(wide)
	for i := 0; !changed && i < len(wide); i++ {
		changed = wide[i] != t.wide[i]
	}
	t.wide = wide
	return changed
}

func (t *table) arrange(width float32) { t.places = arrange(t.cols, t.hidden, t.wide, width) }

// hide puts a column away or back; name and state stay.
func (t *table) hide(key columnKey, hidden bool) {
	if key == colName || key == colState {
		return
	}
	delete(t.hidden, key)
	if hidden {
		t.hidden[key] = true
	}
	t.arrange(t.body.Size().Width)
	t.head.Refresh()
	t.body.paint()
}

// hiddenColumns are the columns that are put away, left to right.
func (t *table) hiddenColumns() []string {
	var keys []string
	for _, c := range t.cols {
		if t.hidden[c.key] {
			keys = append(keys, string(c.key))
		}
	}
	return keys
}

// remember adds the CPU figures of a snapshot to the sparklines.
func (t *table) remember(s *dom0.Snapshot, old *dom0.Snapshot) {
	for i := range s.Qubes {
		q := &s.Qubes[i]
		if !isUp(q) {
			delete(t.history, q.ID)
			continue
		}
		if before, ok := old.ByID(q.ID); ok && before.CPU == q.CPU && before.MemoryUsed == q.MemoryUsed && len(t.history[q.ID]) > 0 {
			continue
		}
		h := append(t.history[q.ID], q.CPU)
		t.history[q.ID] = h[max(0, len(h)-sparkBars):]
	}
}

// chosen is the selected qubes in the table's order.
func (t *table) chosen() []dom0.Qube {
	var list []dom0.Qube
	for i := range t.rows {
		if t.picks.chosen[t.rows[i].qube.ID] {
			list = append(list, t.rows[i].qube)
		}
	}
	return list
}

// selected tells everyone that the selection or the cursor changed.
func (t *table) selected(reveal bool) {
	if reveal {
		t.reveal()
	}
	t.body.paint()
	if t.onSelect != nil {
		t.onSelect()
	}
}

// reveal scrolls the cursor into sight.
func (t *table) reveal() {
	i := t.picks.index(t.picks.cursor)
	if i < 0 {
		return
	}
	top, height := float32(i*rowHeight), t.scroll.Size().Height
	switch offset := t.scroll.Offset.Y; {
	case top < offset:
		t.scroll.ScrollToOffset(fyne.NewPos(0, top))
	case top+rowHeight > offset+height:
		t.scroll.ScrollToOffset(fyne.NewPos(0, top+rowHeight-height))
	}
}

// visible is the range of rows in sight.
func (t *table) visible() (from, to int) {
	from = max(0, int(t.scroll.Offset.Y)/rowHeight)
	to = min(len(t.rows), int(t.scroll.Offset.Y+t.scroll.Size().Height)/rowHeight+1)
	return min(from, to), to
}

// tableBody draws the rows and takes mouse and keyboard.
type tableBody struct {
	widget.BaseWidget
	table   *table
	focused bool
	over    int // row under the pointer, -1: none

	lastTap   time.Time
	lastTapID dom0.QubeID
	modifier  fyne.KeyModifier
	pressed   bool // the row was selected when the button went down
}

var (
	_ fyne.Focusable         = (*tableBody)(nil)
	_ fyne.Tappable          = (*tableBody)(nil)
	_ fyne.SecondaryTappable = (*tableBody)(nil)
	_ fyne.Shortcutable      = (*tableBody)(nil)
	_ desktop.Mouseable      = (*tableBody)(nil)
	_ desktop.Hoverable      = (*tableBody)(nil)
	_ desktop.Keyable        = (*tableBody)(nil)
)

// doubleTap is how close two taps on a row count as one.
const doubleTap = 400 * time.Millisecond

func (b *tableBody) at(pos fyne.Position) int {
	i := int(pos.Y) / rowHeight
	if pos.Y < 0 || i >= len(b.table.rows) || b.table.rows[i].heading != "" {
		return -1
	}
	return i
}

// MouseDown selects at once: waiting for a double tap would feel slow.
func (b *tableBody) MouseDown(ev *desktop.MouseEvent) {
	b.focus()
	i := b.at(ev.Position)
	b.pressed = true
	b.tip("", fyne.Position{})
	if i < 0 {
		b.table.picks.clear()
		b.table.selected(false)
		return
	}
	if ev.Button == desktop.MouseButtonSecondary {
		if !b.table.picks.chosen[b.table.rows[i].qube.ID] {
			b.table.picks.pick(i, false, false)
			b.table.selected(false)
		}
		return
	}
	b.table.picks.pick(i, ev.Modifier&fyne.KeyModifierControl != 0, ev.Modifier&fyne.KeyModifierShift != 0)
	b.modifier = ev.Modifier
	b.table.selected(false)
}

// MouseUp implements desktop.Mouseable.
func (b *tableBody) MouseUp(*desktop.MouseEvent) {}

// Tapped selects when no MouseDown came before (touch), and activates on the
// second tap.
func (b *tableBody) Tapped(ev *fyne.PointEvent) {
	i := b.at(ev.Position)
	if !b.pressed {
		b.focus()
		b.table.picks.pick(i, false, false)
		b.table.selected(false)
	}
	plain := b.modifier == 0
	b.pressed, b.modifier = false, 0
	if i < 0 || !plain {
		return
	}
	id, now := b.table.rows[i].qube.ID, b.table.now()
	if b.lastTapID == id && now.Sub(b.lastTap) < doubleTap {
		b.lastTapID = ""
		b.table.onActivate(id)
		return
	}
	b.lastTapID, b.lastTap = id, now
}

// TappedSecondary opens the menu of what is selected.
func (b *tableBody) TappedSecondary(ev *fyne.PointEvent) {
	b.pressed = false
	if b.at(ev.Position) >= 0 && b.table.onMenu != nil {
		b.table.onMenu(ev.AbsolutePosition)
	}
}

func (b *tableBody) focus() {
	if c := fyne.CurrentApp().Driver().CanvasForObject(b); c != nil && !b.focused {
		c.Focus(b)
	}
}

// MouseIn implements desktop.Hoverable.
func (b *tableBody) MouseIn(ev *desktop.MouseEvent) { b.MouseMoved(ev) }

// MouseMoved implements desktop.Hoverable.
func (b *tableBody) MouseMoved(ev *desktop.MouseEvent) {
	i := b.at(ev.Position)
	if i != b.over {
		b.over = i
		b.paint()
	}
	text := ""
	if i >= 0 {
		text = b.table.explain(&b.table.rows[i], ev.Position.X)
	}
	b.tip(text, ev.AbsolutePosition)
}

// MouseOut implements desktop.Hoverable.
func (b *tableBody) MouseOut() {
	b.tip("", fyne.Position{})
	if b.over >= 0 {
		b.over = -1
		b.paint()
	}
}

func (b *tableBody) tip(text string, at fyne.Position) {
	if b.table.onTip != nil {
		b.table.onTip(text, at)
	}
}

// explain is what the cell at x has to say beyond what it shows.
func (t *table) explain(r *row, x float32) string {
	for i, p := range t.places {
		if p.width == 0 || x < p.x-gap/2 || x >= p.x+p.width+gap/2 {
			continue
		}
		q := &r.qube
		switch t.cols[i].key {
		case colName:
			return words.T("%s · label %s", q.Name, words.Label(q.Label.Name))
		case colState:
			if q.Problem != "" {
				return q.Problem
			}
		case colTemplate:
			if q.Outdated {
				return words.T("%s runs on an older version of %s; restart it to get the new one.", q.Name, q.Template)
			}
		case colIsolation:
			if q.Weakness != "" {
				return q.Isolation + ": " + words.Known(q.Weakness)
			}
		}
	}
	return ""
}

// FocusGained implements fyne.Focusable.
func (b *tableBody) FocusGained() {
	b.focused = true
	if b.table.picks.index(b.table.picks.cursor) < 0 && len(b.table.rows) > 0 && len(b.table.picks.chosen) == 0 {
		if i := b.table.picks.firstOr(""); i >= 0 {
			b.table.picks.cursor = b.table.rows[i].qube.ID
		}
	}
	b.paint()
}

// FocusLost implements fyne.Focusable.
func (b *tableBody) FocusLost() {
	b.focused = false
	b.modifier = 0
	b.paint()
}

// KeyDown implements desktop.Keyable: it follows Shift for ranges.
func (b *tableBody) KeyDown(ev *fyne.KeyEvent) {
	if ev.Name == desktop.KeyShiftLeft || ev.Name == desktop.KeyShiftRight {
		b.modifier |= fyne.KeyModifierShift
	}
}

// KeyUp implements desktop.Keyable.
func (b *tableBody) KeyUp(ev *fyne.KeyEvent) {
	if ev.Name == desktop.KeyShiftLeft || ev.Name == desktop.KeyShiftRight {
		b.modifier &^= fyne.KeyModifierShift
	}
}

// TypedRune begins a search: the filter takes it.
func (b *tableBody) TypedRune(r rune) {
	if b.table.onRune != nil && r != ' ' {
		b.table.onRune(r)
	}
}

// TypedShortcut implements fyne.Shortcutable.
func (b *tableBody) TypedShortcut(s fyne.Shortcut) {
	if _, ok := s.(*fyne.ShortcutSelectAll); ok {
		b.table.picks.all()
		b.table.selected(false)
		return
	}
	if b.table.onShortcut != nil {
		b.table.onShortcut(s)
	}
}

// TypedKey implements fyne.Focusable.
func (b *tableBody) TypedKey(ev *fyne.KeyEvent) {
	t := b.table
	page := max(1, int(t.scroll.Size().Height)/rowHeight-1)
	extend := b.modifier&fyne.KeyModifierShift != 0
	switch ev.Name {
	case fyne.KeyDown:
		t.picks.move(1, extend)
	case fyne.KeyUp:
		t.picks.move(-1, extend)
	case fyne.KeyPageDown:
		t.picks.move(page, extend)
	case fyne.KeyPageUp:
		t.picks.move(-page, extend)
	case fyne.KeyHome:
		t.picks.move(-len(t.rows), extend)
	case fyne.KeyEnd:
		t.picks.move(len(t.rows), extend)
	case fyne.KeySpace:
		t.picks.pick(t.picks.index(t.picks.cursor), true, false)
	case fyne.KeyReturn, fyne.KeyEnter:
		if t.picks.index(t.picks.cursor) >= 0 {
			t.onActivate(t.picks.cursor)
		}
		return
	default:
		if t.onKey != nil {
			t.onKey(ev.Name)
		}
		return
	}
	t.selected(true)
}

// MinSize is as high as all rows, so that the scroller knows its range.
func (b *tableBody) MinSize() fyne.Size {
	return fyne.NewSize(400, float32(len(b.table.rows)*rowHeight))
}

// CreateRenderer implements fyne.Widget.
func (b *tableBody) CreateRenderer() fyne.WidgetRenderer {
	return &bodyRenderer{body: b}
}

// paint brings what is in sight up to date.
func (b *tableBody) paint() { b.Refresh() }

// bodyRenderer keeps one line of canvas objects per row in sight.
type bodyRenderer struct {
	body    *tableBody
	lines   []*line
	objects []fyne.CanvasObject
	look    look
}

// look is what changes with the theme: lines drawn in another one are stale.
type look struct {
	ink, ground color.Color
	textSize    float32
}

func lookOf(p control.Painter) look {
	return look{p.Ink(fynetheme.ColorNameForeground), p.Ink(fynetheme.ColorNameBackground), p.Size(fynetheme.SizeNameText)}
}

// Destroy implements fyne.WidgetRenderer.
func (r *bodyRenderer) Destroy() {}

// MinSize implements fyne.WidgetRenderer.
func (r *bodyRenderer) MinSize() fyne.Size { return r.body.MinSize() }

// Objects implements fyne.WidgetRenderer.
func (r *bodyRenderer) Objects() []fyne.CanvasObject { return r.objects }

// Layout implements fyne.WidgetRenderer.
func (r *bodyRenderer) Layout(size fyne.Size) {
	r.body.table.arrange(size.Width)
	r.body.table.head.Refresh()
	r.Refresh()
}

// Refresh implements fyne.WidgetRenderer.
func (r *bodyRenderer) Refresh() {
	t := r.body.table
	p := control.NewPainter()
	if now := lookOf(p); now != r.look {
		r.look, r.lines = now, nil
	}
	from, to := t.visible()
	grown := false
	if n := to - from; len(r.lines) != n {
		for len(r.lines) < n {
			r.lines = append(r.lines, newLine(t))
		}
		r.lines = r.lines[:n]
		grown = true
	}
	// A row keeps its line while it scrolls: line = row modulo lines.
	for i := from; i < to; i++ {
		l := r.lines[i%len(r.lines)]
		l.set(p, lineState{
			row:      t.rows[i],
			y:        float32(i * rowHeight),
			width:    r.body.Size().Width,
			selected: t.picks.chosen[t.rows[i].qube.ID],
			cursor:   r.body.focused && t.rows[i].heading == "" && t.picks.cursor == t.rows[i].qube.ID,
			over:     r.body.over == i,
			spark:    t.history[t.rows[i].qube.ID],
		})
	}
	if grown || len(r.objects) == 0 {
		r.objects = r.objects[:0:0]
		for _, l := range r.lines {
			r.objects = append(r.objects, l.objects...)
		}
		canvas.Refresh(r.body)
	}
}
