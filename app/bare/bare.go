// Package bare makes windows without a frame, and tells of any window its X
// number before a window manager has seen it, so that the screen (guid/dock)
// can say what it is.
package bare

import (
	"fmt"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/widget"
)

// root is a window's content that tells when it is sized first: by then the
// window exists, and is not on the screen yet.
type root struct {
	widget.BaseWidget
	content fyne.CanvasObject
	sized   func()
	any     bool // the window may be of any size
}

// Resize implements fyne.CanvasObject.
func (r *root) Resize(size fyne.Size) {
	r.sized()
	r.BaseWidget.Resize(size)
}

// MinSize implements fyne.CanvasObject.
func (r *root) MinSize() fyne.Size {
	if r.any {
		return fyne.NewSize(1, 1)
	}
	return r.content.MinSize()
}

// CreateRenderer implements fyne.Widget.
func (r *root) CreateRenderer() fyne.WidgetRenderer { return widget.NewSimpleRenderer(r.content) }

// Number is the X window of a window, 0 while it has none.
func Number(w fyne.Window) uint32 {
	var n uint32
	if native, ok := w.(driver.NativeWindow); ok {
		native.RunNative(func(context any) {
			if x, ok := context.(driver.X11WindowContext); ok {
				n = uint32(x.WindowHandle)
			}
		})
	}
	return n
}

// New makes a window without a frame, of any size. Prepare is called once with its X
// number, before the window is on the screen.
func New(d fyne.Driver, title string, content fyne.CanvasObject, prepare func(number uint32)) (fyne.Window, error) {
	maker, ok := d.(desktop.Driver)
	if !ok {
		return nil, fmt.Errorf("%s: this driver has no windows without a frame", title)
	}
	w := maker.CreateSplashWindow()
	w.SetTitle(title)
	setContent(w, &root{content: content, any: true}, prepare)
	return w, nil
}

// SetContent gives a window its content. Prepare is called once with its X
// number, before the window is on the screen.
func SetContent(w fyne.Window, content fyne.CanvasObject, prepare func(number uint32)) {
	setContent(w, &root{content: content}, prepare)
}

func setContent(w fyne.Window, r *root, prepare func(number uint32)) {
	prepared := false
	r.sized = func() {
		if n := Number(w); n != 0 && !prepared {
			prepared = true
			prepare(n)
		}
	}
	r.ExtendBaseWidget(r)
	w.SetContent(r)
}
