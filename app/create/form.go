package create

import "fyne.io/fyne/v2"

// formLayout sets captions and fields in two columns: objects come in pairs.
// A pair whose field is hidden takes no room.
type formLayout struct{}

const (
	formGap  = 16 // between the columns
	lineGap  = 8  // between fields
	hintGap  = 2  // between a field and the hint below it
	fieldMin = 320
)

// rows calls visit with the place of every pair that is shown.
func (f *formLayout) rows(objects []fyne.CanvasObject, visit func(caption, field fyne.CanvasObject, y, height float32)) (captionWidth, fieldWidth, bottom float32) {
	for i := 0; i+1 < len(objects); i += 2 {
		captionWidth = max(captionWidth, objects[i].MinSize().Width)
		if objects[i+1].Visible() {
			fieldWidth = max(fieldWidth, objects[i+1].MinSize().Width)
		}
	}
	y := float32(0)
	for i := 0; i+1 < len(objects); i += 2 {
		caption, field := objects[i], objects[i+1]
		if !field.Visible() {
			caption.Hide()
			continue
		}
		caption.Show()
		if y > 0 {
			// A pair without a caption of text belongs to the one above.
			if caption.MinSize().Width == 0 && field.MinSize().Height < 24 {
				y += hintGap
			} else {
				y += lineGap
			}
		}
		height := max(caption.MinSize().Height, field.MinSize().Height)
		if caption.MinSize().Width == 0 {
			height = field.MinSize().Height
		}
		if visit != nil {
			visit(caption, field, y, height)
		}
		y += height
	}
	return captionWidth, fieldWidth, y
}

// MinSize implements fyne.Layout.
func (f *formLayout) MinSize(objects []fyne.CanvasObject) fyne.Size {
	caption, field, height := f.rows(objects, nil)
	return fyne.NewSize(caption+formGap+max(field, fieldMin), height)
}

// Layout implements fyne.Layout.
func (f *formLayout) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	left, _, _ := f.rows(objects, nil)
	f.rows(objects, func(caption, field fyne.CanvasObject, y, height float32) {
		low := caption.MinSize().Height
		caption.Move(fyne.NewPos(0, y+(height-low)/2))
		caption.Resize(fyne.NewSize(left, low))
		tall := field.MinSize().Height
		field.Move(fyne.NewPos(left+formGap, y+(height-tall)/2))
		field.Resize(fyne.NewSize(size.Width-left-formGap, tall))
	})
}
