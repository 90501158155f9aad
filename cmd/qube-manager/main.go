// Command qube-manager opens the Qube Manager.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"
	"github.com/alecthomas/kong"

	"cubicle/app/dom0"
	"cubicle/app/manager"
	"cubicle/app/program"
	"cubicle/guid/screen"
	"cubicle/theme"
)

type options struct {
	program.Flags
	Settings string `help:"Open the settings of this qube." placeholder:"QUBE" xor:"wish"`
	Calls    string `help:"Show the last calls of this qube." placeholder:"QUBE" xor:"wish"`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("qube-manager"), kong.Description("The Qube Manager: every qube, live. A session has one; a second call brings its window forward."))
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "qube-manager:", err)
		os.Exit(1)
	}
}

// window is the Manager's window and what it was opened for.
type window struct {
	fyne.Window
	prefs   fyne.Preferences
	manager *manager.Manager
}

func run(o options) error {
	address, err := o.Daemon()
	if err != nil {
		return err
	}
	metadata, err := program.Metadata()
	if err != nil {
		return err
	}
	// Before there is a window, little is left over and processors are busy.
	collect := debug.SetGCPercent(-1)
	// The daemon is asked while the window is being made, and so is the
	// session whether it has one already.
	client := dom0.Connect(address)
	defer client.Close()
	w := &window{}
	asked := program.Wish{Settings: o.Settings, Calls: o.Calls}
	own := claim(metadata.ID, address, asked, func(wish program.Wish) {
		fyne.Do(func() { w.serve(wish) })
	})
	if err := program.Folders(metadata.ID); err != nil {
		return err
	}
	if err := program.Compose(); err != nil {
		return err
	}
	// Drawing the icon takes longer than drawing the list: that comes first.
	icon := metadata.Icon
	metadata.Icon = nil
	app.SetMetadata(metadata)
	a := app.New()
	a.Settings().SetTheme(theme.New())
	w.prefs = a.Preferences()
	w.Window = a.NewWindow(metadata.Name)
	// That was a talk with the X server, for which each has to be awake at
	// once; what follows is work.
	fonts := make(chan struct{})
	go func() {
		defer close(fonts)
		readFonts()
	}()
	w.restore()
	instance := <-own
	if instance.told {
		<-fonts
		return nil
	}
	defer instance.Close()

	w.SetContent(newLate(func() fyne.CanvasObject {
		<-fonts
		client.Hear(firstWord)
		w.manager = manager.New(client, manager.Options{Canvas: w.Canvas(), Preferences: w.prefs, Clipboard: a.Clipboard(), Windows: countWindows})
		return w.manager.Content()
	}))
	w.Show() // paints, and so makes the content
	a.Lifecycle().SetOnStarted(func() {
		debug.SetGCPercent(collect)
		if asked != (program.Wish{}) {
			w.serve(asked)
		}
		time.AfterFunc(iconLater, func() {
			fyne.Do(func() {
				a.SetIcon(icon)
				w.SetIcon(icon)
			})
		})
	})
	a.Run()
	w.manager.Close()
	return nil
}

const (
	// firstWord is how long the first picture waits for the daemon's answer.
	firstWord = 150 * time.Millisecond
	// iconLater leaves the time to draw the list.
	iconLater = 300 * time.Millisecond
)

// readFonts has Fyne read the fonts of a window's texts. They are read once,
// and nothing else is measured or drawn yet.
func readFonts() {
	for _, style := range []fyne.TextStyle{{}, {Bold: true}} {
		fyne.MeasureText("Qubes", theme.New().Size("text"), style)
	}
}

// claimed is what claim found out.
type claimed struct {
	*program.Instance
	told bool // another one has been told what this one was started for
}

// claim makes this program the session's only one, where there is a session.
func claim(id, daemon string, wish program.Wish, hear func(program.Wish)) <-chan claimed {
	answer := make(chan claimed, 1)
	session := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if session == "" {
		answer <- claimed{}
		return answer
	}
	go func() {
		own, told, err := program.Claim(session, id, daemon, wish, hear)
		if err != nil {
			slog.Warn("a second window may open", "error", err)
		}
		answer <- claimed{own, told}
	}()
	return answer
}

// countWindows tells how many windows qubes have on the desktop that this
// program's own window is on.
func countWindows(tell func(map[string]int)) (stop func()) {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		display, err := screen.Open(os.Getenv("DISPLAY"))
		if err == nil {
			defer display.Close()
			err = display.Count(ctx, tell)
		}
		if ctx.Err() == nil {
			slog.Warn("nobody counts the windows", "error", err)
		}
	}()
	return stop
}

// Keys of the preferences.
const (
	prefWidth  = "manager.width"
	prefHeight = "manager.height"
)

// restore gives the window its size of last time.
func (w *window) restore() {
	w.SetPadded(false)
	w.Resize(fyne.NewSize(
		float32(w.prefs.FloatWithFallback(prefWidth, 1040)),
		float32(w.prefs.FloatWithFallback(prefHeight, 600))))
	w.SetCloseIntercept(func() {
		size := w.Canvas().Size()
		w.prefs.SetFloat(prefWidth, float64(size.Width))
		w.prefs.SetFloat(prefHeight, float64(size.Height))
		w.Close()
	})
}

// serve does what this program or a later one was started for.
func (w *window) serve(wish program.Wish) {
	switch {
	case wish.Settings != "":
		w.manager.OpenSettings(wish.Settings)
	case wish.Calls != "":
		w.manager.OpenCalls(wish.Calls)
	}
	w.RequestFocus()
}
