package border

import "testing"

func TestWidth(t *testing.T) {
	for resources, want := range map[string]int{
		"":                                  4,
		"Xft.dpi:\t96\n":                    4,
		"Xcursor.size:\t24\nXft.dpi: 192\n": 8,
		"Xft.dpi:144":                       6,
		"Xft.dpi:\t120.5\n":                 5,
		"Xft.dpi:\tlarge\n":                 4,
		"Xft.dpi:\t-96\n":                   4,
		"Xft.dpi:\t1e9\n":                   4,
		"Xft.dpi:\tNaN\n":                   4,
		"Xft.dpi:\t48\n":                    2,
		"xterm*Xft.dpi:\t192\n":             4,
	} {
		if got := Width(resources); got != want {
			t.Errorf("Width(%q) = %d, want %d", resources, got, want)
		}
	}
}
