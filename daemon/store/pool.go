package store

import "fmt"

// Pool is what was set explicitly for a pool of volumes.
type Pool struct {
	// Driver is empty for a pool that the daemon has anyway.
	Driver  string            `toml:"driver,omitempty"`
	Options map[string]string `toml:"options,omitempty"`
	// Revisions is how many old states the volumes keep that have no number
	// of their own; -1 for none, and no copy while they are in use.
	Revisions *int `toml:"revisions_to_keep,omitempty"`
}

func checkPools(pools map[string]Pool) error {
	for name, p := range pools {
		if p.Revisions != nil && *p.Revisions < -1 {
			return fmt.Errorf("pool %s: revisions_to_keep: %d", name, *p.Revisions)
		}
	}
	return nil
}
