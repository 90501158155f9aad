package supervise

import (
	"context"
	"fmt"
	"html"
	"time"

	"github.com/godbus/dbus/v5"
)

// notifyPatience bounds how long a notification may take.
const notifyPatience = 5 * time.Second

// SessionBus returns a function that shows notices as desktop notifications
// (org.freedesktop.Notifications 1.2) over the bus at address; "" is the one
// in the environment. Each notice uses a connection of its own, so that a
// restarted bus is found.
func SessionBus(address string) func(context.Context, Notice) error {
	return func(ctx context.Context, n Notice) error {
		if err := notify(ctx, address, n); err != nil {
			return fmt.Errorf("show a notification: %w", err)
		}
		return nil
	}
}

func notify(ctx context.Context, address string, n Notice) error {
	ctx, cancel := context.WithTimeout(ctx, notifyPatience)
	defer cancel()
	dial := func() (*dbus.Conn, error) { return dbus.ConnectSessionBus(dbus.WithContext(ctx)) }
	if address != "" {
		dial = func() (*dbus.Conn, error) { return dbus.Connect(address, dbus.WithContext(ctx)) }
	}
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	const urgencyNormal = byte(1)
	const byServer int32 = -1 // the server decides how long
	return conn.Object("org.freedesktop.Notifications", "/org/freedesktop/Notifications").CallWithContext(ctx,
		"org.freedesktop.Notifications.Notify", 0,
		"Cubicle", uint32(0), "dialog-warning", n.Title, html.EscapeString(n.Text), []string{},
		map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgencyNormal)}, byServer).Err
}
