package notifier

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Shown is an icon as a host shows it.
type Shown struct {
	Address Address
	Title   string
	Icon    Icon
	IsMenu  bool            // a click means the menu
	Menu    dbus.ObjectPath // empty: the program shows its own
}

// Host follows the icons of a register. Every program is asked on a goroutine
// of its own: one that hangs keeps nobody waiting.
type Host struct {
	conn    *dbus.Conn
	changed func([]Shown)
	ctx     context.Context // of Run; asked goroutines end with it

	mu    sync.Mutex // guards what follows
	order []Address
	shown map[Address]*shown
	wait  sync.WaitGroup
}

type shown struct {
	Shown
	ready  bool // it has answered, and wants to be seen
	asking bool
	again  bool // something changed while it was asked
}

// answerTime is how long a program may take to describe its icon.
const answerTime = 10 * time.Second

// NewHost makes a host on a connection of its own. changed is called with
// the icons to be shown, in the order of their coming, whenever they change;
// it must not block.
func NewHost(ctx context.Context, conn *dbus.Conn, changed func([]Shown)) *Host {
	return &Host{conn: conn, changed: changed, ctx: ctx, shown: map[Address]*shown{}}
}

// Show follows these icons from now on, and no others.
func (h *Host) Show(items []Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := map[Address]*shown{}
	for _, a := range items {
		s := h.shown[a]
		if s == nil {
			s = &shown{Shown: Shown{Address: a}}
		}
		keep[a] = s
	}
	h.order, h.shown = items, keep
	for _, a := range items {
		if s := keep[a]; !s.ready {
			h.ask(a, s)
		}
	}
	h.tell()
}

// Run follows the icons' changes until the context ends or the bus is gone.
func (h *Host) Run() error {
	defer h.wait.Wait()
	signals := make(chan *dbus.Signal, 256)
	h.conn.Signal(signals)
	defer h.conn.RemoveSignal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface(itemFace)},
		{dbus.WithMatchInterface(propertiesFace), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchArg(0, itemFace)},
	} {
		if err := h.conn.AddMatchSignalContext(h.ctx, match...); err != nil {
			return fmt.Errorf("tray: follow the icons: %w", err)
		}
	}
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("tray: the session bus is gone")
			}
			h.hear(s)
		case <-h.ctx.Done():
			return nil
		}
	}
}

// hear asks an icon anew that says it has changed.
func (h *Host) hear(s *dbus.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.order {
		if a.Bus == s.Sender && a.Path == s.Path {
			h.ask(a, h.shown[a])
		}
	}
}

// ask describes an icon in the background; the caller holds mu.
func (h *Host) ask(a Address, s *shown) {
	if s.asking {
		s.again = true
		return
	}
	s.asking = true
	h.wait.Go(func() {
		for {
			now, ready := h.describe(a)
			h.mu.Lock()
			s.Shown, s.ready = now, ready
			again := s.again && h.ctx.Err() == nil
			s.again, s.asking = false, again
			if h.shown[a] == s {
				h.tell()
			}
			h.mu.Unlock()
			if !again {
				return
			}
		}
	})
}

// describe asks a program for its icon; ready is false when there is nothing
// to be shown.
func (h *Host) describe(a Address) (s Shown, ready bool) {
	ctx, cancel := context.WithTimeout(h.ctx, answerTime)
	defer cancel()
	s = Shown{Address: a}
	var p map[string]dbus.Variant
	err := h.conn.Object(a.Bus, a.Path).CallWithContext(ctx, propertiesFace+".GetAll", 0, itemFace).Store(&p)
	if err != nil {
		return s, false // it left, or hangs: nothing to be shown
	}
	s.Title = clean(text(p, "Title"))
	if s.Title == "" {
		s.Title = clean(text(p, "Id"))
	}
	s.IsMenu, _ = p["ItemIsMenu"].Value().(bool)
	if path, ok := p["Menu"].Value().(dbus.ObjectPath); ok && path.IsValid() && path != "/NO_DBUSMENU" {
		s.Menu = path
	}
	s.Icon = iconOf(p)
	return s, text(p, "Status") != "Passive"
}

func text(p map[string]dbus.Variant, name string) string {
	s, _ := p[name].Value().(string)
	return s
}

// iconOf is the icon by name where there is one, else by pixels.
func iconOf(p map[string]dbus.Variant) Icon {
	if icon, ok := named(text(p, "IconName"), text(p, "IconThemePath"), shareFolders()); ok {
		return icon
	}
	return Icon{Image: best(pixmaps(p["IconPixmap"].Value()))}
}

// tell hands the visible icons out; the caller holds mu.
func (h *Host) tell() {
	list := []Shown{}
	for _, a := range h.order {
		if s := h.shown[a]; s.ready {
			list = append(list, s.Shown)
		}
	}
	h.changed(list)
}

// Activate is a click on the icon at x, y on the screen.
func (h *Host) Activate(s Shown, x, y int) {
	h.conn.Object(s.Address.Bus, s.Address.Path).Go(itemFace+".Activate", dbus.FlagNoReplyExpected, nil, int32(x), int32(y))
}

// ContextMenu asks a program without a menu of ours to show its own.
func (h *Host) ContextMenu(s Shown, x, y int) {
	h.conn.Object(s.Address.Bus, s.Address.Path).Go(itemFace+".ContextMenu", dbus.FlagNoReplyExpected, nil, int32(x), int32(y))
}
