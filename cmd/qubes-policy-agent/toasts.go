package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"log/slog"
	"os"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"

	"cubicle/app/ask"
	"cubicle/app/ask/agent"
	"cubicle/app/bare"
	"cubicle/app/program"
	"cubicle/guid/dock"
)

// toasts is the process that shows notices where there is no notification
// daemon. It ends with the last of them.
type toasts struct{}

// telling is the state of such a process. It belongs to the UI's goroutine.
type telling struct {
	window fyne.Window
	screen *dock.Screen
	toasts *ask.Toasts
}

// Run shows what it reads.
func (*toasts) Run(ctx context.Context, _ *program.Flags) error {
	screen, err := dock.Open("")
	if err != nil {
		return err
	}
	defer screen.Close()
	a, err := newApp()
	if err != nil {
		return err
	}
	t := &telling{screen: screen}
	t.toasts = ask.NewToasts(ask.ToastOptions{
		Open: func(about string) {
			if _, err := fmt.Println(about); err != nil {
				slog.Error("the button could not be told", "error", err)
			}
		},
		Changed: t.changed,
		Later:   later,
	})
	t.window, err = bare.New(a.Driver(), "Qubes notices", t.toasts.Content(), func(n uint32) { t.trouble(screen.MakeMenu(n)) })
	if err != nil {
		return err
	}
	// Fyne puts a window into the middle when it shows it for the first time.
	// This one is as large as a dot then.
	t.window.Resize(fyne.NewSize(1, 1))
	t.window.Show()
	t.window.Hide()
	a.Lifecycle().SetOnStarted(func() { go t.read() })
	context.AfterFunc(ctx, leave)
	a.Run()
	return nil
}

func (t *telling) read() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var n agent.ToToasts
		if in.Decode(&n) != nil {
			leave()
		}
		fyne.Do(func() { t.toasts.Show(n) })
	}
}

// lingers is how long the process stays when it has nothing to show: the next
// notice comes at once then.
const lingers = 30 * time.Second

// changed fits the window to the notices.
func (t *telling) changed() {
	if t.toasts.Empty() {
		t.window.Hide()
		later(lingers, func() {
			if t.toasts.Empty() {
				leave()
			}
		})
		return
	}
	t.window.Show()
	t.place()
	// News of the dot's size may still be under way, and Fyne would follow it.
	for _, after := range []time.Duration{200 * time.Millisecond, time.Second} {
		later(after, func() {
			if !t.toasts.Empty() {
				t.place()
			}
		})
	}
}

// place puts the window into the upper right corner, where it hides the least.
func (t *telling) place() {
	const right, top = 16, 48 // below a panel
	t.window.Resize(t.toasts.Size())
	screen, err := t.screen.Size()
	if err != nil {
		t.trouble(err)
		return
	}
	scale, size := t.window.Canvas().Scale(), t.toasts.Size()
	wide, high := int(size.Width*scale), int(size.Height*scale)
	at := image.Pt(screen.X-wide-right, top)
	if w, ok := t.window.(desktop.Window); ok {
		w.RequestPosition(at.X, at.Y)
	}
	t.trouble(t.screen.PlaceMenu(bare.Number(t.window), image.Rectangle{Min: at, Max: at.Add(image.Pt(wide, high))}))
}

func (t *telling) trouble(err error) {
	if err != nil {
		slog.Error("the notices have no place", "error", err)
	}
}
