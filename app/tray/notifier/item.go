package notifier

import (
	"context"
	"fmt"
	"image"
	"sync"

	"github.com/godbus/dbus/v5"
)

// Face is how an icon looks in the tray.
type Face struct {
	ID      string // the program, for hosts that remember places
	Title   string
	Tip     string        // shown under the pointer
	Pixmaps []image.Image // the icon in some sizes
}

// Item is an icon with a menu in the session's tray. It registers with every
// watcher that appears.
type Item struct {
	conn *dbus.Conn
	menu *MenuServer

	mu   sync.Mutex // guards face
	face Face
}

// NewItem exports an icon on a connection of its own, which it takes over.
// It is seen once Run runs.
func NewItem(conn *dbus.Conn, face Face) (*Item, error) {
	menu, err := newMenuServer(conn)
	if err != nil {
		return nil, err
	}
	i := &Item{conn: conn, menu: menu, face: face}
	for name, object := range map[string]any{itemFace: itemMethods{}, propertiesFace: itemProperties{i}} {
		if err := conn.Export(object, itemPath, name); err != nil {
			return nil, fmt.Errorf("export the tray icon: %w", err)
		}
	}
	return i, nil
}

// Menu is the icon's menu.
func (i *Item) Menu() *MenuServer { return i.menu }

// SetTip changes what is shown under the pointer.
func (i *Item) SetTip(tip string) error {
	i.mu.Lock()
	same := i.face.Tip == tip
	i.face.Tip = tip
	i.mu.Unlock()
	if same {
		return nil
	}
	return i.conn.Emit(itemPath, itemFace+".NewToolTip")
}

// SetIcon changes the picture.
func (i *Item) SetIcon(pixmaps []image.Image) error {
	i.mu.Lock()
	i.face.Pixmaps = pixmaps
	i.mu.Unlock()
	return i.conn.Emit(itemPath, itemFace+".NewIcon")
}

// Run registers the icon with the watcher and with each that comes later,
// until ctx ends or the bus is gone.
func (i *Item) Run(ctx context.Context) error {
	signals := make(chan *dbus.Signal, 16)
	i.conn.Signal(signals)
	defer i.conn.RemoveSignal(signals)
	if err := i.conn.AddMatchSignalContext(ctx, ownerOf(WatcherName)...); err != nil {
		return fmt.Errorf("follow the tray's watcher: %w", err)
	}
	// Without a watcher the call is refused: one that comes is heard of.
	register := func() {
		i.conn.Object(WatcherName, watcherPath).Go(watcherFace+".RegisterStatusNotifierItem", dbus.FlagNoReplyExpected, nil, itemPath)
	}
	register()
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("tray icon: the session bus is gone")
			}
			if name, _, now, ok := ownerChange(s); ok && name == WatcherName && now != "" {
				register()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// ownerOf matches changes of a name's owner.
func ownerOf(name string) []dbus.MatchOption {
	return []dbus.MatchOption{
		dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(busPath), dbus.WithMatchInterface(busName),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name),
	}
}

// ownerChange reads a NameOwnerChanged signal of the bus itself.
func ownerChange(s *dbus.Signal) (name, was, now string, ok bool) {
	if s.Sender != busName || s.Name != busName+".NameOwnerChanged" {
		return "", "", "", false
	}
	return name, was, now, dbus.Store(s.Body, &name, &was, &now) == nil
}

// pixmap is an icon on the wire, (iiay): rows of A, R, G, B bytes.
type pixmap struct {
	Width, Height int32
	Data          []byte
}

func toPixmap(img image.Image) pixmap {
	b := img.Bounds()
	p := pixmap{int32(b.Dx()), int32(b.Dy()), make([]byte, 0, 4*b.Dx()*b.Dy())}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := straight(img.At(x, y))
			p.Data = append(p.Data, c.A, c.R, c.G, c.B)
		}
	}
	return p
}

// toolTip is (sa(iiay)ss): icon name, icon, title, text.
type toolTip struct {
	Icon    string
	Pixmaps []pixmap
	Title   string
	Text    string
}

// itemMethods do nothing: the icon is its menu.
type itemMethods struct{}

// Activate implements org.kde.StatusNotifierItem.
func (itemMethods) Activate(int32, int32) *dbus.Error { return nil }

// SecondaryActivate implements org.kde.StatusNotifierItem.
func (itemMethods) SecondaryActivate(int32, int32) *dbus.Error { return nil }

// ContextMenu implements org.kde.StatusNotifierItem.
func (itemMethods) ContextMenu(int32, int32) *dbus.Error { return nil }

// Scroll implements org.kde.StatusNotifierItem.
func (itemMethods) Scroll(int32, string) *dbus.Error { return nil }

type itemProperties struct{ i *Item }

func (p itemProperties) all() map[string]dbus.Variant {
	p.i.mu.Lock()
	face := p.i.face
	p.i.mu.Unlock()
	pixmaps := []pixmap{}
	for _, img := range face.Pixmaps {
		pixmaps = append(pixmaps, toPixmap(img))
	}
	return map[string]dbus.Variant{
		"Category":            dbus.MakeVariant("SystemServices"),
		"Id":                  dbus.MakeVariant(face.ID),
		"Title":               dbus.MakeVariant(face.Title),
		"Status":              dbus.MakeVariant("Active"),
		"WindowId":            dbus.MakeVariant(int32(0)),
		"IconName":            dbus.MakeVariant(""),
		"IconPixmap":          dbus.MakeVariant(pixmaps),
		"IconThemePath":       dbus.MakeVariant(""),
		"OverlayIconName":     dbus.MakeVariant(""),
		"OverlayIconPixmap":   dbus.MakeVariant([]pixmap{}),
		"AttentionIconName":   dbus.MakeVariant(""),
		"AttentionIconPixmap": dbus.MakeVariant([]pixmap{}),
		"ToolTip":             dbus.MakeVariant(toolTip{Pixmaps: []pixmap{}, Title: face.Title, Text: face.Tip}),
		"ItemIsMenu":          dbus.MakeVariant(true),
		"Menu":                dbus.MakeVariant(dbus.ObjectPath(menuPath)),
	}
}

// Get implements org.freedesktop.DBus.Properties.
func (p itemProperties) Get(_, name string) (dbus.Variant, *dbus.Error) { return pick(p.all(), name) }

// GetAll implements org.freedesktop.DBus.Properties.
func (p itemProperties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) { return p.all(), nil }
