package main

import (
	"context"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/core/router"
	"cubicle/daemon/vchan"
)

// databaseReader reads in the databases of running qubes, which qrexecd keeps.
func databaseReader(r *router.Router) func(context.Context, core.Qube, string) (map[string]string, error) {
	return func(ctx context.Context, q core.Qube, prefix string) (map[string]string, error) {
		if q.XID() <= 0 {
			return nil, core.Failf(core.NotRunning, "%s has no database while it does not run", q.Name())
		}
		return r.Entries(ctx, vchan.Domain(q.XID()), prefix)
	}
}

// announceDevices tells of a qube that says, by writing to its database, that
// it has other devices than before (spec/admin-api.md §7.3).
func announceDevices(c *core.Core, r *router.Router) {
	classes := map[string]string{"/qubes-block-devices": "block", "/qubes-usb-devices": "usb", "/webcam-devices": "webcam"}
	r.OnWrite(func(d vchan.Domain, path string) {
		class, ok := classes[strings.TrimSuffix(path, "/")]
		if !ok {
			return
		}
		for _, q := range c.View().Qubes() {
			if q.XID() == int(d) {
				c.Announce(q.UUID(), "device-list-change:"+class)
			}
		}
	})
}
