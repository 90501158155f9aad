package display

import (
	"image/color"
	"math"

	"cubicle/theme/label"
)

// iconSizes are the sizes that task lists ask for, in pixels.
var iconSizes = []int{16, 32, 48}

// icon is a window's icon (EWMH _NET_WM_ICON): a rounded square in the label's
// colour, as it stands beside the qube's name everywhere. The qube has no part
// in it.
func icon(c uint32) []uint32 {
	var words []uint32
	for _, size := range iconSizes {
		words = append(words, uint32(size), uint32(size))
		words = append(words, square(size, label.RGB(c))...)
	}
	return words
}

// square draws a rounded square of size×size pixels as 0xAARRGGBB, with an
// edge that stands out from the area and so from any background.
func square(size int, fill color.NRGBA) []uint32 {
	full := float64(size)
	margin, radius, edge := full/12, full/5, max(1, full/16)
	line := label.Mix(fill, label.On(fill), 0.45)
	pixels := make([]uint32, 0, size*size)
	for y := range size {
		for x := range size {
			// The distance inwards from the outline of the rounded square.
			half := full/2 - margin - radius
			dx := max(0, math.Abs(float64(x)+0.5-full/2)-half)
			dy := max(0, math.Abs(float64(y)+0.5-full/2)-half)
			inside := radius - math.Hypot(dx, dy)
			shade := label.Mix(line, fill, clamp01(inside-edge+0.5))
			alpha := uint32(math.Round(255 * clamp01(inside+0.5)))
			pixels = append(pixels, alpha<<24|uint32(shade.R)<<16|uint32(shade.G)<<8|uint32(shade.B))
		}
	}
	return pixels
}

func clamp01(v float64) float64 { return max(0, min(1, v)) }
