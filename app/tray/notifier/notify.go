package notifier

import (
	"context"
	"fmt"
	"html"

	"github.com/godbus/dbus/v5"
)

// Notify shows a notification (freedesktop.org's Desktop Notifications
// Specification). Text is plain: markup in it is shown as it is written.
func Notify(ctx context.Context, conn *dbus.Conn, program, title, text string) error {
	const name = "org.freedesktop.Notifications"
	call := conn.Object(name, "/org/freedesktop/Notifications").CallWithContext(ctx, name+".Notify", 0,
		program, uint32(0), "dialog-error", clean(title), html.EscapeString(clean(text)), []string{}, map[string]dbus.Variant{}, int32(-1))
	if call.Err != nil {
		return fmt.Errorf("notification %q: %w", title, call.Err)
	}
	return nil
}
