// Package border decides how wide the coloured frame around a qube's windows
// is: 4 pixels at 96 dpi, in proportion on denser screens.
package border

import (
	"math"
	"strconv"
	"strings"
)

const (
	widthAt96 = 4
	baseDPI   = 96

	minDPI = 48 // what lies outside is a mistake of the settings
	maxDPI = 768
)

// Width returns the frame's width in pixels for a screen whose X resources
// (the RESOURCE_MANAGER property of the root window) are given. It follows
// Xft.dpi; without one, or with nonsense, 96 dpi count. It is never below 2.
func Width(resources string) int {
	return max(2, int(math.Round(widthAt96*dpi(resources)/baseDPI)))
}

func dpi(resources string) float64 {
	for line := range strings.Lines(resources) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != "Xft.dpi" {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil && v >= minDPI && v <= maxDPI {
			return v
		}
	}
	return baseDPI
}
