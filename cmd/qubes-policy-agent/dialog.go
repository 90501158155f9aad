package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"

	"cubicle/app/ask"
	"cubicle/app/ask/agent"
	"cubicle/app/bare"
	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/program"
	"cubicle/guid/dock"
)

// dialog is the process of one question. It is started before there is one, so
// that the window comes at once.
type dialog struct{}

// asking is the state of such a process. It belongs to the UI's goroutine.
type asking struct {
	app    fyne.App
	window fyne.Window
	screen *dock.Screen
	bus    string
	client *dom0.Bus
	dialog *ask.Dialog
	// focused is what was heard of the keyboard before there was a dialog.
	focused bool
}

// Run waits for the question and answers it.
func (*dialog) Run(ctx context.Context, f *program.Flags) error {
	address, err := f.Daemon()
	if err != nil {
		return err
	}
	screen, err := dock.Open("")
	if err != nil {
		return err
	}
	defer screen.Close()
	a, err := newApp()
	if err != nil {
		return err
	}
	d := &asking{app: a, screen: screen, bus: address}
	d.prepare()
	d.app.Lifecycle().SetOnEnteredForeground(func() { d.focus(true) })
	d.app.Lifecycle().SetOnExitedForeground(func() { d.focus(false) })
	context.AfterFunc(ctx, leave)
	// Fyne's loop looks around sixty times a second: it begins when there is
	// something to see.
	lines := json.NewDecoder(bufio.NewReader(os.Stdin))
	var first agent.ToDialog
	if err := lines.Decode(&first); err != nil || first.Ask == nil {
		leave() // nobody asks any more
	}
	d.client = dom0.Connect(d.bus)
	d.app.Lifecycle().SetOnStarted(func() {
		d.ask(*first.Ask, first.Until)
		d.dialog.SetWaiting(first.Waiting)
		go d.read(lines)
	})
	d.app.Run()
	return nil
}

// prepare does what every window needs and no question changes: Fyne knows its
// settings and has read the fonts then. The X window itself waits for the
// question, because it costs memory: twice as much as all the rest.
func (d *asking) prepare() {
	d.window = d.app.NewWindow("Qubes")
	d.window.SetPadded(false)
	if w, ok := d.window.(desktop.Window); ok {
		w.RequestAlwaysOnTop()
	}
	for _, style := range []fyne.TextStyle{{}, {Bold: true}} {
		fyne.MeasureText("Qubes", control.NewPainter().Size("text"), style)
	}
}

// read hears who waits behind the question, and its end.
func (d *asking) read(lines *json.Decoder) {
	for {
		var said agent.ToDialog
		if err := lines.Decode(&said); err != nil {
			leave()
		}
		fyne.Do(func() { d.dialog.SetWaiting(said.Waiting) })
	}
}

// ask fills the window and shows it.
func (d *asking) ask(r agent.Request, until time.Time) {
	// The question names the colours; what the daemon knows besides comes
	// while the window is being made.
	d.dialog = ask.New(r, d.client.Snapshot(), ask.Options{
		Canvas: d.window.Canvas(),
		Answer: d.answer,
		Now:    time.Now,
		Later:  later,
		Until:  until,
	})
	d.client.Watch(func(s *dom0.Snapshot) { fyne.Do(func() { d.dialog.SetSnapshot(s) }) })
	d.window.SetTitle(d.dialog.Title())
	bare.SetContent(d.window, d.dialog.Content(), func(number uint32) {
		if err := d.screen.MakeDialog(number); err != nil {
			slog.Warn("the window manager may treat a question as any window", "error", err)
		}
	})
	d.window.SetCloseIntercept(d.dialog.Refuse)
	d.window.Resize(ask.Size())
	d.window.CenterOnScreen()
	d.window.Show()
	d.dialog.Begin()
	d.window.RequestFocus()
	if d.focused {
		d.dialog.Focused(true)
	}
}

func (d *asking) focus(focused bool) {
	d.focused = focused
	if d.dialog != nil {
		d.dialog.Focused(focused)
	}
}

// answer tells the agent and ends.
func (d *asking) answer(a agent.Answer) {
	line, err := json.Marshal(a)
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, "%s\n", line)
	}
	if err != nil {
		slog.Error("the answer could not be told", "error", err)
	}
	leave()
}
