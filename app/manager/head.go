package manager

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/desktop"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/theme"
)

// headHeight is the height of the row of headers.
const headHeight = 32

// tableHead is the row of headers; a tap sorts.
type tableHead struct {
	widget.BaseWidget
	table *table
	over  int // column under the pointer, -1: none
}

var (
	_ fyne.Tappable          = (*tableHead)(nil)
	_ fyne.SecondaryTappable = (*tableHead)(nil)
	_ desktop.Hoverable      = (*tableHead)(nil)
)

func (h *tableHead) at(x float32) int {
	for i, p := range h.table.places {
		if p.width > 0 && x >= p.x-gap/2 && x < p.x+p.width+gap/2 {
			return i
		}
	}
	return -1
}

// Tapped sorts by the column: figures biggest first, then the other way.
func (h *tableHead) Tapped(ev *fyne.PointEvent) {
	i := h.at(ev.Position.X)
	if i < 0 {
		return
	}
	c := h.table.cols[i]
	next := order{by: c.key, down: c.figure}
	if h.table.order.by == c.key {
		next.down = !h.table.order.down
	}
	h.table.order = next
	h.Refresh()
	if h.table.onOrder != nil {
		h.table.onOrder(next)
	}
}

// TappedSecondary opens the menu of columns.
func (h *tableHead) TappedSecondary(ev *fyne.PointEvent) {
	if h.table.onColumns != nil {
		h.table.onColumns(ev.AbsolutePosition)
	}
}

// MouseIn implements desktop.Hoverable.
func (h *tableHead) MouseIn(ev *desktop.MouseEvent) { h.MouseMoved(ev) }

// MouseMoved implements desktop.Hoverable.
func (h *tableHead) MouseMoved(ev *desktop.MouseEvent) {
	if i := h.at(ev.Position.X); i != h.over {
		h.over = i
		h.Refresh()
	}
}

// MouseOut implements desktop.Hoverable.
func (h *tableHead) MouseOut() {
	h.over = -1
	h.Refresh()
}

// MinSize implements fyne.Widget.
func (h *tableHead) MinSize() fyne.Size { return fyne.NewSize(400, headHeight) }

// CreateRenderer implements fyne.Widget.
func (h *tableHead) CreateRenderer() fyne.WidgetRenderer {
	r := &headRenderer{head: h, ground: control.NewRectangle(), edge: control.NewRectangle(), arrow: &canvas.Image{}}
	r.objects = []fyne.CanvasObject{r.ground, r.edge, r.arrow}
	for range h.table.cols {
		title := canvas.NewText("", color.Transparent)
		title.TextStyle.Bold = true
		r.titles = append(r.titles, title)
		r.objects = append(r.objects, title)
	}
	return r
}

type headRenderer struct {
	head         *tableHead
	ground, edge *canvas.Rectangle
	arrow        *canvas.Image
	titles       []*canvas.Text
	objects      []fyne.CanvasObject
}

// Destroy implements fyne.WidgetRenderer.
func (r *headRenderer) Destroy() {}

// MinSize implements fyne.WidgetRenderer.
func (r *headRenderer) MinSize() fyne.Size { return r.head.MinSize() }

// Objects implements fyne.WidgetRenderer.
func (r *headRenderer) Objects() []fyne.CanvasObject { return r.objects }

// Layout implements fyne.WidgetRenderer.
func (r *headRenderer) Layout(fyne.Size) { r.Refresh() }

// Refresh implements fyne.WidgetRenderer.
func (r *headRenderer) Refresh() {
	h, width := r.head, r.head.Size().Width
	p := control.NewPainter()
	control.SetRect(r.ground, p.Ink(theme.Panel), color.Transparent, 0)
	control.Place(r.ground, 0, 0, width, headHeight)
	control.SetRect(r.edge, p.Ink(fynetheme.ColorNameSeparator), color.Transparent, 0)
	control.Place(r.edge, 0, headHeight-1, width, 1)
	textSize := p.Size(fynetheme.SizeNameCaptionText)
	for i, title := range r.titles {
		if i >= len(h.table.places) || h.table.places[i].width == 0 {
			control.Show(title, false)
			continue
		}
		c, at := h.table.cols[i], h.table.places[i]
		sorted := h.table.order.by == c.key
		ink := p.Ink(theme.Muted)
		if sorted || h.over == i {
			ink = p.Ink(fynetheme.ColorNameForeground)
		}
		control.SetText(title, c.title, ink, textSize)
		measured := fyne.MeasureText(c.title, textSize, title.TextStyle)
		x := at.x
		if c.figure {
			x = at.x + at.width - measured.Width
		}
		control.Place(title, x, (headHeight-measured.Height)/2, measured.Width, measured.Height)
		control.Show(title, true)
		if sorted {
			name, ax := "up", x+measured.Width+2
			if h.table.order.down {
				name = "down"
			}
			if c.figure {
				ax = x - 14
			}
			control.SetImage(r.arrow, control.ColorIcon(name, fynetheme.ColorNamePrimary))
			control.Place(r.arrow, ax, (headHeight-12)/2, 12, 12)
		}
	}
}
