// Package gui is the GUI agent of a qube (spec/gui-protocol.md): it tells dom0
// about the windows of the qube's X server, puts their pixels into the region
// that it shares with dom0, and replays dom0's input.
//
// It is the window manager of the qube and its compositor. All children of the
// root are redirected, so that each has its pixels to itself; the agent copies
// what has changed from there into the region (the X server does it) and says
// so. Clients' wishes to map and move are carried out and told to dom0, whose
// answer is final: where a window is there, it is here.
//
// One goroutine owns all state (Agent.loop); others wait for the X server,
// dom0 and the end of copies, and hand over what they get. When the channel is
// lost, windows live on, and the next channel is told about all of them.
package gui

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"cubicle/daemon/vchan"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// Options are the parameters of an agent.
type Options struct {
	Display string       // X display, "" for $DISPLAY
	Peer    vchan.Domain // the domain whose daemon shows the windows
	Layout  string       // keyboard, "layout[+variant[+options]]"; "" leaves the server's
	// Layouts are what the keyboard becomes while the agent runs; nil: it stays.
	Layouts    <-chan string
	StatusFile string // told "starting", "started", "connected"; "" for none
	Log        *slog.Logger
}

// Agent is a GUI agent on one X server.
type Agent struct {
	opts Options
	log  *slog.Logger
	x    *x11.Conn

	atoms  atoms
	wm     x11.Window // our window of EWMH's supporting check, and for selections
	shield x11.Window // lies under the pointer while it is elsewhere in dom0
	gcs    map[byte]x11.GC
	input  input

	clipboard clipboard
	cursors   cursors

	byX  map[x11.Window]*window
	byID map[wire.WindowID]*window
	// dying are ids that the daemon has not released yet (DESTROY).
	dying  map[wire.WindowID]bool
	nextID wire.WindowID // for windows whose X id is still a dying one's
	births uint64

	early []x11.Event // taken from the X server's before their turn

	session *session // nil while no daemon is connected
	copying bool     // a copy waits for its barrier
	copied  chan copyDone
}

// Run serves until ctx ends (nil) or the X server is lost or refuses us.
func Run(ctx context.Context, transport vchan.Transport, opts Options) error {
	a := &Agent{
		opts: opts, log: opts.Log,
		gcs:    make(map[byte]x11.GC),
		byX:    make(map[x11.Window]*window),
		byID:   make(map[wire.WindowID]*window),
		dying:  make(map[wire.WindowID]bool),
		nextID: firstOwnID,
		copied: make(chan copyDone, 1),
	}
	a.status("starting")
	x, err := x11.Dial(opts.Display)
	if err != nil {
		return err
	}
	defer x.Close()
	a.x = x
	if err := a.claim(); err != nil {
		return err
	}
	// dom0 starts its part while we do ours.
	ctx, cancel := context.WithCancel(ctx)
	l := listener{transport: transport, peer: opts.Peer, log: a.log, found: make(chan *session)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	if err := a.setUp(); err != nil {
		return err
	}
	a.status("started")
	go a.followLayout(ctx)
	return a.loop(ctx, l.found)
}

// claim makes us the window manager and compositor of the X server.
func (a *Agent) claim() error {
	for _, init := range []func() error{
		a.x.InitShm, a.x.InitComposite, a.x.InitDamage, a.x.InitXFixes, a.x.InitRandR, a.x.InitXTest,
	} {
		if err := init(); err != nil {
			return err
		}
	}
	var err error
	if a.atoms, err = internAtoms(a.x); err != nil {
		return err
	}
	const root = x11.MaskSubstructureRedirect | x11.MaskSubstructureNotify | x11.MaskPropertyChange
	if err := a.x.SelectInput(a.x.Root(), root); err != nil {
		return fmt.Errorf("another window manager or GUI agent runs on this display: %w", err)
	}
	if err := a.x.RedirectSubwindows(a.x.Root()); err != nil {
		return fmt.Errorf("another compositor or GUI agent runs on this display: %w", err)
	}
	return nil
}

// setUp prepares what the first window needs.
func (a *Agent) setUp() error {
	if err := a.becomeWM(); err != nil {
		return err
	}
	if err := a.setUpInput(); err != nil {
		return err
	}
	a.learnCursors()
	a.x.SelectCursorInput()
	return a.adoptAll()
}

// adoptAll takes on the windows that were there before us.
func (a *Agent) adoptAll() error {
	_, children, err := a.x.Tree(a.x.Root())
	if err != nil {
		return err
	}
	for _, w := range children {
		a.adopt(w)
	}
	return nil
}

// loop owns the agent's state until ctx ends or the X server is lost.
func (a *Agent) loop(ctx context.Context, found <-chan *session) error {
	for {
		var inbox <-chan incoming
		if a.session != nil {
			inbox = a.session.inbox
		}
		select {
		case ev, ok := <-a.x.Events():
			if !ok {
				return a.x.Err()
			}
			a.onEvent(ev)
			for len(a.early) > 0 {
				ev, a.early = a.early[0], a.early[1:]
				a.onEvent(ev)
			}
		case s := <-found:
			a.connect(s)
		case m, ok := <-inbox:
			if !ok {
				a.disconnect()
				break
			}
			a.onMessage(m.window, m.message)
		case done := <-a.copied:
			a.onCopied(done)
		case shape := <-a.cursors.found:
			a.onCursor(shape)
		case <-ctx.Done():
			a.disconnect()
			return nil
		}
		a.copyDirty()
		if a.session != nil {
			a.session.flush()
		}
	}
}

// onEvent handles one event of the X server.
func (a *Agent) onEvent(ev x11.Event) {
	switch e := ev.Body.(type) {
	case x11.DamageNotifyEvent:
		a.onDamage(e)
	case x11.CreateNotifyEvent:
		a.adopt(e.Window)
	case x11.DestroyNotifyEvent:
		a.forget(e.Window)
	case x11.ReparentNotifyEvent:
		if e.Parent == a.x.Root() {
			a.adopt(e.Window)
		} else {
			a.forget(e.Window)
		}
	case x11.MapRequestEvent:
		a.onMapRequest(e.Window)
	case x11.MapNotifyEvent:
		a.onMapped(e.Window, e.OverrideRedirect)
	case x11.UnmapNotifyEvent:
		if ev.Synthetic {
			a.onWithdrawn(e.Window)
		} else {
			a.onUnmapped(e.Window)
		}
	case x11.ConfigureRequestEvent:
		a.onConfigureRequest(e)
	case x11.ConfigureNotifyEvent:
		if !ev.Synthetic {
			a.onConfigured(e)
		}
	case x11.CirculateRequestEvent:
		a.x.Raise(e.Window)
	case x11.PropertyNotifyEvent:
		a.input.now = e.Time
		switch {
		case e.Window != a.wm:
			a.onProperty(e.Window, e.Atom)
		case e.Atom == a.atoms.qubesSelection && e.State != x11.PropertyDeleted:
			a.onSelectionPart()
		}
	case x11.SelectionNotifyEvent:
		a.onSelectionNotify(e)
	case x11.SelectionRequestEvent:
		a.onSelectionRequest(e)
	case x11.SelectionClearEvent:
		a.onSelectionClear(e)
	case x11.ClientMessageEvent:
		a.onClientMessage(e)
	case x11.MappingNotifyEvent:
		a.learnKeyboard()
	case x11.CursorNotifyEvent:
		a.lookAtCursor()
	case *x11.RequestError:
		// Clients destroy windows while we speak of them.
		a.log.Debug("X request refused", "err", e)
	}
}

// status tells other programs of the qube how far we are.
func (a *Agent) status(word string) {
	if a.opts.StatusFile == "" {
		return
	}
	if err := os.WriteFile(a.opts.StatusFile, []byte(word+"\n"), 0o644); err != nil {
		a.log.Warn("cannot write the status file", "err", err)
	}
}
