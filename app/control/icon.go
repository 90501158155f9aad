package control

import (
	"image/color"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/assets"
	"cubicle/theme/label"
)

// Icon is one of our drawings in the foreground colour of its place.
func Icon(name string) fyne.Resource {
	svg, err := assets.Icon(name)
	if err != nil {
		// A name that is not embedded is a mistake of the caller's: show the
		// theme's broken-image sign rather than nothing.
		return fynetheme.BrokenImageIcon()
	}
	return fynetheme.NewThemedResource(fyne.NewStaticResource(name+".svg", svg))
}

// Picture is one of our drawings in its own colours.
func Picture(name string) fyne.Resource {
	svg, err := assets.Icon(name)
	if err != nil {
		return fynetheme.BrokenImageIcon()
	}
	return fyne.NewStaticResource(name+".svg", svg)
}

// ColorIcon is one of our drawings in a colour of the theme.
func ColorIcon(name string, ink fyne.ThemeColorName) fyne.Resource {
	return fynetheme.NewColoredResource(Icon(name), ink)
}

// LabelIcon is a label's shape and colour, with a ring where the colour
// would vanish on the window's background.
func LabelIcon(shape label.Shape, rgb uint32) fyne.Resource {
	ground := color.NRGBAModel.Convert(NewPainter().Ink(fynetheme.ColorNameBackground)).(color.NRGBA)
	c := label.RGB(rgb)
	name := "label-" + shape.String() + "-" + label.Hex(c)[1:] + "-on-" + label.Hex(ground)[1:] + ".svg"
	return fyne.NewStaticResource(name, label.Icon(shape, c, ground))
}
