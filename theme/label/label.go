// Package label turns a qube's label colour into what people can tell apart
// on a dark or a light background: the colour itself, a ring where it would
// vanish (black on dark, yellow on white), a readable variant for text, and
// the shapes that stand beside a qube's name.
//
// It is a leaf without Fyne, so that the widgets and the window frames agree
// on every colour. Colours are 0x00RRGGBB, as in daemon/qube.
package label

import (
	"fmt"
	"image/color"
	"math"

	"cubicle/daemon/qube"
)

// Shape tells the kind of a qube without colour.
type Shape int

// The shapes.
const (
	Square Shape = iota // app qube: filled, rounded
	Ring                // template
	Dashed              // disposable
	Shield              // dom0
)

func (s Shape) String() string {
	switch s {
	case Ring:
		return "ring"
	case Dashed:
		return "dashed"
	case Shield:
		return "shield"
	}
	return "square"
}

// ShapeOf is the shape that stands for a qube's class.
func ShapeOf(class qube.Class) Shape {
	switch class {
	case qube.TemplateVM:
		return Ring
	case qube.AdminVM:
		return Shield
	case qube.DispVM:
		return Dashed
	}
	return Square
}

// Contrasts below which a colour needs help: two areas side by side, and
// text (WCAG 2.2, 1.4.11 halved for filled areas of 16 px, and 1.4.3).
const (
	minAreaContrast = 1.7
	minTextContrast = 4.5
)

// RGB makes an opaque colour of 0x00RRGGBB; higher bits are ignored.
func RGB(c uint32) color.NRGBA {
	return color.NRGBA{R: uint8(c >> 16), G: uint8(c >> 8), B: uint8(c), A: 0xff}
}

// Contrast is the WCAG contrast ratio of two opaque colours: 1 (same) to 21.
func Contrast(a, b color.NRGBA) float64 {
	la, lb := luminance(a), luminance(b)
	if la < lb {
		la, lb = lb, la
	}
	return (la + 0.05) / (lb + 0.05)
}

func luminance(c color.NRGBA) float64 {
	channel := func(v uint8) float64 {
		f := float64(v) / 255
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*channel(c.R) + 0.7152*channel(c.G) + 0.0722*channel(c.B)
}

// Outline is the ring that a filled area of colour c needs to stand out from
// background, and whether it needs one.
func Outline(c, background color.NRGBA) (ring color.NRGBA, needed bool) {
	if Contrast(c, background) >= minAreaContrast {
		return c, false
	}
	return Readable(c, background), true
}

// Readable is colour c moved towards white or black, whichever the
// background allows, until text in it can be read (ratio 4.5 or more).
func Readable(c, background color.NRGBA) color.NRGBA {
	toward := color.NRGBA{A: 0xff}
	if luminance(background) < 0.18 {
		toward = color.NRGBA{R: 0xff, G: 0xff, B: 0xff, A: 0xff}
	}
	for step := 0; step <= 20; step++ {
		mixed := Mix(c, toward, float64(step)/20)
		if Contrast(mixed, background) >= minTextContrast {
			return mixed
		}
	}
	return toward
}

// On is the colour, black or white, in which text on an area of colour c
// reads best.
func On(c color.NRGBA) color.NRGBA {
	white, black := color.NRGBA{R: 0xff, G: 0xff, B: 0xff, A: 0xff}, color.NRGBA{A: 0xff}
	if Contrast(c, white) >= Contrast(c, black) {
		return white
	}
	return black
}

// Mix is a and b blended; share 0 gives a, 1 gives b.
func Mix(a, b color.NRGBA, share float64) color.NRGBA {
	blend := func(x, y uint8) uint8 {
		return uint8(math.Round(float64(x)*(1-share) + float64(y)*share))
	}
	return color.NRGBA{R: blend(a.R, b.R), G: blend(a.G, b.G), B: blend(a.B, b.B), A: 0xff}
}

// Hex is c as SVG and CSS write it: #rrggbb.
func Hex(c color.NRGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

// Icon is an SVG of 24 by 24 units: shape in label colour c, with a ring
// where c would vanish on background.
func Icon(shape Shape, c, background color.NRGBA) []byte {
	stroke, ringed := Outline(c, background)
	fill, edge := Hex(c), Hex(stroke)
	body := ""
	switch shape {
	case Ring:
		body = fmt.Sprintf(`<circle cx="12" cy="12" r="8" fill="none" stroke="%s" stroke-width="4"/>`, fill)
		if ringed {
			body = fmt.Sprintf(`<circle cx="12" cy="12" r="8" fill="none" stroke="%s" stroke-width="5"/>`+
				`<circle cx="12" cy="12" r="8" fill="none" stroke="%s" stroke-width="2"/>`, edge, fill)
		}
	case Dashed:
		body = fmt.Sprintf(`<circle cx="12" cy="12" r="8" fill="none" stroke="%s" stroke-width="4" stroke-dasharray="5.6 2.78"/>`, edge)
	case Shield:
		body = fmt.Sprintf(`<path d="M12 2.5L20 5.5V11.5C20 16.5 16.6 20 12 21.8C7.4 20 4 16.5 4 11.5V5.5Z" fill="%s" stroke="%s" stroke-width="1.6" stroke-linejoin="round"/>`, fill, edge)
	default:
		body = fmt.Sprintf(`<rect x="2.5" y="2.5" width="19" height="19" rx="4.5" ry="4.5" fill="%s" stroke="%s" stroke-width="1.6"/>`, fill, edge)
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24">%s</svg>`, body)
}
