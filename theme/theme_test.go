package theme

import (
	"image/color"
	"testing"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/theme/label"
)

// Text must read at 4.5 : 1 on every ground that it stands on, in both
// variants; no grey on grey.
func TestTextReadsOnEveryGround(t *testing.T) {
	look := New()
	inks := []fyne.ThemeColorName{fynetheme.ColorNameForeground, Muted, Strong, Weak, Caution,
		fynetheme.ColorNameError, fynetheme.ColorNameWarning, fynetheme.ColorNameSuccess}
	grounds := []fyne.ThemeColorName{fynetheme.ColorNameBackground, Panel, Row, RowHover,
		fynetheme.ColorNameMenuBackground, ErrorGround, NoticeGround}
	for _, variant := range []fyne.ThemeVariant{fynetheme.VariantDark, fynetheme.VariantLight} {
		for _, ink := range inks {
			for _, ground := range grounds {
				a := look.Color(ink, variant).(color.NRGBA)
				b := look.Color(ground, variant).(color.NRGBA)
				if got := label.Contrast(a, b); got < 4.5 {
					t.Errorf("variant %d: %s on %s has contrast %.2f", variant, ink, ground, got)
				}
			}
		}
		for on, ground := range map[fyne.ThemeColorName]fyne.ThemeColorName{
			fynetheme.ColorNameForegroundOnPrimary: fynetheme.ColorNamePrimary,
			fynetheme.ColorNameForegroundOnError:   fynetheme.ColorNameError,
			fynetheme.ColorNameForegroundOnWarning: fynetheme.ColorNameWarning,
			fynetheme.ColorNameForegroundOnSuccess: fynetheme.ColorNameSuccess,
		} {
			a, b := look.Color(on, variant).(color.NRGBA), look.Color(ground, variant).(color.NRGBA)
			if got := label.Contrast(a, b); got < 4.5 {
				t.Errorf("variant %d: %s on %s has contrast %.2f", variant, on, ground, got)
			}
		}
	}
}

func TestForcedVariantWins(t *testing.T) {
	look := NewForced(fynetheme.VariantLight)
	if got, want := look.Color(fynetheme.ColorNameBackground, fynetheme.VariantDark), New().Color(fynetheme.ColorNameBackground, fynetheme.VariantLight); got != want {
		t.Errorf("forced light gives %v, want %v", got, want)
	}
}

func TestUnknownNamesFallBackToFyne(t *testing.T) {
	if New().Icon(fynetheme.IconNameConfirm) == nil || New().Font(fyne.TextStyle{}) == nil {
		t.Error("icons and fonts must come from Fyne's own theme")
	}
	if got := New().Size(fynetheme.SizeNameScrollBar); got <= 0 {
		t.Errorf("size of an unlisted name: %v", got)
	}
}
