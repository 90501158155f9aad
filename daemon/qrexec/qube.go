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
	"strings"
	"sync"
	"time"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// qube is one running qube.
type qube struct {
	control.Qube
	r      *Router
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	db     *database

	// Guarded by Router.mu:
	guest     *guestLink // nil without a link
	pending   *net.UnixConn
	guestAsks map[channelKey]*guestAsk
	agent     *agentConn                 // nil until its hello
	legs      map[legKey]*leg            // its parts in calls
	ports     map[vchan.Port]*leg        // those whose port is its own
	callsOut  int                        // those that it makes
	streams   map[*net.UnixConn]struct{} // their data channels that are open
}

// acceptPause bounds how often a qube may connect or open its control
// channel: what it does in a loop costs dom0 little.
const (
	acceptPause     = 5 * time.Millisecond
	controlPauseMin = 20 * time.Millisecond // doubles while channels are short-lived
	controlPauseMax = 250 * time.Millisecond
)

// newQube starts serving a qube. The error tells why its link cannot be.
func newQube(ctx context.Context, r *Router, spec control.Qube) (*qube, error) {
	q := &qube{
		Qube:      spec,
		r:         r,
		log:       limitLog(r.log).With("qube", spec.Name, "domain", spec.Domain),
		guestAsks: make(map[channelKey]*guestAsk),
		legs:      make(map[legKey]*leg),
		ports:     make(map[vchan.Port]*leg),
		streams:   make(map[*net.UnixConn]struct{}),
	}
	q.ctx, q.cancel = context.WithCancel(ctx)
	q.db = newDatabase(q)
	if spec.LinkDir != "" {
		path := filepath.Join(spec.LinkDir, paths.LinkSocket)
		l, err := listenOpen(path) // ids in the qube are not ours
		if err != nil {
			q.cancel()
			return nil, fmt.Errorf("link socket: %w", err)
		}
		q.wg.Go(func() { q.acceptLinks(l, path) })
	}
	q.wg.Go(q.controlLoop)
	q.wg.Go(func() { q.db.run(q.ctx) })
	return q, nil
}

// stop ends everything of the qube and waits for it. The qube is out of the
// router's table, and mu is not held.
func (q *qube) stop() {
	q.cancel()
	q.r.mu.Lock()
	if q.guest != nil {
		q.guest.close()
	}
	if q.pending != nil {
		q.pending.Close()
	}
	for _, l := range q.legs {
		l.leave()
	}
	q.r.mu.Unlock()
	q.wg.Wait()
}

func (q *qube) acceptLinks(l *net.UnixListener, path string) {
	stop := context.AfterFunc(q.ctx, func() { l.Close() })
	defer stop()
	defer func() {
		l.Close()
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.log.Warn("remove the link socket", "err", err)
		}
	}()
	for {
		conn, err := l.AcceptUnix()
		if q.ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			q.log.Warn("link socket", "err", err)
			pause(q.ctx, 10*acceptPause)
			continue
		}
		q.r.mu.Lock()
		if q.pending != nil { // one that has not said hello yet makes room
			q.pending.Close()
		}
		q.pending = conn
		q.r.mu.Unlock()
		q.wg.Go(func() { q.serveLink(conn) })
		pause(q.ctx, acceptPause)
	}
}

// serveLink is the life of one link connection. After its hello it takes the
// place of the one before.
func (q *qube) serveLink(conn *net.UnixConn) {
	l := &guestLink{frameLink: newFrameLink(conn), q: q, asks: make(map[uint32]*guestAsk)}
	defer l.close()
	stop := context.AfterFunc(q.ctx, func() { conn.Close() })
	defer stop()
	err := l.hello(q.Domain)

	q.r.mu.Lock()
	if q.pending == conn {
		q.pending = nil
	} else if err == nil {
		err = net.ErrClosed // a newer connection came meanwhile
	}
	if err != nil {
		q.r.mu.Unlock()
		if quiet(err) != nil {
			q.log.Warn("link refused", "err", err)
		}
		return
	}
	q.dropLink()
	q.guest = l
	q.r.mu.Unlock()
	q.log.Info("link up")

	q.wg.Go(l.write)
	err = l.serve()
	q.r.mu.Lock()
	if q.guest == l {
		q.dropLink()
	}
	q.r.mu.Unlock()
	if err != nil {
		q.log.Warn("link closed", "err", err)
	} else {
		q.log.Info("link lost")
	}
}

// dropLink forgets the present link and what was asked on it; mu is held.
func (q *qube) dropLink() {
	if q.guest == nil {
		return
	}
	for _, a := range q.guest.asks {
		delete(q.guestAsks, a.key)
	}
	clear(q.guest.asks)
	q.guest.close()
	q.guest = nil
}

// ownAsk is the router's own wish for a channel.
type ownAsk struct{ end chan *os.File }

func (a *ownAsk) answer(end, _ *os.File) { a.end <- end }
func (a *ownAsk) refuse(vchan.Reason)    { close(a.end) }

// dialAgent waits until the qube's agent offers the control channel.
func (q *qube) dialAgent(ctx context.Context) (net.Conn, error) {
	if q.LinkDir == "" {
		t := vchan.Unix{Dir: q.r.root.Vchan(), Self: dom0}
		return t.Dial(ctx, q.Domain, vchan.PortQrexec)
	}
	return q.ownChannel(ctx, channelKey{vchan.LinkListen, vchan.PortQrexec})
}

// ownChannel waits until the qube's agent asks for its end of a channel, and
// returns the other.
func (q *qube) ownChannel(ctx context.Context, channel channelKey) (net.Conn, error) {
	key := askKey{q.Domain, channel}
	a := &ownAsk{end: make(chan *os.File, 1)}
	q.r.mu.Lock()
	q.r.hostAsks[key] = a
	q.r.match(q, channel)
	q.r.mu.Unlock()
	select {
	case f, ok := <-a.end:
		if !ok {
			return nil, errors.New("no channel")
		}
		defer f.Close()
		return net.FileConn(f)
	case <-ctx.Done():
	}
	q.r.mu.Lock()
	if q.r.hostAsks[key] == a {
		delete(q.r.hostAsks, key)
	}
	q.r.mu.Unlock()
	select {
	case f := <-a.end: // crossed
		if f != nil {
			f.Close()
		}
	default:
	}
	return nil, ctx.Err()
}

// controlLoop keeps the control channel open for the qube's life.
func (q *qube) controlLoop() {
	wait := controlPauseMin
	var losses again
	for q.ctx.Err() == nil {
		conn, err := q.dialAgent(q.ctx)
		if err == nil {
			begun := time.Now()
			err = q.serveAgent(conn)
			conn.Close()
			if time.Since(begun) > time.Second {
				wait = controlPauseMin
			}
		}
		if q.ctx.Err() != nil {
			return
		}
		if tell, untold := losses.news(quiet(err), time.Now()); tell {
			q.log.Info("control channel lost", "err", quiet(err), "untold", untold)
		}
		pause(q.ctx, wait)
		wait = min(2*wait, controlPauseMax)
	}
}

// connFile returns a descriptor of the connection for sending away.
func connFile(ch *vchan.Channel) (*os.File, error) {
	u, ok := ch.Conn.(*net.UnixConn)
	if !ok {
		return nil, errNotUnix
	}
	return u.File()
}

// pause sleeps unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// localSocket is the qube's socket for dom0's programs, with its other names.
type localSocket struct {
	l     *net.UnixListener
	path  string
	links []string
}

// listenOpen listens on a socket that everybody may connect to: who is
// served, the folder and SO_PEERCRED decide.
func listenOpen(path string) (*net.UnixListener, error) {
	l, err := vchan.ListenPath(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, errors.Join(err, os.Remove(path))
	}
	return l, nil
}

// listenLocal offers qrexec.ID and its symbolic links (spec/qrexec.md §12).
func (q *qube) listenLocal() (*localSocket, error) {
	base := fmt.Sprintf("qrexec.%d", q.Domain)
	s := &localSocket{path: filepath.Join(q.r.root.RunQubes(), base)}
	var err error
	if s.l, err = listenOpen(s.path); err != nil {
		return nil, err
	}
	names := []string{"qrexec." + q.Name}
	if q.UUID != "" {
		names = append(names, "qrexec.uuid:"+q.UUID)
	}
	for _, name := range names {
		link := filepath.Join(q.r.root.RunQubes(), name)
		if err := replaceLink(base, link); err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.links = append(s.links, link)
	}
	return s, nil
}

// replaceLink makes a symbolic link, in the place of one that may be there.
func replaceLink(to, link string) error {
	tmp := link + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, link)
}

// close removes the socket, and the links that still are its.
func (s *localSocket) close() error {
	err := s.l.Close()
	for _, link := range s.links {
		if to, rerr := os.Readlink(link); rerr == nil && to == filepath.Base(s.path) {
			err = errors.Join(err, os.Remove(link))
		}
	}
	if rerr := os.Remove(s.path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// checkSpec judges what qubesd tells: names become file names.
func checkSpec(spec control.Qube) error {
	if spec.Domain == dom0 {
		return errors.New("a qube with the domain of dom0")
	}
	for _, s := range []string{spec.Name, spec.UUID} {
		if strings.ContainsAny(s, "/\x00\n ") {
			return fmt.Errorf("%q cannot be a qube's name", s)
		}
	}
	if spec.Name == "" {
		return errors.New("a qube without a name")
	}
	return nil
}
