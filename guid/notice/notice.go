// Package notice tells people something through the desktop's notification
// daemon (freedesktop.org, Desktop Notifications Specification 1.2). Once is
// enough for who has one thing to say; a Desk changes what it has said, and
// hears of the button below it.
package notice

import (
	"context"
	"fmt"
	"html"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/godbus/dbus/v5"
)

// Notice is what people are told. All texts are plain: markup in them is shown
// as it is written, control characters are not shown.
type Notice struct {
	Program string // who tells it
	Icon    string // of the desktop's theme, such as "dialog-warning"
	Title   string
	Text    string
	Button  string // its word; empty: there is none
	About   string // what the button is told to be about; not shown
}

const (
	name   = "org.freedesktop.Notifications"
	object = "/org/freedesktop/Notifications"

	// patience bounds how long the daemon may take.
	patience = 5 * time.Second
	// maxText bounds a text, in runes.
	maxText = 600
	// button is the key of a notice's only button.
	button = "open"
)

// Once shows a notice over the session bus at address; "" is the one in the
// environment. It uses a connection of its own, so that a restarted bus is
// found.
func Once(ctx context.Context, address string, n Notice) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := dial(ctx, address)
	if err != nil {
		return fmt.Errorf("show a notification: %w", err)
	}
	defer conn.Close()
	_, err = show(ctx, conn, n, 0)
	return err
}

// dial connects to the session bus. Where there is none, none is started.
func dial(ctx context.Context, address string) (*dbus.Conn, error) {
	if address != "" {
		return dbus.Connect(address, dbus.WithContext(ctx))
	}
	conn, err := dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// show puts a notice in the place of the one with the number replaces, 0 for
// none, and returns its number.
func show(ctx context.Context, conn *dbus.Conn, n Notice, replaces uint32) (id uint32, err error) {
	const urgencyNormal = byte(1)
	const byServer int32 = -1 // the server decides how long
	actions := []string{}
	if n.Button != "" {
		// A click on the notice itself does the same.
		actions = []string{"default", plain(n.Button), button, plain(n.Button)}
	}
	err = conn.Object(name, object).CallWithContext(ctx, name+".Notify", 0,
		plain(n.Program), replaces, n.Icon, plain(n.Title), html.EscapeString(plain(n.Text)), actions,
		map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgencyNormal)}, byServer).Store(&id)
	if err != nil {
		return 0, fmt.Errorf("show a notification: %w", err)
	}
	return id, nil
}

// plain keeps what can be printed.
func plain(text string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		switch {
		case n >= maxText, unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar:
			return -1
		case unicode.IsControl(r), unicode.IsSpace(r):
			r = ' '
		}
		n++
		return r
	}, text)
}

// Desk is a notification daemon that is told more than one thing. It is
// reached again when the bus or the daemon has been started anew.
type Desk struct {
	address string
	pressed func(about string)

	mu   sync.Mutex // guards what follows
	conn *dbus.Conn
	own  map[uint32]string // notices that may stand on the screen, and what they are about
}

// NewDesk returns a desk on the session bus at address; "" is the one in the
// environment. pressed is called, on a goroutine of its own, when the button
// of a notice was pressed, with the notice's About. Nothing is dialled yet.
func NewDesk(address string, pressed func(about string)) *Desk {
	return &Desk{address: address, pressed: pressed}
}

// Show puts a notice in the place of an earlier one, or beside the others
// where replaces is 0 or gone, and returns its number.
func (d *Desk) Show(ctx context.Context, n Notice, replaces uint32) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := d.connection(ctx)
	if err != nil {
		return 0, fmt.Errorf("show a notification: %w", err)
	}
	id, err := show(ctx, conn, n, replaces)
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own[id] = n.About
	return id, nil
}

func (d *Desk) connection(ctx context.Context) (*dbus.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil && d.conn.Connected() {
		return d.conn, nil
	}
	// The connection lives longer than this call's context.
	conn, err := dial(context.WithoutCancel(ctx), d.address)
	if err != nil {
		return nil, err
	}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(name), dbus.WithMatchObjectPath(object)); err != nil {
		conn.Close()
		return nil, err
	}
	d.conn, d.own = conn, make(map[uint32]string)
	go d.hear(signals)
	return conn, nil
}

// hear follows the buttons and the ends of our notices; the daemon tells
// everybody about everybody's.
func (d *Desk) hear(signals <-chan *dbus.Signal) {
	for s := range signals {
		if len(s.Body) < 2 {
			continue
		}
		id, ok := s.Body[0].(uint32)
		d.mu.Lock()
		about, own := d.own[id]
		ok = ok && own
		if ok && s.Name == name+".NotificationClosed" {
			delete(d.own, id)
		}
		d.mu.Unlock()
		key, _ := s.Body[1].(string)
		if ok && s.Name == name+".ActionInvoked" && (key == button || key == "default") {
			go d.pressed(about)
		}
	}
}

// Close ends the connection; notices stay.
func (d *Desk) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
	}
}
