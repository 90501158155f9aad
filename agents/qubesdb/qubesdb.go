// Package qubesdb is the QubesDB agent of a qube: it keeps the qube's copy of
// the database equal to dom0's, offers it on upstream's sockets, and does in
// the qube what some of its keys ask for (spec/platform.md §3): services,
// markers of what kind of qube this is, the time zone.
package qubesdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"cubicle/agents/session"
	"cubicle/daemon/qubesdb"
	"cubicle/daemon/qubesdb/tool"
	"cubicle/daemon/vchan"
)

// Options are the parameters of an agent.
type Options struct {
	Root string // "/" in a qube: the folder below which it works
	// Program is what the tools' names in /usr/bin lead to; empty: they are
	// not made.
	Program string
	Log     *slog.Logger
}

// dom0 is the domain that has the other copy.
const dom0 vchan.Domain = 0

// The pause before the channel is opened again doubles from the first to the
// last.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// Run serves until ctx ends, which is no error, or the sockets cannot be made.
func Run(ctx context.Context, transport vchan.Transport, o Options) error {
	db := qubesdb.NewInQube()
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := os.MkdirAll(o.path(qubesdb.Dir), 0o755); err != nil {
		return fmt.Errorf("the database: %w", err)
	}
	rw, ro := qubesdb.SocketNames("")
	for _, s := range []struct {
		name     string
		readOnly bool
	}{{rw, false}, {ro, true}} {
		l, err := o.listen(s.name, s.readOnly)
		if err != nil {
			return err
		}
		work.Go(func() {
			db.Serve(ctx, l, s.readOnly, nil, o.Log)
			l.Close()
			os.Remove(o.path(qubesdb.Dir, s.name))
		})
	}
	if err := o.linkTools(); err != nil {
		o.Log.Warn("the tools of the database are not in PATH", "err", err)
	}
	work.Go(func() { o.apply(ctx, db) })

	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		ch, err := transport.Dial(ctx, dom0, vchan.PortQubesDB)
		if err == nil {
			begun := time.Now()
			err = db.FollowDom0(ctx, ch)
			ch.Close()
			if time.Since(begun) > lastPause {
				pause = firstPause
			}
		}
		if ctx.Err() != nil {
			break
		}
		o.Log.Warn("dom0's database is lost", "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

func (o Options) path(elem ...string) string {
	return filepath.Join(append([]string{o.Root}, elem...)...)
}

// listen offers a socket: the one for readers to all, the other to root and
// the group that upstream's agents are in, else to the user's own.
func (o Options) listen(name string, readOnly bool) (*net.UnixListener, error) {
	path := o.path(qubesdb.Dir, name)
	l, err := vchan.ListenPath(path)
	if err != nil {
		return nil, fmt.Errorf("the database: %w", err)
	}
	mode := os.FileMode(0o660)
	if readOnly {
		mode = 0o666
	} else if gid, ok := writers(); ok {
		if err := os.Chown(path, -1, gid); err != nil {
			o.Log.Warn("only root may write to the database", "err", err)
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("the database: %w", err)
	}
	return l, nil
}

// writers is the group that may write to the database.
func writers() (gid int, ok bool) {
	if g, err := user.LookupGroup("qubes"); err == nil {
		gid, err = strconv.Atoi(g.Gid)
		return gid, err == nil
	}
	u, err := session.LookupUser(session.DefaultUser)
	return int(u.GID), err == nil
}

// linkTools gives the tools their names in PATH, where the image has none of
// its own.
func (o Options) linkTools() error {
	if o.Program == "" {
		return nil
	}
	var errs []error
	for _, name := range tool.Names() {
		if err := os.Symlink(o.Program, o.path("/usr/bin", name)); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
