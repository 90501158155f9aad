package ask

import (
	"slices"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/ask/agent"
	"cubicle/app/control"
	"cubicle/app/words"
	"cubicle/theme"
)

// ToastOptions are what toasts need of their surroundings.
type ToastOptions struct {
	// Open is the button's; about is the notice's.
	Open func(about string)
	// Changed tells that there are others, or none.
	Changed func()
	// Later calls f on the UI's goroutine after d, unless stop was called.
	Later func(d time.Duration, f func()) (stop func())
}

// Toasts are notices that go away by themselves. The methods belong to the
// UI's goroutine.
type Toasts struct {
	o     ToastOptions
	cards []card
	box   *fyne.Container
}

// card is one notice.
type card struct {
	id      uint32
	content fyne.CanvasObject
	stop    func() // of its end
}

const (
	// maxToasts stand below each other; the oldest makes room.
	maxToasts = 4
	// toastTime is how long one stands after its last change.
	toastTime = 10 * time.Second
)

// NewToasts returns none.
func NewToasts(o ToastOptions) *Toasts {
	return &Toasts{o: o, box: container.New(layout.NewCustomPaddedVBoxLayout(0))}
}

// Content is what belongs into the window.
func (t *Toasts) Content() fyne.CanvasObject { return t.box }

// Size is that of the content.
func (t *Toasts) Size() fyne.Size { return fyne.NewSize(toastWide(), t.box.MinSize().Height) }

func toastWide() float32 { return 26 * control.NewPainter().Size(fynetheme.SizeNameText) }

// Empty tells that there are none.
func (t *Toasts) Empty() bool { return len(t.cards) == 0 }

// Show adds a notice, or changes the one of its number.
func (t *Toasts) Show(n agent.ToToasts) {
	c := card{id: n.ID, content: t.draw(n)}
	c.stop = t.o.Later(toastTime, func() { t.drop(n.ID) })
	if at := t.index(n.ID); at >= 0 {
		t.cards[at].stop()
		t.cards[at] = c
	} else {
		t.cards = append(t.cards, c)
	}
	for len(t.cards) > maxToasts {
		t.cards[0].stop()
		t.cards = slices.Delete(t.cards, 0, 1)
	}
	t.arrange()
}

func (t *Toasts) index(id uint32) int {
	return slices.IndexFunc(t.cards, func(c card) bool { return c.id == id })
}

func (t *Toasts) drop(id uint32) {
	if at := t.index(id); at >= 0 {
		t.cards[at].stop()
		t.cards = slices.Delete(t.cards, at, at+1)
		t.arrange()
	}
}

func (t *Toasts) arrange() {
	t.box.RemoveAll()
	for _, c := range t.cards {
		t.box.Add(c.content)
	}
	t.o.Changed()
}

func (t *Toasts) draw(n agent.ToToasts) fyne.CanvasObject {
	const edge, sign = 12, 20
	title := widget.NewLabel(n.Title)
	title.TextStyle.Bold = true
	title.Truncation = fyne.TextTruncateEllipsis
	text := widget.NewLabel(n.Text)
	text.Wrapping = fyne.TextWrapWord
	text.Resize(fyne.NewSize(toastWide()-2*edge-sign, 0))
	icon := canvas.NewImageFromResource(control.ColorIcon("info", fynetheme.ColorNamePrimary))
	icon.SetMinSize(fyne.NewSquareSize(sign))
	leave := func() { t.drop(n.ID) }
	closer := control.NewButton("", control.Icon("close"), leave)
	closer.Importance = widget.LowImportance
	open := control.NewButton(words.T("Open Qube Manager"), nil, func() { leave(); t.o.Open(n.About) })
	head := control.Border(nil, nil, container.NewCenter(icon), closer, title)
	body := container.New(layout.NewCustomPaddedVBoxLayout(0), head, text, container.NewHBox(layout.NewSpacer(), open))
	return container.NewStack(control.NewGround(theme.NoticeGround, fynetheme.ColorNameInputBorder, 0),
		container.New(layout.NewCustomPaddedLayout(edge/2, edge, edge, edge), body))
}
