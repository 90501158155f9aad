package vchan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The link: one UNIX stream connection between a domain and qrexecd, over
// which the domain asks for channel ends. Both directions carry frames of
// LinkFrameSize bytes, four little-endian u32 each:
//
//	op        request  domain        port
//	Hello     version  0             0         domain → qrexecd, first frame
//	Hello     version  own domain    0         qrexecd → domain, the answer
//	Listen    id       peer          port      domain → qrexecd
//	Dial      id       peer          port      domain → qrexecd
//	Cancel    id       0             0         domain → qrexecd
//	Channel   id       peer          port      qrexecd → domain, + 1 or 2 fds
//	Refused   id       reason        0         qrexecd → domain
//
// Request ids are chosen by the domain and name one request until it is
// answered; a Cancel that crosses its answer is ignored. The first fd of a
// Channel frame is the stream; the second, on PortGUI, the pixel region.
// Descriptors that a qube sends are discarded: qrexecd never asks for them.
// A program of dom0 speaks the same over paths.Root.Broker with own domain 0.
const (
	LinkVersion   = 1
	LinkFrameSize = 16
)

// LinkOp is the kind of a frame.
type LinkOp uint32

// The kinds of frames.
const (
	LinkHello LinkOp = iota + 1
	LinkListen
	LinkDial
	LinkCancel
	LinkChannel
	LinkRefused
)

// Reason tells why a request was refused.
type Reason uint32

// The reasons for a refusal.
const (
	ReasonNotAllowed Reason = iota + 1 // the pair of domains or the port is not for this peer
	ReasonGone                         // the peer domain does not run, or has gone meanwhile
	ReasonTooMany                      // more requests than a domain may have open
	ReasonBusy                         // the same channel is already asked for by this domain
)

func (r Reason) String() string {
	switch r {
	case ReasonNotAllowed:
		return "not allowed"
	case ReasonGone:
		return "the peer domain is not running"
	case ReasonTooMany:
		return "too many requests"
	case ReasonBusy:
		return "already requested"
	}
	return fmt.Sprintf("reason %d", uint32(r))
}

// RefusedError is the error of a request that qrexecd refused.
type RefusedError struct{ Reason Reason }

func (e *RefusedError) Error() string { return "refused: " + e.Reason.String() }

// LinkFrame is one frame of the link. Domain holds the Reason in a refusal.
type LinkFrame struct {
	Op      LinkOp
	Request uint32
	Domain  Domain
	Port    Port
}

// AppendTo appends the frame's wire form to b.
func (f LinkFrame) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Op))
	b = binary.LittleEndian.AppendUint32(b, f.Request)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Domain))
	return binary.LittleEndian.AppendUint32(b, uint32(f.Port))
}

// ParseLinkFrame reads one frame from exactly LinkFrameSize bytes. Any values
// pass; judging them is the receiver's work.
func ParseLinkFrame(b []byte) (LinkFrame, error) {
	if len(b) != LinkFrameSize {
		return LinkFrame{}, fmt.Errorf("link frame of %d bytes", len(b))
	}
	u := binary.LittleEndian.Uint32
	return LinkFrame{LinkOp(u(b)), u(b[4:]), Domain(u(b[8:])), Port(u(b[12:]))}, nil
}

// ReadLinkFrame reads one frame and up to two descriptors from conn. With
// keepFiles false, whatever descriptors arrive are closed unseen, which is
// what dom0 does with those of a qube. An unbroken end is io.EOF.
func ReadLinkFrame(conn *net.UnixConn, keepFiles bool) (LinkFrame, []*os.File, error) {
	var buf [LinkFrameSize]byte
	var files []*os.File
	for n := 0; n < len(buf); {
		var oob []byte
		if keepFiles {
			oob = make([]byte, unix.CmsgSpace(2*4))
		}
		// Without room for control data the kernel discards descriptors.
		k, oobn, _, _, err := conn.ReadMsgUnix(buf[n:], oob)
		if oobn > 0 {
			got, perr := parseFiles(oob[:oobn])
			files = append(files, got...)
			if err == nil {
				err = perr
			}
		}
		if err == nil && k == 0 {
			err = io.EOF
		}
		if err != nil {
			closeAll(files)
			if errors.Is(err, io.EOF) && n+k > 0 {
				err = io.ErrUnexpectedEOF
			}
			return LinkFrame{}, nil, err
		}
		n += k
	}
	f, err := ParseLinkFrame(buf[:])
	return f, files, err
}

// WriteLinkFrame writes one frame with its descriptors, which stay open.
func WriteLinkFrame(conn *net.UnixConn, f LinkFrame, files ...*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, file := range files {
			fds[i] = int(file.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	b := f.AppendTo(nil)
	n, _, err := conn.WriteMsgUnix(b, oob, nil)
	for err == nil && n < len(b) { // the descriptors went with the first byte
		var k int
		k, err = conn.Write(b[n:])
		n += k
	}
	return err
}

func parseFiles(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "link"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

var _ Transport = (*Link)(nil)

// Link is a domain's connection to qrexecd. It is safe for concurrent use.
// When the connection breaks, every waiting and later call fails with
// ErrLinkLost; redialling is the owner's work (DialLink again).
type Link struct {
	conn *net.UnixConn
	self Domain
	done chan struct{}

	mu      sync.Mutex // guards what follows, and the order of frames sent
	err     error
	next    uint32
	waiting map[uint32]chan answer
}

type answer struct {
	ch  *Channel
	err error
}

// ErrLinkLost is the error of requests on a link whose connection broke.
var ErrLinkLost = errors.New("the link to qrexecd is lost")

// DialLink connects to the link socket at path, waiting until qrexecd
// listens there, and exchanges hellos.
func DialLink(ctx context.Context, path string) (*Link, error) {
	conn, err := DialPath(ctx, path)
	if err != nil {
		return nil, &Error{Op: opHello, Err: err}
	}
	l, err := NewLink(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, &Error{Op: opHello, Err: err}
	}
	return l, nil
}

// NewLink says hello on conn, which the link then owns.
func NewLink(ctx context.Context, conn *net.UnixConn) (*Link, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := WriteLinkFrame(conn, LinkFrame{Op: LinkHello, Request: LinkVersion}); err != nil {
		return nil, err
	}
	f, files, err := ReadLinkFrame(conn, true)
	closeAll(files)
	if err != nil {
		return nil, err
	}
	if f.Op != LinkHello || f.Request != LinkVersion {
		return nil, fmt.Errorf("qrexecd answered with frame %d, version %d", f.Op, f.Request)
	}
	l := &Link{conn: conn, self: f.Domain, done: make(chan struct{}), waiting: make(map[uint32]chan answer)}
	go l.read()
	return l, nil
}

// Self is our own domain, as qrexecd told it.
func (l *Link) Self() Domain { return l.self }

// Done is closed when the connection is lost or closed.
func (l *Link) Done() <-chan struct{} { return l.done }

// Close ends the connection. Open channels live on.
func (l *Link) Close() error { return l.conn.Close() }

// Listen asks for the server end of a channel and waits for the peer.
func (l *Link) Listen(ctx context.Context, peer Domain, port Port) (*Channel, error) {
	ch, err := l.ask(ctx, LinkListen, peer, port)
	if err != nil {
		return nil, &Error{Op: opListen, Domain: peer, Port: port, Err: err}
	}
	return ch, nil
}

// Dial asks for the client end of a channel and waits for the peer.
func (l *Link) Dial(ctx context.Context, peer Domain, port Port) (*Channel, error) {
	ch, err := l.ask(ctx, LinkDial, peer, port)
	if err != nil {
		return nil, &Error{Op: opDial, Domain: peer, Port: port, Err: err}
	}
	return ch, nil
}

func (l *Link) ask(ctx context.Context, op LinkOp, peer Domain, port Port) (*Channel, error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return nil, l.err
	}
	l.next++
	id := l.next
	wait := make(chan answer, 1)
	l.waiting[id] = wait
	err := WriteLinkFrame(l.conn, LinkFrame{op, id, peer, port})
	l.mu.Unlock()
	if err != nil {
		l.conn.Close() // the reader reports the loss
	}
	select {
	case a := <-wait:
		return a.ch, a.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	_, pending := l.waiting[id]
	delete(l.waiting, id)
	if pending && l.err == nil {
		// A failed write shows up in the reader as well.
		_ = WriteLinkFrame(l.conn, LinkFrame{Op: LinkCancel, Request: id})
	}
	l.mu.Unlock()
	if !pending { // the answer crossed our giving up
		if a := <-wait; a.ch != nil {
			a.ch.Close()
		}
	}
	return nil, ctx.Err()
}

// read hands answers to their requests until the connection ends.
func (l *Link) read() {
	for {
		f, files, err := ReadLinkFrame(l.conn, true)
		if err != nil {
			l.lose()
			return
		}
		a := toAnswer(f, files)
		l.mu.Lock()
		wait, ok := l.waiting[f.Request]
		delete(l.waiting, f.Request)
		l.mu.Unlock()
		switch {
		case ok:
			wait <- a
		case a.ch != nil: // the request was cancelled
			a.ch.Close()
		}
	}
}

func (l *Link) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = ErrLinkLost
	l.conn.Close()
	for id, wait := range l.waiting {
		delete(l.waiting, id)
		wait <- answer{err: ErrLinkLost}
	}
	close(l.done)
}

func toAnswer(f LinkFrame, files []*os.File) answer {
	if f.Op == LinkRefused {
		closeAll(files)
		return answer{err: &RefusedError{Reason(f.Domain)}}
	}
	if f.Op != LinkChannel || len(files) == 0 {
		closeAll(files)
		return answer{err: fmt.Errorf("qrexecd answered with frame %d and %d descriptors", f.Op, len(files))}
	}
	conn, err := net.FileConn(files[0]) // duplicates
	files[0].Close()
	if err != nil {
		closeAll(files[1:])
		return answer{err: err}
	}
	ch := &Channel{Conn: conn}
	if len(files) > 1 {
		ch.Region = files[1]
	}
	return answer{ch: ch}
}
