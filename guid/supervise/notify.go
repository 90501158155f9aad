package supervise

import (
	"context"

	"cubicle/guid/notice"
)

// SessionBus returns a function that shows notices as desktop notifications
// over the bus at address; "" is the one in the environment.
func SessionBus(address string) func(context.Context, Notice) error {
	return func(ctx context.Context, n Notice) error {
		return notice.Once(ctx, address, notice.Notice{Program: "Cubicle", Icon: "dialog-warning", Title: n.Title, Text: n.Text})
	}
}
