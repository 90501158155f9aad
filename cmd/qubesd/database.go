package main

import (
	"context"
	"log/slog"

	"cubicle/daemon/core"
	"cubicle/daemon/core/devices"
	"cubicle/daemon/core/router"
	"cubicle/daemon/device/host"
	"cubicle/daemon/paths"
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

// watchDevices follows which devices qubes and dom0 offer.
func watchDevices(ctx context.Context, c *core.Core, r *router.Router, root paths.Root, log *slog.Logger) *devices.Watch {
	machine := host.System{Sys: "/sys", Proc: "/proc", Own: []string{root.State()}}
	changes, err := host.Changes(ctx)
	if err != nil {
		log.Warn("dom0's devices are looked for only when somebody asks", "error", err)
	}
	w := devices.New(c, devices.Sources{
		Database: databaseReader(r), Host: machine.Devices, Changes: changes, Name: host.NewNames("/").Fill,
	}, log)
	r.OnWrite(w.Wrote)
	return w
}
