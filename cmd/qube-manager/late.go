package main

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/widget"
)

// late is content that is made when it is painted for the first time. The
// window is there by then: making it takes most of a start, and what the
// content waits for goes on meanwhile.
type late struct {
	widget.BaseWidget
	create  func() fyne.CanvasObject
	content fyne.CanvasObject // nil until it is painted
	size    fyne.Size
}

func newLate(create func() fyne.CanvasObject) *late {
	l := &late{create: create}
	l.ExtendBaseWidget(l)
	return l
}

// MinSize implements fyne.CanvasObject; BaseWidget's would ask for the
// content at once, and so would its Resize.
func (l *late) MinSize() fyne.Size {
	if l.content == nil {
		return fyne.Size{}
	}
	return l.content.MinSize()
}

// Size implements fyne.CanvasObject.
func (l *late) Size() fyne.Size { return l.size }

// Resize implements fyne.CanvasObject.
func (l *late) Resize(size fyne.Size) {
	l.size = size
	if l.content != nil {
		l.content.Resize(size)
	}
}

// CreateRenderer makes the content.
func (l *late) CreateRenderer() fyne.WidgetRenderer {
	content := l.create()
	content.Resize(l.size)
	l.content = content
	return widget.NewSimpleRenderer(content)
}
