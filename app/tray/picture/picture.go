// Package picture turns drawings into pixels for those who know no SVG: tray
// icons and menus travel as PNG or as bare pixels.
package picture

import (
	"bytes"
	"fmt"
	"image"
	"image/png"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/software"
)

// Image paints a drawing into a square of that many pixels. Call it where
// widgets are touched.
func Image(drawing fyne.Resource, size int) image.Image {
	c := software.NewTransparentCanvas()
	c.SetPadded(false)
	c.SetScale(1)
	c.SetContent(canvas.NewImageFromResource(drawing))
	c.Resize(fyne.NewSquareSize(float32(size)))
	return c.Capture()
}

// PNG is Image as the text of a PNG file.
func PNG(drawing fyne.Resource, size int) ([]byte, error) {
	var out bytes.Buffer
	if err := png.Encode(&out, Image(drawing, size)); err != nil {
		return nil, fmt.Errorf("paint %s: %w", drawing.Name(), err)
	}
	return out.Bytes(), nil
}
