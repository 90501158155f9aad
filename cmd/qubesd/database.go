package main

import (
	"context"

	"cubicle/daemon/core"
	"cubicle/daemon/paths"
	"cubicle/daemon/qubesdb"
)

// databaseReader reads in the databases of running qubes, which qrexecd serves.
func databaseReader(root paths.Root) func(context.Context, core.Qube, string) (map[string]string, error) {
	return func(ctx context.Context, q core.Qube, prefix string) (map[string]string, error) {
		db, err := qubesdb.Dial(root.RunQubes(), string(q.Name()))
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { db.Close() })
		defer stop()
		defer db.Close()
		entries, err := db.MultiRead(prefix)
		if err != nil {
			return nil, err
		}
		found := make(map[string]string, len(entries))
		for _, e := range entries {
			found[e.Path] = e.Value
		}
		return found, nil
	}
}
