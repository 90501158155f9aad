package display

import (
	"testing"

	"cubicle/guid/window"
)

func TestEchoes(t *testing.T) {
	a, b, c := window.Size{Width: 1, Height: 1}, window.Size{Width: 10, Height: 17}, window.Size{Width: 244, Height: 82}
	for name, test := range map[string]struct {
		asked, come []window.Size
		old         []bool
	}{
		"each is answered":          {[]window.Size{a, b, c}, []window.Size{a, b, c}, []bool{true, true, false}},
		"only the last is":          {[]window.Size{a, b, c}, []window.Size{c, c}, []bool{false, false}},
		"the same size again":       {[]window.Size{a, b, a}, []window.Size{a}, []bool{false}},
		"the user's size":           {[]window.Size{a, b}, []window.Size{c, a}, []bool{false, false}},
		"refused after an old one":  {[]window.Size{a, b}, []window.Size{a, a}, []bool{true, false}},
		"nothing was asked":         {nil, []window.Size{a, b}, []bool{false, false}},
		"the user comes in between": {[]window.Size{a, b}, []window.Size{a, c, b}, []bool{true, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var e echoes
			for _, size := range test.asked {
				e.add(size)
			}
			for i, size := range test.come {
				if got := e.old(size); got != test.old[i] {
					t.Errorf("event %d, %v: old %v", i, size, got)
				}
			}
		})
	}
	var e echoes
	for i := range 10 * maxEchoes {
		e.add(window.Size{Width: i + 1, Height: 1})
	}
	if len(e) != maxEchoes {
		t.Errorf("%d sizes wait", len(e))
	}
}
