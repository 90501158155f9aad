package gui

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"cubicle/daemon/vchan"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// handshakeTimeout bounds how long a daemon that connected may take to say
// what it speaks.
const handshakeTimeout = 30 * time.Second

// incoming is a message of the daemon.
type incoming struct {
	window  wire.WindowID
	message wire.Message
}

// session is one connection of a daemon.
type session struct {
	conn    net.Conn
	log     *slog.Logger
	version wire.Version
	screen  wire.XConf
	region  *os.File      // nil: the daemon gave none
	inbox   chan incoming // closed when the channel is lost

	// What follows belongs to the agent's loop.
	out     []byte // messages to write
	failed  bool
	segment x11.Segment // the region in the X server; 0 for none
	space   *regionAlloc
	retired retired
}

// send queues a message until the loop's next flush.
func (s *session) send(id wire.WindowID, m wire.Message) {
	s.out = wire.Append(s.out, id, m)
}

// flush writes what is queued. It may wait for the daemon to read, which
// paces us: the daemon never waits for us to read.
func (s *session) flush() {
	if len(s.out) == 0 || s.failed {
		return
	}
	_, err := s.conn.Write(s.out)
	if s.out = s.out[:0]; cap(s.out) > 1<<20 {
		s.out = nil
	}
	if err != nil {
		s.failed = true // the reader sees the end and closes inbox
		s.log.Info("cannot write to the daemon", "err", err)
		s.conn.Close()
	}
}

// listener waits for daemons, one at a time.
type listener struct {
	transport vchan.Transport
	peer      vchan.Domain
	log       *slog.Logger
	found     chan *session
}

// run offers the GUI channel for ever, until ctx ends.
func (l *listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		l.log.Info("no daemon", "why", err)
		// A peer that cannot shake hands must not make us spin.
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// serve waits for a daemon and reads from it until the channel is lost.
func (l *listener) serve(ctx context.Context) error {
	ch, err := l.transport.Listen(ctx, l.peer, vchan.PortGUI)
	if err != nil {
		return err
	}
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { ch.Conn.Close() })
	defer stop()

	ch.SetDeadline(time.Now().Add(handshakeTimeout))
	version, screen, err := wire.AgentHandshake(ch)
	if err != nil {
		return err
	}
	ch.SetDeadline(time.Time{})
	s := &session{conn: ch.Conn, log: l.log, version: version, screen: screen, region: ch.Region, inbox: make(chan incoming, 256)}
	select {
	case l.found <- s:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer close(s.inbox)
	r := wire.NewReader(ch, wire.ToAgent, version)
	for {
		id, m, err := r.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the daemon has closed the channel")
			}
			return err
		}
		select {
		case s.inbox <- incoming{id, m}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect begins a session: the daemon knows nothing of our windows yet
// (spec/gui-protocol.md §16).
func (a *Agent) connect(s *session) {
	a.disconnect()
	a.session = s
	a.log.Info("a daemon is connected", "version", s.version.String(), "screen_width", s.screen.Width, "screen_height", s.screen.Height, "region", s.region != nil)
	a.attachRegion()
	a.resizeScreen(int(s.screen.Width), int(s.screen.Height))
	for _, w := range a.inOrder() {
		a.announce(w)
		if w.mapped {
			a.announceMapped(w)
		}
	}
	a.status("connected")
}

// attachRegion gives the daemon's region to the X server.
func (a *Agent) attachRegion() {
	s := a.session
	if s.region == nil {
		a.log.Error("the channel came without a pixel region: windows stay empty in dom0")
		return
	}
	info, err := s.region.Stat()
	if err == nil && info.Size() < pageSize {
		err = errors.New("it is empty")
	}
	if err == nil {
		s.segment, err = a.x.AttachSegment(s.region, false)
	}
	if err != nil {
		a.log.Error("the pixel region cannot be used: windows stay empty in dom0", "err", err)
		return
	}
	// Offsets of shared pixmaps have 32 bits.
	s.space = newRegionAlloc(uint64(min(info.Size(), 1<<32-pageSize)))
}

// disconnect ends the session, if there is one. Windows stay.
func (a *Agent) disconnect() {
	s := a.session
	if s == nil {
		return
	}
	s.flush()
	s.conn.Close()
	for _, w := range a.byX {
		a.dropBuffer(w)
		w.toldMapped, w.cursor = false, wire.CursorDefault
	}
	if s.segment != 0 {
		a.x.DetachSegment(s.segment)
	}
	a.session = nil
	clear(a.dying)
	a.status("started")
}

// send sends a message about a window, if a daemon is there to hear it.
func (a *Agent) send(w *window, m wire.Message) {
	if a.session != nil {
		a.session.send(w.id, m)
	}
}
