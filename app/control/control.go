// Package control holds the widgets that take the keyboard in every window
// of Cubicle: Fyne's own, taught that Esc leaves and Enter does.
package control

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/widget"
)

// Button is a widget.Button that Enter presses too.
type Button struct {
	widget.Button
	OnEscape func()
}

// NewButton makes a button; icon may be nil.
func NewButton(text string, icon fyne.Resource, tapped func()) *Button {
	b := &Button{}
	b.Text, b.Icon, b.OnTapped = text, icon, tapped
	b.ExtendBaseWidget(b)
	return b
}

// TypedKey implements fyne.Focusable.
func (b *Button) TypedKey(ev *fyne.KeyEvent) {
	switch ev.Name {
	case fyne.KeyEscape:
		call(b.OnEscape)
	case fyne.KeyReturn, fyne.KeyEnter:
		if !b.Disabled() {
			call(b.OnTapped)
		}
	default:
		b.Button.TypedKey(ev)
	}
}

// Able enables or disables the button, redrawing only on a change.
func (b *Button) Able(enabled bool) {
	switch {
	case enabled && b.Disabled():
		b.Enable()
	case !enabled && !b.Disabled():
		b.Disable()
	}
}

// Entry is a widget.Entry whose other keys a window may use.
type Entry struct {
	widget.Entry
	OnEscape func()
	// OnKey sees every key before the entry and returns true to keep it.
	OnKey func(fyne.KeyName) bool
	// OnShortcut sees the shortcuts that are no business of an entry.
	OnShortcut func(fyne.Shortcut)
}

// NewEntry makes an empty entry of one line.
func NewEntry(placeholder string) *Entry {
	e := &Entry{}
	e.PlaceHolder = placeholder
	e.Scroll = fyne.ScrollHorizontalOnly
	e.ExtendBaseWidget(e)
	return e
}

// TypedKey implements fyne.Focusable.
func (e *Entry) TypedKey(ev *fyne.KeyEvent) {
	if e.OnKey != nil && e.OnKey(ev.Name) {
		return
	}
	if ev.Name == fyne.KeyEscape && e.OnEscape != nil {
		e.OnEscape()
		return
	}
	e.Entry.TypedKey(ev)
}

// TypedShortcut implements fyne.Shortcutable.
func (e *Entry) TypedShortcut(s fyne.Shortcut) {
	if custom, ok := s.(*desktop.CustomShortcut); ok && e.OnShortcut != nil {
		e.OnShortcut(custom)
		return
	}
	e.Entry.TypedShortcut(s)
}

// Select is a widget.Select that Esc leaves.
type Select struct {
	widget.Select
	OnEscape func()
}

// NewSelect makes a drop-down list.
func NewSelect(options []string, changed func(string)) *Select {
	s := &Select{}
	s.Options, s.OnChanged = options, changed
	s.ExtendBaseWidget(s)
	return s
}

// TypedKey implements fyne.Focusable.
func (s *Select) TypedKey(ev *fyne.KeyEvent) {
	if ev.Name == fyne.KeyEscape && s.OnEscape != nil {
		s.OnEscape()
		return
	}
	s.Select.TypedKey(ev)
}

// Check is a widget.Check that Esc leaves.
type Check struct {
	widget.Check
	OnEscape func()
}

// NewCheck makes a check box.
func NewCheck(text string, changed func(bool)) *Check {
	c := &Check{}
	c.Text, c.OnChanged = text, changed
	c.ExtendBaseWidget(c)
	return c
}

// TypedKey implements fyne.Focusable.
func (c *Check) TypedKey(ev *fyne.KeyEvent) {
	if ev.Name == fyne.KeyEscape && c.OnEscape != nil {
		c.OnEscape()
		return
	}
	c.Check.TypedKey(ev)
}

func call(f func()) {
	if f != nil {
		f()
	}
}
