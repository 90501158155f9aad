package label

import (
	"encoding/xml"
	"testing"

	"cubicle/daemon/qube"
)

var (
	dark  = RGB(0x1f2125)
	light = RGB(0xffffff)
)

func TestContrastOfKnownPairs(t *testing.T) {
	if got := Contrast(RGB(0), RGB(0xffffff)); got < 20.9 || got > 21.1 {
		t.Errorf("black on white: %v, want 21", got)
	}
	if got := Contrast(RGB(0x123456), RGB(0x123456)); got != 1 {
		t.Errorf("a colour on itself: %v, want 1", got)
	}
}

func TestEveryLabelCanBeSeenAndRead(t *testing.T) {
	for _, background := range []struct {
		name string
		c    [3]uint8
	}{{"dark", [3]uint8{dark.R, dark.G, dark.B}}, {"light", [3]uint8{light.R, light.G, light.B}}} {
		on := dark
		if background.name == "light" {
			on = light
		}
		for _, l := range qube.Labels {
			c := RGB(l.Color)
			ring, needed := Outline(c, on)
			if got := Contrast(ring, on); got < minAreaContrast {
				t.Errorf("%s on %s: outline has contrast %.2f", l.Name, background.name, got)
			}
			if !needed && ring != c {
				t.Errorf("%s on %s: an outline that is not needed differs from the label", l.Name, background.name)
			}
			if got := Contrast(Readable(c, on), on); got < minTextContrast {
				t.Errorf("%s as text on %s: contrast %.2f", l.Name, background.name, got)
			}
			if got := Contrast(On(c), c); got < minTextContrast {
				t.Errorf("text on %s: contrast %.2f", l.Name, got)
			}
		}
	}
}

func TestBlackOnDarkAndYellowOnWhiteGetARing(t *testing.T) {
	if _, needed := Outline(RGB(0), dark); !needed {
		t.Error("black vanishes on dark without a ring")
	}
	if _, needed := Outline(RGB(0xedd400), light); !needed {
		t.Error("yellow vanishes on white without a ring")
	}
	if _, needed := Outline(RGB(0xcc0000), dark); needed {
		t.Error("red needs no ring on dark")
	}
}

func TestIconsAreSVGInTheLabelsColour(t *testing.T) {
	seen := map[string]Shape{}
	for _, shape := range []Shape{Square, Ring, Dashed, Shield} {
		icon := Icon(shape, RGB(0xcc0000), dark)
		var document struct{ XMLName xml.Name }
		if err := xml.Unmarshal(icon, &document); err != nil || document.XMLName.Local != "svg" {
			t.Errorf("%v: not an SVG document: %v", shape, err)
		}
		if other, twice := seen[string(icon)]; twice {
			t.Errorf("%v and %v look the same", shape, other)
		}
		seen[string(icon)] = shape
	}
}
