package qrexec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// database is dom0's copy of a qube's QubesDB (spec/platform.md §3). qubesd
// says what dom0 has to say in it; the qube reads and writes it over port
// 111, dom0's programs on upstream's sockets.
type database struct {
	q      *qube
	db     *qubesdb.DB
	filled chan struct{} // closed once qubesd has filled it
	once   sync.Once     // closes filled

	mu    sync.Mutex // guards wrote; taken last of all
	wrote map[string]bool
	news  chan struct{} // capacity 1: wrote is not empty
}

func newDatabase(q *qube) *database {
	d := &database{q: q, db: qubesdb.NewForQube(), filled: make(chan struct{}), wrote: map[string]bool{}, news: make(chan struct{}, 1)}
	watched := control.Watched()
	d.db.Notify(func(path string) {
		if slices.Contains(watched, path) {
			d.note(path)
		}
	})
	return d
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
func (d *database) report() {
	for {
		select {
		case <-d.news:
		case <-d.q.ctx.Done():
			return
		}
		d.mu.Lock()
		paths := d.wrote
		d.wrote = map[string]bool{}
		d.mu.Unlock()
		for path := range paths {
			d.q.r.tell(control.Message{Kind: control.Wrote, Domain: d.q.Domain, Path: path})
		}
		pause(d.q.ctx, reportPause)
	}
}

const reportPause = 100 * time.Millisecond

// run serves the database until the qube is down. Nobody sees it before it is
// filled: a qube would start with half of its settings.
func (d *database) run() {
	q := d.q
	select {
	case <-d.filled:
	case <-q.ctx.Done():
		return
	}
	q.wg.Go(d.report)
	rw, ro := qubesdb.SocketNames(q.Name)
	for name, readOnly := range map[string]bool{rw: false, ro: true} {
		path := filepath.Join(q.r.root.RunQubes(), name)
		l, err := listenOpen(path)
		if err != nil {
			q.log.Error("no socket of the database", "err", err)
			continue
		}
		admit := q.r.checkPeer
		if readOnly {
			admit = nil
		}
		q.wg.Go(func() {
			d.db.Serve(q.ctx, l, readOnly, admit, q.log)
			l.Close()
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				q.log.Warn("socket of the database", "err", err)
			}
		})
	}
	wait := controlPauseMin
	for q.ctx.Err() == nil {
		begun := time.Now()
		stream, err := d.channel(q.ctx)
		if err == nil {
			q.log.Debug("database connected")
			err = d.db.ServeQube(q.ctx, stream)
			stream.Close()
		}
		if q.ctx.Err() != nil {
			return
		}
		if time.Since(begun) > time.Second {
			wait = controlPauseMin
		}
		q.log.Info("database's channel lost", "err", quiet(err))
		pause(q.ctx, wait)
		wait = min(2*wait, controlPauseMax)
	}
}

// channel waits for the qube at its database's port, where dom0 is the
// server.
func (d *database) channel(ctx context.Context) (net.Conn, error) {
	q := d.q
	if q.LinkDir == "" {
		t := vchan.Unix{Dir: q.r.root.Vchan(), Self: dom0}
		return t.Listen(ctx, q.Domain, vchan.PortQubesDB)
	}
	return q.ownChannel(ctx, channelKey{vchan.LinkDial, vchan.PortQubesDB})
}

// update does what qubesd says.
func (r *Router) update(m control.Message) {
	r.mu.Lock()
	q := r.qubes[m.Domain]
	r.mu.Unlock()
	if q == nil {
		return // its link could not be made; qubesd knows
	}
	if err := q.db.db.Apply(m.Whole, m.Changes); err != nil {
		q.log.Error("qubesd told a bad update of the database", "err", err)
	}
	if m.Whole {
		q.db.once.Do(func() { close(q.db.filled) })
	}
}

// query answers what qubesd asks.
func (r *Router) query(m control.Message) control.Message {
	r.mu.Lock()
	q := r.qubes[m.Domain]
	r.mu.Unlock()
	answer := control.Message{Kind: control.Answer, Query: m.Query}
	if q == nil {
		answer.Error = fmt.Sprintf("there is no domain %d", m.Domain)
		return answer
	}
	answer.Entries = map[string][]byte{}
	for path, value := range q.db.db.All(m.Path) {
		answer.Entries[path] = []byte(value)
	}
	return answer
}
