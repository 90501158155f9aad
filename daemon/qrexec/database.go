package qrexec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

// database is a QubesDB in dom0 (spec/platform.md §3): dom0's copy of a qube's,
// or dom0's own. qubesd says what dom0 has to say in it; the qube reads and
// writes it over port 111, dom0's programs on upstream's sockets.
type database struct {
	r      *Router
	name   string // of the qube
	domain vchan.Domain
	log    *slog.Logger
	// channel waits for the qube's end of the channel; nil: there is none.
	channel func(context.Context) (net.Conn, error)
	wg      sync.WaitGroup // of what run begins

	db     *qubesdb.DB
	filled chan struct{} // closed once qubesd has filled it
	once   sync.Once     // closes filled

	mu    sync.Mutex // guards wrote; taken last of all
	wrote map[string]bool
	news  chan struct{} // capacity 1: wrote is not empty
}

// newDatabase returns the database of a running qube.
func newDatabase(q *qube) *database {
	d := emptyDatabase(q.r, q.Name, q.Domain, q.log)
	d.channel = q.databaseChannel
	watched := control.Watched()
	d.db.Notify(func(path string) {
		if slices.Contains(watched, path) {
			d.note(path)
		}
	})
	return d
}

func emptyDatabase(r *Router, name string, domain vchan.Domain, log *slog.Logger) *database {
	return &database{
		r: r, name: name, domain: domain, log: log, db: qubesdb.NewForQube(),
		filled: make(chan struct{}), wrote: map[string]bool{}, news: make(chan struct{}, 1),
	}
}

// note remembers that qubesd is to hear of a path.
func (d *database) note(path string) {
	d.mu.Lock()
	d.wrote[path] = true
	d.mu.Unlock()
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// report tells qubesd what was written, again and again the same only once in
// a while: a qube must not fill the queue that all qubes share.
func (d *database) report(ctx context.Context) {
	for {
		select {
		case <-d.news:
		case <-ctx.Done():
			return
		}
		d.mu.Lock()
		paths := d.wrote
		d.wrote = map[string]bool{}
		d.mu.Unlock()
		for path := range paths {
			d.r.tell(control.Message{Kind: control.Wrote, Domain: d.domain, Path: path})
		}
		pause(ctx, reportPause)
	}
}

const reportPause = 100 * time.Millisecond

// run serves the database until ctx ends. Nobody sees it before it is filled:
// a qube would start with half of its settings.
func (d *database) run(ctx context.Context) {
	select {
	case <-d.filled:
	case <-ctx.Done():
		return
	}
	defer d.wg.Wait()
	rw, ro := qubesdb.SocketNames(d.name)
	d.offer(ctx, rw, d.r.checkPeer)
	d.offer(ctx, ro, nil)
	if d.channel == nil {
		<-ctx.Done()
		return
	}
	d.wg.Go(func() { d.report(ctx) })
	wait := controlPauseMin
	var losses again
	for ctx.Err() == nil {
		begun := time.Now()
		stream, err := d.channel(ctx)
		if err == nil {
			d.log.Debug("database connected")
			err = d.db.ServeQube(ctx, stream)
			stream.Close()
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > time.Second {
			wait = controlPauseMin
		}
		if tell, untold := losses.news(quiet(err), time.Now()); tell {
			d.log.Info("database's channel lost", "err", quiet(err), "untold", untold)
		}
		pause(ctx, wait)
		wait = min(2*wait, controlPauseMax)
	}
}

// offer serves dom0's programs on a socket: those that admit lets in, or
// without admit all, which then may only read.
func (d *database) offer(ctx context.Context, name string, admit func(*net.UnixConn) error) {
	path := filepath.Join(d.r.root.RunQubes(), name)
	l, err := listenOpen(path)
	if err != nil {
		d.log.Error("no socket of the database", "err", err)
		return
	}
	d.wg.Go(func() {
		d.db.Serve(ctx, l, admit == nil, admit, d.log)
		l.Close()
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("socket of the database", "err", err)
		}
	})
}

// databaseChannel waits for the qube at its database's port, where dom0 is the
// server.
func (q *qube) databaseChannel(ctx context.Context) (net.Conn, error) {
	if q.LinkDir == "" {
		t := vchan.Unix{Dir: q.r.root.Vchan(), Self: dom0}
		return t.Listen(ctx, q.Domain, vchan.PortQubesDB)
	}
	return q.ownChannel(ctx, channelKey{vchan.LinkDial, vchan.PortQubesDB})
}

// runOwn serves dom0's own database until ctx ends.
func (r *Router) runOwn(ctx context.Context) {
	rw, ro := qubesdb.SocketNames("")
	toRW, toRO := qubesdb.SocketNames(r.own.name)
	// Programs that name no qube look there.
	for _, l := range [][2]string{{rw, toRW}, {ro, toRO}} {
		link := filepath.Join(r.root.RunQubes(), l[0])
		if err := replaceLink(l[1], link); err != nil {
			r.log.Warn("dom0's database has not all its names", "err", err)
			continue
		}
		defer os.Remove(link)
	}
	r.own.run(ctx)
}

// database is that of a domain, or nil.
func (r *Router) database(d vchan.Domain) *database {
	if d == dom0 {
		return r.own
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.qubes[d]; q != nil {
		return q.db
	}
	return nil
}

// update does what qubesd says.
func (r *Router) update(m control.Message) {
	d := r.database(m.Domain)
	if d == nil {
		return // its link could not be made; qubesd knows
	}
	if err := d.db.Apply(m.Whole, m.Changes); err != nil {
		d.log.Error("qubesd told a bad update of the database", "err", err)
	}
	if m.Whole {
		d.once.Do(func() { close(d.filled) })
	}
}

// query answers what qubesd asks.
func (r *Router) query(m control.Message) control.Message {
	d := r.database(m.Domain)
	answer := control.Message{Kind: control.Answer, Query: m.Query}
	if d == nil {
		answer.Error = fmt.Sprintf("there is no domain %d", m.Domain)
		return answer
	}
	answer.Entries = map[string][]byte{}
	for path, value := range d.db.All(m.Path) {
		answer.Entries[path] = []byte(value)
	}
	return answer
}
