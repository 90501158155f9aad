package ask

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/theme"
)

// list shows parties, one of them chosen, and scrolls. It never takes the
// keyboard: whoever has it moves the choice by step. Only the rows in sight
// are drawn.
type list struct {
	rows   []party
	chosen string // answer of the chosen one, or empty
	over   int
	scroll *container.Scroll
	body   *listBody

	onChosen func(string)
}

func newList(chosen func(string)) *list {
	l := &list{over: -1, onChosen: chosen}
	l.body = &listBody{list: l}
	l.body.ExtendBaseWidget(l.body)
	l.scroll = container.NewVScroll(l.body)
	l.scroll.OnScrolled = func(fyne.Position) { l.body.Refresh() }
	return l
}

// show replaces the rows and the choice.
func (l *list) show(rows []party, chosen string) {
	l.rows, l.chosen = rows, chosen
	l.scroll.Refresh()
	l.body.Refresh()
	l.reveal()
}

func (l *list) index() int {
	for i := range l.rows {
		if l.rows[i].answer == l.chosen {
			return i
		}
	}
	return -1
}

// step moves the choice; the first step chooses the first row or the last.
func (l *list) step(by int) {
	n := len(l.rows)
	if n == 0 {
		return
	}
	at := l.index()
	switch {
	case at < 0 && by > 0:
		at = 0
	case at < 0:
		at = n - 1
	default:
		at = min(max(at+by, 0), n-1)
	}
	l.choose(at)
}

func (l *list) choose(at int) {
	if l.chosen != l.rows[at].answer {
		l.chosen = l.rows[at].answer
		l.onChosen(l.chosen)
	}
	l.reveal()
	l.body.Refresh()
}

// page is the number of rows in sight.
func (l *list) page() int { return max(1, int(l.scroll.Size().Height/rowHigh)-1) }

// reveal scrolls until the choice is in sight.
func (l *list) reveal() {
	at := l.index()
	if at < 0 {
		return
	}
	top, high := float32(at)*rowHigh, l.scroll.Size().Height
	offset := l.scroll.Offset.Y
	switch {
	case top < offset:
		offset = top
	case top+rowHigh > offset+high:
		offset = top + rowHigh - high
	}
	if offset = max(0, offset); offset != l.scroll.Offset.Y {
		l.scroll.ScrollToOffset(fyne.NewPos(0, offset))
	}
}

// Measures of a row.
const (
	rowHigh  = 36
	rowEdge  = 12
	rowIcon  = 18
	rowGap   = 10
	rowInset = 3
)

// listBody is all rows.
type listBody struct {
	widget.BaseWidget
	list *list
}

var (
	_ fyne.Tappable     = (*listBody)(nil)
	_ desktop.Hoverable = (*listBody)(nil)
)

func (b *listBody) at(p fyne.Position) int {
	if i := int(p.Y / rowHigh); p.Y >= 0 && i < len(b.list.rows) {
		return i
	}
	return -1
}

// Tapped implements fyne.Tappable.
func (b *listBody) Tapped(ev *fyne.PointEvent) {
	if i := b.at(ev.Position); i >= 0 {
		b.list.choose(i)
	}
}

// MouseIn implements desktop.Hoverable.
func (b *listBody) MouseIn(ev *desktop.MouseEvent) { b.MouseMoved(ev) }

// MouseMoved implements desktop.Hoverable.
func (b *listBody) MouseMoved(ev *desktop.MouseEvent) { b.hover(b.at(ev.Position)) }

// MouseOut implements desktop.Hoverable.
func (b *listBody) MouseOut() { b.hover(-1) }

func (b *listBody) hover(at int) {
	if b.list.over != at {
		b.list.over = at
		b.Refresh()
	}
}

// CreateRenderer implements fyne.Widget.
func (b *listBody) CreateRenderer() fyne.WidgetRenderer { return &listRenderer{list: b.list} }

type listRenderer struct {
	list    *list
	lines   []*listLine
	objects []fyne.CanvasObject
}

// listLine is what is drawn of one row.
type listLine struct {
	ground      *canvas.Rectangle
	icon        *canvas.Image
	title, note *canvas.Text
}

func (r *listRenderer) Destroy() {}

func (r *listRenderer) MinSize() fyne.Size {
	return fyne.NewSize(0, float32(len(r.list.rows))*rowHigh)
}

func (r *listRenderer) Objects() []fyne.CanvasObject { return r.objects }

func (r *listRenderer) Layout(fyne.Size) { r.Refresh() }

func (r *listRenderer) Refresh() {
	size, view := r.list.body.Size(), r.list.scroll.Size()
	first := max(0, int(r.list.scroll.Offset.Y/rowHigh))
	inSight := int(view.Height/rowHigh) + 2
	for len(r.lines) < inSight {
		l := &listLine{ground: canvas.NewRectangle(color.Transparent), icon: &canvas.Image{FillMode: canvas.ImageFillContain},
			title: canvas.NewText("", color.Transparent), note: canvas.NewText("", color.Transparent)}
		l.ground.CornerRadius = 6
		r.lines = append(r.lines, l)
		r.objects = append(r.objects, l.ground, l.icon, l.title, l.note)
	}
	p := control.NewPainter()
	for i, l := range r.lines {
		at := first + i
		shown := at < len(r.list.rows)
		for _, o := range []fyne.CanvasObject{l.ground, l.icon, l.title, l.note} {
			control.Show(o, shown)
		}
		if shown {
			l.draw(p, r.list.rows[at], float32(at)*rowHigh, size.Width, r.list.rows[at].answer == r.list.chosen, at == r.list.over)
		}
	}
}

func (l *listLine) draw(p control.Painter, row party, y, width float32, chosen, over bool) {
	fill, stroke, edge := color.Color(color.Transparent), color.Color(color.Transparent), float32(0)
	ink := p.Ink(fynetheme.ColorNameForeground)
	switch {
	case chosen:
		fill, stroke, edge = p.Ink(theme.Row), p.Ink(fynetheme.ColorNamePrimary), 1.5
	case over:
		fill = p.Ink(theme.RowHover)
	}
	control.SetRect(l.ground, fill, stroke, edge)
	control.Place(l.ground, rowInset, y+1, width-2*rowInset, rowHigh-2)
	control.SetImage(l.icon, control.LabelIcon(row.shape, row.color))
	control.Place(l.icon, rowEdge, y+(rowHigh-rowIcon)/2, rowIcon, rowIcon)
	if l.title.TextStyle.Bold != chosen {
		l.title.TextStyle.Bold = chosen
		l.title.Refresh()
	}
	control.SetText(l.title, row.title, ink, p.Size(fynetheme.SizeNameText))
	control.SetText(l.note, row.note, p.Ink(theme.Muted), p.Size(fynetheme.SizeNameCaptionText))
	title, note := l.title.MinSize(), l.note.MinSize()
	left := float32(rowEdge + rowIcon + rowGap)
	control.Place(l.title, left, y+(rowHigh-title.Height)/2, title.Width, title.Height)
	right := width - rowEdge - note.Width
	control.Place(l.note, right, y+(rowHigh-note.Height)/2, note.Width, note.Height)
	control.Show(l.note, row.note != "" && right > left+title.Width+rowGap)
}
