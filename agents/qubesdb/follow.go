package qubesdb

import (
	"context"
	"errors"
	"time"

	"cubicle/daemon/qubesdb"
)

// Follow tells the value of an entry of the qube's database, below the folder
// dir of its sockets, and each value that it gets later, until ctx ends; then
// the channel is closed. What a late reader has missed is left out. Whoever
// serves the database may come and go meanwhile.
func Follow(ctx context.Context, dir, path string) <-chan string {
	values := make(chan string)
	go func() {
		defer close(values)
		last, told := "", false
		for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
			// Whatever ends it, the next attempt mends it.
			_ = follow(ctx, dir, path, func(value string) error {
				pause = firstPause
				if told && value == last {
					return nil
				}
				select {
				case values <- value:
					last, told = value, true
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}()
	return values
}

// follow tells the values until the connection or ctx ends.
func follow(ctx context.Context, dir, path string, tell func(string) error) error {
	c, err := qubesdb.Dial(dir, "")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Watch(path); err != nil {
		return err
	}
	for {
		value, err := c.Read(path)
		if err == nil {
			err = tell(value)
		}
		if err != nil && !errors.Is(err, qubesdb.ErrNoEntry) {
			return err
		}
		if _, err := c.Next(ctx); err != nil {
			return err
		}
	}
}
