package qubesdb

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	values := Follow(ctx, dir, "/keyboard-layout")
	next := func(want string) {
		t.Helper()
		select {
		case got := <-values:
			if got != want {
				t.Fatalf("told %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("not told %q", want)
		}
	}
	// Twice, as when the database's agent is started again.
	for _, layout := range []string{"de++", "fr++"} {
		d := qubesdb.NewInQube()
		rw, _ := qubesdb.SocketNames("")
		l, err := vchan.ListenPath(filepath.Join(dir, rw))
		if err != nil {
			t.Fatal(err)
		}
		serving, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Serve(serving, l, false, nil, slog.New(slog.DiscardHandler))
		}()
		write := func(value string) {
			t.Helper()
			if err := d.Write("/keyboard-layout", value); err != nil {
				t.Fatal(err)
			}
		}
		write(layout)
		next(layout)
		write(layout) // no news
		write("us++")
		next("us++")
		stop()
		<-done
		l.Close()
	}
	cancel()
	for range values {
	}
}
