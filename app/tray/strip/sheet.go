package strip

import (
	"image/color"
	"slices"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/tray/notifier"
	"cubicle/theme"
)

// Sheet is a menu that opens its submenus in place, below their entry, so
// that it needs one window. The keyboard moves in it: arrows, Enter, Esc.
type Sheet struct {
	widget.BaseWidget

	// OnPick is called when an entry was chosen that does something.
	OnPick func(notifier.Entry)
	// OnClose is called when the person leaves the menu.
	OnClose func()
	// OnResize is called when the menu needs another size.
	OnResize func()

	entries []notifier.Entry
	open    map[string]bool // paths of the submenus that are open
	lines   []line          // what can be seen, top down
	rows    []*row
	current string // path of the line with the focus; empty: none
	icons   bool   // some line has one, so all leave room for it
	box     *fyne.Container
	scroll  *container.Scroll
}

// line is an entry in its place.
type line struct {
	path  string
	depth int
	entry notifier.Entry
}

// NewSheet makes an empty menu.
func NewSheet() *Sheet {
	s := &Sheet{open: map[string]bool{}, box: container.New(stack{})}
	s.scroll = container.NewVScroll(s.box)
	s.ExtendBaseWidget(s)
	return s
}

// Begin shows another menu, with nothing open and nothing chosen.
func (s *Sheet) Begin(entries []notifier.Entry) {
	clear(s.open)
	s.current = ""
	s.scroll.Offset = fyne.Position{}
	s.Set(entries)
}

// Set shows changed entries of the same menu: what is open stays open.
func (s *Sheet) Set(entries []notifier.Entry) {
	s.entries = entries
	s.relay()
}

// relay computes the lines anew and lets the rows follow.
func (s *Sheet) relay() {
	before := s.MinSize()
	s.lines = s.flatten(nil, "", 0, s.entries)
	s.icons = slices.ContainsFunc(s.lines, func(l line) bool { return len(l.entry.Icon) > 0 || l.entry.Checkable })
	if !slices.ContainsFunc(s.lines, func(l line) bool { return l.path == s.current }) {
		s.current = ""
	}
	for len(s.rows) < len(s.lines) {
		s.rows = append(s.rows, newRow(s))
	}
	s.rows = s.rows[:len(s.lines)]
	if len(s.box.Objects) != len(s.rows) {
		s.box.Objects = make([]fyne.CanvasObject, len(s.rows))
		for i, r := range s.rows {
			s.box.Objects[i] = r
		}
	}
	for i, l := range s.lines {
		s.rows[i].show(l)
	}
	s.box.Refresh()
	if s.MinSize() != before && s.OnResize != nil {
		s.OnResize()
	}
}

func (s *Sheet) flatten(out []line, path string, depth int, entries []notifier.Entry) []line {
	for _, e := range entries {
		own := path + "/" + e.Key
		out = append(out, line{own, depth, e})
		if s.open[own] {
			out = s.flatten(out, own, depth+1, e.Children)
		}
	}
	return out
}

// Lines are the labels that can be seen, top down; a separator's is empty.
func (s *Sheet) Lines() []string {
	out := make([]string, len(s.lines))
	for i, l := range s.lines {
		out[i] = l.entry.Label
	}
	return out
}

// MinSize implements fyne.CanvasObject: the size that shows every line.
func (s *Sheet) MinSize() fyne.Size { return s.box.MinSize().AddWidthHeight(2, 8) }

// CreateRenderer implements fyne.Widget.
func (s *Sheet) CreateRenderer() fyne.WidgetRenderer {
	ground := control.NewGround(fynetheme.ColorNameMenuBackground, fynetheme.ColorNameInputBorder, 0)
	return widget.NewSimpleRenderer(container.NewStack(ground, container.New(inset{}, s.scroll)))
}

// inset leaves room for the sheet's edge.
type inset struct{}

func (inset) MinSize([]fyne.CanvasObject) fyne.Size { return fyne.Size{} }
func (inset) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	control.Place(objects[0], 1, 4, size.Width-2, size.Height-8)
}

// stack lays lines out one below the other.
type stack struct{}

func (stack) MinSize(objects []fyne.CanvasObject) fyne.Size {
	var size fyne.Size
	for _, o := range objects {
		m := o.MinSize()
		size.Width, size.Height = max(size.Width, m.Width), size.Height+m.Height
	}
	return size
}

func (stack) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	y := float32(0)
	for _, o := range objects {
		h := o.MinSize().Height
		control.Place(o, 0, y, size.Width, h)
		y += h
	}
}

// choose does what a click on a line does.
func (s *Sheet) choose(path string) {
	i := s.at(path)
	if i < 0 || !usable(s.lines[i].entry) {
		return
	}
	s.point(path)
	e := s.lines[i].entry
	if len(e.Children) > 0 {
		s.turn(path, !s.open[path])
		return
	}
	if s.OnPick != nil {
		s.OnPick(e)
	}
}

// turn opens or closes a submenu. One of its siblings that is open closes.
func (s *Sheet) turn(path string, open bool) {
	if open {
		i := s.at(path)
		for _, l := range s.lines {
			if l.depth == s.lines[i].depth {
				delete(s.open, l.path)
			}
		}
	}
	s.open[path] = open
	s.relay()
}

func (s *Sheet) at(path string) int {
	return slices.IndexFunc(s.lines, func(l line) bool { return l.path == path })
}

func usable(e notifier.Entry) bool { return !e.Separator && !e.Disabled }

// point gives a line the focus.
func (s *Sheet) point(path string) {
	if s.current == path {
		return
	}
	was := s.current
	s.current = path
	for i, l := range s.lines {
		if l.path == was || l.path == path {
			s.rows[i].Refresh()
		}
	}
}

// move takes the focus to the next usable line in a direction, around the
// ends.
func (s *Sheet) move(step int) {
	n := len(s.lines)
	if n == 0 {
		return
	}
	i := s.at(s.current)
	if i < 0 && step < 0 {
		i = 0
	}
	for range n {
		i = (i + step + n) % n
		if usable(s.lines[i].entry) {
			s.point(s.lines[i].path)
			s.reveal(s.rows[i])
			return
		}
	}
}

// reveal scrolls so that a row can be seen.
func (s *Sheet) reveal(r *row) {
	top, bottom := r.Position().Y, r.Position().Y+r.Size().Height
	switch {
	case top < s.scroll.Offset.Y:
		s.scroll.ScrollToOffset(fyne.NewPos(0, top))
	case bottom > s.scroll.Offset.Y+s.scroll.Size().Height:
		s.scroll.ScrollToOffset(fyne.NewPos(0, bottom-s.scroll.Size().Height))
	}
}

// FocusGained implements fyne.Focusable.
func (s *Sheet) FocusGained() {}

// FocusLost implements fyne.Focusable.
func (s *Sheet) FocusLost() {}

// TypedRune implements fyne.Focusable.
func (s *Sheet) TypedRune(rune) {}

// TypedKey implements fyne.Focusable.
func (s *Sheet) TypedKey(ev *fyne.KeyEvent) {
	i := s.at(s.current)
	switch ev.Name {
	case fyne.KeyDown, fyne.KeyTab:
		s.move(1)
	case fyne.KeyUp:
		s.move(-1)
	case fyne.KeyHome:
		s.current = ""
		s.move(1)
	case fyne.KeyEnd:
		s.current = ""
		s.move(-1)
	case fyne.KeyReturn, fyne.KeyEnter, fyne.KeySpace:
		s.choose(s.current)
	case fyne.KeyRight:
		if i >= 0 && len(s.lines[i].entry.Children) > 0 && !s.open[s.current] {
			s.turn(s.current, true)
		}
	case fyne.KeyLeft:
		s.leave(i)
	case fyne.KeyEscape:
		if s.OnClose != nil {
			s.OnClose()
		}
	}
}

// leave closes the submenu that line i opens or is in.
func (s *Sheet) leave(i int) {
	if i < 0 {
		return
	}
	if s.open[s.current] {
		s.turn(s.current, false)
		return
	}
	for j := i; j >= 0; j-- {
		if s.lines[j].depth < s.lines[i].depth {
			parent := s.lines[j].path
			s.turn(parent, false)
			s.point(parent)
			return
		}
	}
}

// row draws a line.
type row struct {
	widget.BaseWidget
	sheet *Sheet
	line  line
	icon  fyne.Resource
}

func newRow(s *Sheet) *row {
	r := &row{sheet: s}
	r.ExtendBaseWidget(r)
	return r
}

func (r *row) show(l line) {
	if r.line.path != l.path || string(r.line.entry.Icon) != string(l.entry.Icon) {
		r.icon = pngResource(l.entry.Icon)
	}
	r.line = l
	r.Refresh()
}

// Tapped implements fyne.Tappable.
func (r *row) Tapped(*fyne.PointEvent) { r.sheet.choose(r.line.path) }

// MouseIn implements desktop.Hoverable.
func (r *row) MouseIn(*desktop.MouseEvent) {
	if usable(r.line.entry) {
		r.sheet.point(r.line.path)
	}
}

// MouseMoved implements desktop.Hoverable.
func (r *row) MouseMoved(*desktop.MouseEvent) {}

// MouseOut implements desktop.Hoverable.
func (r *row) MouseOut() {}

// CreateRenderer implements fyne.Widget.
func (r *row) CreateRenderer() fyne.WidgetRenderer {
	x := &rowRenderer{
		row:    r,
		ground: canvas.NewRectangle(color.Transparent),
		rule:   canvas.NewRectangle(color.Transparent),
		icon:   canvas.NewImageFromResource(nil),
		arrow:  canvas.NewImageFromResource(nil),
		text:   canvas.NewText("", color.Transparent),
	}
	x.icon.FillMode, x.arrow.FillMode = canvas.ImageFillContain, canvas.ImageFillContain
	x.ground.CornerRadius = 4
	x.Refresh()
	return x
}

type rowRenderer struct {
	row          *row
	ground, rule *canvas.Rectangle
	icon, arrow  *canvas.Image
	text         *canvas.Text
}

// Measures of a row, in Fyne's units.
const (
	rowPad     = 8
	rowIcon    = 16
	rowGap     = 8
	rowIndent  = rowIcon + rowGap
	rowMargin  = 4
	ruleHeight = 9
)

// Destroy implements fyne.WidgetRenderer.
func (x *rowRenderer) Destroy() {}

// Objects implements fyne.WidgetRenderer.
func (x *rowRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{x.ground, x.rule, x.icon, x.text, x.arrow}
}

// MinSize implements fyne.WidgetRenderer.
func (x *rowRenderer) MinSize() fyne.Size {
	if x.row.line.entry.Separator {
		return fyne.NewSize(0, ruleHeight)
	}
	text := x.text.MinSize()
	return fyne.NewSize(x.left()+text.Width+rowGap+rowIcon+rowPad+rowMargin, text.Height+2*6)
}

// left is where the text begins.
func (x *rowRenderer) left() float32 {
	left := rowMargin + rowPad + float32(x.row.line.depth)*rowIndent
	if x.row.sheet.icons {
		left += rowIcon + rowGap
	}
	return left
}

// Layout implements fyne.WidgetRenderer.
func (x *rowRenderer) Layout(size fyne.Size) {
	middle := func(h float32) float32 { return (size.Height - h) / 2 }
	control.Place(x.ground, rowMargin, 0, size.Width-2*rowMargin, size.Height)
	control.Place(x.rule, rowMargin+rowPad, middle(1), size.Width-2*(rowMargin+rowPad), 1)
	control.Place(x.icon, x.left()-rowGap-rowIcon, middle(rowIcon), rowIcon, rowIcon)
	text := x.text.MinSize()
	control.Place(x.text, x.left(), middle(text.Height), text.Width, text.Height)
	control.Place(x.arrow, size.Width-rowMargin-rowPad-rowIcon, middle(rowIcon), rowIcon, rowIcon)
}

// Refresh implements fyne.WidgetRenderer.
func (x *rowRenderer) Refresh() {
	p, r := control.NewPainter(), x.row
	e := r.line.entry
	fill, ink := color.Color(color.Transparent), p.Ink(fynetheme.ColorNameForeground)
	if e.Disabled {
		ink = p.Ink(theme.Muted) // some of them tell something
	}
	if r.sheet.current == r.line.path {
		fill = p.Ink(theme.Row)
	}
	control.SetRect(x.ground, fill, color.Transparent, 0)
	control.SetRect(x.rule, p.Ink(fynetheme.ColorNameSeparator), color.Transparent, 0)
	control.SetText(x.text, e.Label, ink, p.Size(fynetheme.SizeNameText))
	icon := r.icon
	if e.Checkable && e.Checked {
		icon = fynetheme.ConfirmIcon()
	}
	if icon != nil {
		control.SetImage(x.icon, icon)
	}
	arrow := "down"
	if r.sheet.open[r.line.path] {
		arrow = "up"
	}
	control.SetImage(x.arrow, control.ColorIcon(arrow, theme.Muted))
	control.Show(x.rule, e.Separator)
	control.Show(x.ground, !e.Separator)
	control.Show(x.text, !e.Separator)
	control.Show(x.icon, icon != nil)
	control.Show(x.arrow, len(e.Children) > 0)
	x.Layout(r.Size())
}
