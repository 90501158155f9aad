// Package theme is how Cubicle's windows look: a Fyne theme with a dark and
// a light variant on a 4 px grid. Its accent is a teal, the hue that no label
// has, so that chrome is never mistaken for a qube's colour.
package theme

import (
	"image/color"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/theme/label"
)

// Colours beyond Fyne's own. Every one has a value in both variants.
const (
	// Muted is for text of second rank; it still reads at 4.5 : 1.
	Muted fyne.ThemeColorName = "cubicle.muted"
	// Panel is the ground of toolbars, headers and the status area.
	Panel fyne.ThemeColorName = "cubicle.panel"
	// Row is the ground of the selected row, RowHover of the one under the pointer.
	Row      fyne.ThemeColorName = "cubicle.row"
	RowHover fyne.ThemeColorName = "cubicle.rowHover"
	// Track is the empty part of a bar.
	Track fyne.ThemeColorName = "cubicle.track"
	// Strong and Weak are the inks of isolation badges, Caution of a weak one.
	Strong  fyne.ThemeColorName = "cubicle.strong"
	Weak    fyne.ThemeColorName = "cubicle.weak"
	Caution fyne.ThemeColorName = "cubicle.caution"
	// ErrorGround and NoticeGround are the grounds of inline panels.
	ErrorGround  fyne.ThemeColorName = "cubicle.errorGround"
	NoticeGround fyne.ThemeColorName = "cubicle.noticeGround"
)

// Theme implements fyne.Theme. The zero value is ready and follows the
// variant that it is asked for, which is the desktop's.
type Theme struct {
	// Force fixes the variant when it is not nil.
	Force *fyne.ThemeVariant
}

var _ fyne.Theme = (*Theme)(nil)

// New returns the theme that follows the desktop's dark or light setting.
func New() *Theme { return &Theme{} }

// NewForced returns the theme in one variant, whatever the desktop says.
func NewForced(variant fyne.ThemeVariant) *Theme { return &Theme{Force: &variant} }

type pair struct{ dark, light uint32 } // 0xRRGGBBAA

func (p pair) in(variant fyne.ThemeVariant) color.NRGBA {
	v := p.dark
	if variant == fynetheme.VariantLight {
		v = p.light
	}
	c := label.RGB(v >> 8)
	c.A = uint8(v)
	return c
}

func colorPair(name fyne.ThemeColorName) (pair, bool) {
	switch name {
	case fynetheme.ColorNameBackground:
		return pair{0x1c1e22ff, 0xffffffff}, true
	case Panel, fynetheme.ColorNameHeaderBackground:
		return pair{0x25282dff, 0xf3f4f6ff}, true
	case fynetheme.ColorNameMenuBackground, fynetheme.ColorNameOverlayBackground:
		return pair{0x2a2d33ff, 0xffffffff}, true
	case fynetheme.ColorNameForeground:
		return pair{0xeceef1ff, 0x1b1e23ff}, true
	case Muted, fynetheme.ColorNamePlaceHolder:
		return pair{0xaab2bdff, 0x565e69ff}, true
	case fynetheme.ColorNameDisabled:
		return pair{0x747c87ff, 0x868e99ff}, true
	case fynetheme.ColorNameButton:
		return pair{0x343840ff, 0xe6e8ecff}, true
	case fynetheme.ColorNameDisabledButton:
		return pair{0x363a42ff, 0xe9ebeeff}, true
	case fynetheme.ColorNameInputBackground:
		return pair{0x16181bff, 0xffffffff}, true
	case fynetheme.ColorNameInputBorder:
		return pair{0x4b515bff, 0xb4bac3ff}, true
	case fynetheme.ColorNameHover:
		return pair{0xffffff14, 0x0000000d}, true
	case fynetheme.ColorNamePressed:
		return pair{0xffffff26, 0x0000001f}, true
	case fynetheme.ColorNamePrimary, fynetheme.ColorNameHyperlink:
		return pair{0x3cc4b8ff, 0x0b7a72ff}, true
	case fynetheme.ColorNameForegroundOnPrimary:
		return pair{0x04211eff, 0xffffffff}, true
	case fynetheme.ColorNameFocus:
		return pair{0x3cc4b866, 0x0b7a7259}, true
	case fynetheme.ColorNameSelection:
		return pair{0x3cc4b840, 0x0b7a7233}, true
	case Row:
		return pair{0x24403fff, 0xd8eeecff}, true
	case RowHover:
		return pair{0x26292eff, 0xf3f6f8ff}, true
	case fynetheme.ColorNameSeparator:
		return pair{0x373b43ff, 0xdde1e6ff}, true
	case Track:
		return pair{0x3d424bff, 0xd9dde3ff}, true
	case fynetheme.ColorNameShadow:
		return pair{0x00000080, 0x1b1e2333}, true
	case fynetheme.ColorNameScrollBar:
		return pair{0xffffff59, 0x00000059}, true
	case fynetheme.ColorNameScrollBarBackground:
		return pair{0x00000000, 0x00000000}, true
	case fynetheme.ColorNameError:
		return pair{0xff8f87ff, 0xb91824ff}, true
	case fynetheme.ColorNameForegroundOnError:
		return pair{0x2b0605ff, 0xffffffff}, true
	case fynetheme.ColorNameSuccess, Strong:
		return pair{0x6cd08bff, 0x19733cff}, true
	case fynetheme.ColorNameForegroundOnSuccess:
		return pair{0x04210dff, 0xffffffff}, true
	case fynetheme.ColorNameWarning, Caution:
		return pair{0xf2b45cff, 0x8f5200ff}, true
	case fynetheme.ColorNameForegroundOnWarning:
		return pair{0x261700ff, 0xffffffff}, true
	case Weak:
		return pair{0x8ab8f5ff, 0x24579cff}, true
	case ErrorGround:
		return pair{0x3a2325ff, 0xfdecebff}, true
	case NoticeGround:
		return pair{0x2b2f36ff, 0xeef3f8ff}, true
	}
	return pair{}, false
}

// Color implements fyne.Theme.
func (t *Theme) Color(name fyne.ThemeColorName, variant fyne.ThemeVariant) color.Color {
	if t.Force != nil {
		variant = *t.Force
	}
	if p, ok := colorPair(name); ok {
		return p.in(variant)
	}
	return fynetheme.DefaultTheme().Color(name, variant)
}

// Font implements fyne.Theme.
func (t *Theme) Font(style fyne.TextStyle) fyne.Resource {
	return fynetheme.DefaultTheme().Font(style)
}

// Icon implements fyne.Theme.
func (t *Theme) Icon(name fyne.ThemeIconName) fyne.Resource {
	return fynetheme.DefaultTheme().Icon(name)
}

// Size implements fyne.Theme: a 4 px grid, denser than Fyne's own.
func (t *Theme) Size(name fyne.ThemeSizeName) float32 {
	switch name {
	case fynetheme.SizeNamePadding:
		return 4
	case fynetheme.SizeNameInnerPadding:
		return 8
	case fynetheme.SizeNameText:
		return 14
	case fynetheme.SizeNameCaptionText:
		return 12
	case fynetheme.SizeNameSubHeadingText:
		return 16
	case fynetheme.SizeNameHeadingText:
		return 20
	case fynetheme.SizeNameInlineIcon:
		return 18
	case fynetheme.SizeNameInputBorder, fynetheme.SizeNameSeparatorThickness:
		return 1
	case fynetheme.SizeNameInputRadius, fynetheme.SizeNameButtonRadius, fynetheme.SizeNameSelectionRadius,
		fynetheme.SizeNameMenuRadius, fynetheme.SizeNamePopupRadius:
		return 6
	case fynetheme.SizeNameDialogRadius:
		return 12
	case fynetheme.SizeNameModalBlurRadius:
		return 0
	}
	return fynetheme.DefaultTheme().Size(name)
}
