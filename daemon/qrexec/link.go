package qrexec

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"cubicle/daemon/vchan"
)

// Limits of one link connection.
const (
	maxAsks      = 320  // open requests: 256 data channels and some more
	maxLinkQueue = 1024 // answers that the peer has not read
	linkHello    = 5 * time.Second
)

// frameLink is the common part of both kinds of links: frames in and out.
// Guest and host links are different types on purpose, so that an answer for
// one cannot go to the other.
type frameLink struct {
	conn *net.UnixConn
	out  *outbox[outFrame]
}

type outFrame struct {
	frame vchan.LinkFrame
	files []*os.File
}

func newFrameLink(conn *net.UnixConn) frameLink {
	return frameLink{conn: conn, out: newOutbox(maxLinkQueue, func(f outFrame) {
		for _, file := range f.files {
			file.Close()
		}
	})}
}

// hello reads the peer's hello and answers with its own domain.
func (l *frameLink) hello(self vchan.Domain) error {
	if err := l.conn.SetDeadline(time.Now().Add(linkHello)); err != nil {
		return err
	}
	f, _, err := vchan.ReadLinkFrame(l.conn, false)
	if err != nil {
		return err
	}
	if f.Op != vchan.LinkHello || f.Request != vchan.LinkVersion {
		return fmt.Errorf("the first frame is %d, version %d, not our hello", f.Op, f.Request)
	}
	if err := vchan.WriteLinkFrame(l.conn, vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion, Domain: self}); err != nil {
		return err
	}
	return l.conn.SetDeadline(time.Time{})
}

// send queues a frame and takes its files. A peer that leaves its answers
// unread loses the link.
func (l *frameLink) send(f vchan.LinkFrame, files ...*os.File) {
	if !l.out.put(outFrame{f, files}) {
		l.conn.Close()
	}
}

// write writes queued frames until the link ends.
func (l *frameLink) write() {
	_ = l.out.run(func(f outFrame) error { return vchan.WriteLinkFrame(l.conn, f.frame, f.files...) })
	l.conn.Close() // the reader reports the end
}

func (l *frameLink) close() {
	l.conn.Close()
	l.out.close()
}

// quiet is nil for the ordinary ends of a connection.
func quiet(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// guestLink is a qube's link. Everything that it says is hostile.
type guestLink struct {
	frameLink
	q    *qube
	asks map[uint32]*guestAsk // guarded by Router.mu
}

// guestAsk is a request of a qube for its end of a channel.
type guestAsk struct {
	link *guestLink
	id   uint32
	key  channelKey
	peer vchan.Domain // dom0, or for data the other side of a call
}

func (a *guestAsk) answer(end, region *os.File) {
	files := []*os.File{end}
	if region != nil {
		files = append(files, region)
	}
	a.link.send(vchan.LinkFrame{Op: vchan.LinkChannel, Request: a.id, Domain: a.peer, Port: a.key.port}, files...)
}

func (a *guestAsk) refuse(why vchan.Reason) { a.link.refuse(a.id, why) }

func (l *guestLink) refuse(id uint32, why vchan.Reason) {
	l.send(vchan.LinkFrame{Op: vchan.LinkRefused, Request: id, Domain: vchan.Domain(why)})
}

// serve reads the qube's requests until the link ends or says nonsense.
func (l *guestLink) serve() error {
	for {
		// false: descriptors from a qube are never taken.
		f, _, err := vchan.ReadLinkFrame(l.conn, false)
		if err != nil {
			return quiet(err)
		}
		switch f.Op {
		case vchan.LinkListen, vchan.LinkDial:
			l.q.r.guestAsks(l, f)
		case vchan.LinkCancel:
			l.q.r.guestCancels(l, f.Request)
		default:
			return fmt.Errorf("unexpected frame %d", f.Op)
		}
	}
}

// hostLink is the link of a program of dom0 at the broker.
type hostLink struct {
	frameLink
	asks map[uint32]*brokerAsk // guarded by Router.mu
}

// hostAsk is dom0's side of a channel that is wanted.
type hostAsk interface {
	answer(end, region *os.File)
	refuse(why vchan.Reason)
}

// brokerAsk is a request of a program of dom0.
type brokerAsk struct {
	link *hostLink
	id   uint32
	key  askKey
	stop func() // ends a dial that is under way for it, or nil
}

func (a *brokerAsk) answer(end, region *os.File) {
	files := []*os.File{end}
	if region != nil {
		files = append(files, region)
	}
	delete(a.link.asks, a.id)
	a.link.send(vchan.LinkFrame{Op: vchan.LinkChannel, Request: a.id, Domain: a.key.domain, Port: a.key.port}, files...)
}

func (a *brokerAsk) refuse(why vchan.Reason) {
	delete(a.link.asks, a.id)
	a.link.refuse(a.id, why)
}

func (l *hostLink) refuse(id uint32, why vchan.Reason) {
	l.send(vchan.LinkFrame{Op: vchan.LinkRefused, Request: id, Domain: vchan.Domain(why)})
}

func (l *hostLink) serve(r *Router) error {
	for {
		f, _, err := vchan.ReadLinkFrame(l.conn, false)
		if err != nil {
			return quiet(err)
		}
		switch f.Op {
		case vchan.LinkListen, vchan.LinkDial:
			r.brokerAsks(l, f)
		case vchan.LinkCancel:
			r.brokerCancels(l, f.Request)
		default:
			return fmt.Errorf("unexpected frame %d", f.Op)
		}
	}
}
