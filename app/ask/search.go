package ask

import (
	"fyne.io/fyne/v2"

	"cubicle/app/control"
	"cubicle/app/words"
)

// search is the field that filters. It has the keyboard, and drops what does
// not count yet.
type search struct {
	control.Entry
	dialog *Dialog
}

func newSearch(d *Dialog) *search {
	s := &search{dialog: d}
	s.PlaceHolder = words.T("Search qubes …")
	s.Scroll = fyne.ScrollHorizontalOnly
	s.OnKey = d.key
	s.Icon = control.Icon("search")
	s.ExtendBaseWidget(s)
	return s
}

// TypedRune implements fyne.Focusable.
func (s *search) TypedRune(r rune) {
	if s.dialog.typed() {
		s.Entry.TypedRune(r)
	}
}

// TypedShortcut implements fyne.Shortcutable.
func (s *search) TypedShortcut(short fyne.Shortcut) {
	if s.dialog.typed() {
		s.Entry.TypedShortcut(short)
	}
}
