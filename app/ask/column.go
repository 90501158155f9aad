package ask

import "fyne.io/fyne/v2"

// column stacks objects over the whole width, and gives one of them the height
// that is left. Texts that wrap are as high as they are at that width.
type column struct {
	gap  float32
	grow fyne.CanvasObject // nil: none
}

// leastGrow is what the growing object has at least.
const leastGrow = 3 * rowHigh

// Layout implements fyne.Layout.
func (c column) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	left := size.Height + c.gap
	heights := make([]float32, len(objects))
	for i, o := range objects {
		if !o.Visible() {
			continue
		}
		left -= c.gap
		if o != c.grow {
			o.Resize(fyne.NewSize(size.Width, o.Size().Height))
			heights[i] = o.MinSize().Height
			left -= heights[i]
		}
	}
	y := float32(0)
	for i, o := range objects {
		if !o.Visible() {
			continue
		}
		if o == c.grow {
			heights[i] = max(left, leastGrow)
		}
		o.Move(fyne.NewPos(0, y))
		o.Resize(fyne.NewSize(size.Width, heights[i]))
		y += heights[i] + c.gap
	}
}

// MinSize implements fyne.Layout.
func (c column) MinSize(objects []fyne.CanvasObject) fyne.Size {
	size := fyne.NewSize(0, -c.gap)
	for _, o := range objects {
		if !o.Visible() {
			continue
		}
		least := o.MinSize()
		if o == c.grow {
			least.Height = leastGrow
		}
		size = fyne.NewSize(max(size.Width, least.Width), size.Height+least.Height+c.gap)
	}
	return size.Max(fyne.Size{})
}
