package main

import (
	"context"
	"fmt"
	"image"
	"log/slog"
	"sync"

	"fyne.io/fyne/v2"
	"github.com/godbus/dbus/v5"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/tray"
	"cubicle/app/tray/confirm"
	"cubicle/app/tray/notifier"
	"cubicle/app/tray/picture"
	"cubicle/app/tray/strip"
	"cubicle/guid/dock"
	"cubicle/guid/notice"
	"cubicle/theme/label"
)

// desk wires the tray's parts: what is shown (tray), the icon in the
// desktop's tray (item), the tray that we bring along (watcher, host) and the
// strip that shows it.
type desk struct {
	app     fyne.App
	client  dom0.Client
	screen  *dock.Screen
	manager string

	conns   []*dbus.Conn
	session string // its bus
	item    *notifier.Item
	watcher *notifier.Watcher
	host    *notifier.Host
	panel   *strip.Panel
	asker   *confirm.Asker
	tray    *tray.Tray
	png     map[string][]byte // label icons; belongs to the UI's goroutine

	failed chan error // the first reason to end early
	wait   sync.WaitGroup
}

// connect makes what needs the session's bus.
func (d *desk) connect(ctx context.Context, session string) error {
	for range 3 {
		conn, err := dial(session)
		if err != nil {
			return err
		}
		d.conns = append(d.conns, conn)
	}
	d.session = session
	d.png = map[string][]byte{}
	d.asker = confirm.New(d.app)
	var err error
	if d.item, err = notifier.NewItem(d.conns[0], notifier.Face{ID: "cubicle", Title: "Qubes", Pixmaps: d.pixmaps()}); err != nil {
		return err
	}
	d.host = notifier.NewHost(ctx, d.conns[1], func(icons []notifier.Shown) {
		fyne.Do(func() { d.panel.SetIcons(icons) })
	})
	d.panel = strip.New(d.app, d.screen, d.host, dock.Beside)
	d.panel.Trouble = func(err error) { slog.Warn("tray", "error", err) }
	d.watcher, err = notifier.NewWatcher(d.conns[2], func(r notifier.Register) {
		d.host.Show(r.Items)
		fyne.Do(func() { d.panel.SetVisible(r.Visible()) })
	})
	return err
}

// start begins to follow everything; it is called where Fyne runs.
func (d *desk) start(ctx context.Context) {
	d.tray = tray.New(d.client, tray.Options{
		Show:   func(v tray.View) { fyne.Do(func() { d.show(v) }) },
		Ask:    func(q tray.Question) { fyne.Do(func() { d.asker.Ask(q) }) },
		Notify: d.notify,
		OpenManager: func() (err error) {
			fyne.DoAndWait(func() { err = d.openManager() })
			return err
		},
	})
	d.app.Settings().AddListener(func(fyne.Settings) {
		d.tray.Refresh()
	})
	for _, part := range []func() error{
		func() error { return d.item.Run(ctx) },
		func() error { return d.host.Run() },
		func() error { return d.watcher.Run(ctx) },
		func() error {
			return d.screen.Follow(dock.Happenings{
				Resized:   func() { fyne.Do(d.panel.Adjust) },
				Left:      func() { fyne.Do(d.panel.Left) },
				Unfocused: func() { fyne.Do(d.panel.Unfocused) },
			})
		},
	} {
		d.wait.Go(func() {
			if err := part(); err != nil && ctx.Err() == nil {
				d.end(err)
			}
		})
	}
}

// end stops the program for a reason.
func (d *desk) end(err error) {
	select {
	case d.failed <- err:
		fyne.Do(d.app.Quit)
	default: // it ends already
	}
}

// stop ends what follows the daemon.
func (d *desk) stop() {
	if d.tray != nil {
		d.tray.Close()
	}
}

// close ends the connections, and with them what runs on them.
func (d *desk) close() {
	d.screen.Close()
	d.wait.Wait()
	for _, c := range d.conns {
		c.Close()
	}
}

// show brings a view to the desktop's tray and to the strip.
func (d *desk) show(v tray.View) {
	for i := range v.Menu {
		for _, c := range v.Chips {
			if v.Menu[i].Key == c.Key() {
				v.Menu[i].Icon = d.labelPNG(c.Shape, c.Color)
			}
		}
	}
	if err := d.item.Menu().Set(v.Menu); err != nil {
		d.end(fmt.Errorf("tray menu: %w", err))
		return
	}
	if err := d.item.SetTip(v.Tip); err != nil {
		d.end(fmt.Errorf("tray icon: %w", err))
		return
	}
	d.panel.SetView(v)
}

// labelSize is that of a label's icon in a menu, in pixels: twice that of a
// line, for screens of high density.
const labelSize = 32

// labelPNG is a label's icon for menus.
func (d *desk) labelPNG(shape label.Shape, rgb uint32) []byte {
	drawing := control.LabelIcon(shape, rgb)
	if done, ok := d.png[drawing.Name()]; ok {
		return done
	}
	file, err := picture.PNG(drawing, labelSize)
	if err != nil {
		slog.Warn("tray", "error", err)
	}
	d.png[drawing.Name()] = file // none, where it failed
	return file
}

// pixmaps is the program's icon in the sizes that trays use.
func (d *desk) pixmaps() []image.Image {
	var out []image.Image
	for _, size := range []int{22, 24, 32, 48} {
		out = append(out, picture.Image(control.Picture("qube-manager"), size))
	}
	return out
}

// notify says that something failed; where there is no notification daemon,
// the log does.
func (d *desk) notify(title, text string) {
	slog.Warn(title, "reason", text)
	go func() {
		err := notice.Once(context.Background(), d.session, notice.Notice{Program: "Qubes", Icon: "dialog-error", Title: title, Text: text})
		if err != nil {
			slog.Warn("no notification could be shown", "error", err)
		}
	}()
}
