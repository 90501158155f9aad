package x11

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is the reason of a connection's end that Close caused.
var ErrClosed = errors.New("the connection to the X server was closed")

// maxUnsent is how many bytes of requests wait for the server before a caller
// has to wait too.
const maxUnsent = 1 << 20

const (
	unitSize = 32 // of every event, error and head of a reply

	kindError    = 0
	kindReply    = 1
	kindGeneric  = 35
	syntheticBit = 0x80

	codeBadValue          = 2
	codeBadImplementation = 17
	firstExtensionError   = 128

	shmAttachFD = 6 // minor opcode
)

// stream stands between xgb and the socket. xgb makes one Write per request
// and reads answers in units of 32 bytes, on which everything here rests:
//
//   - the first Write is xgb's set-up request, replaced by ours with a cookie;
//   - requests are collected and written by a goroutine;
//   - a ShmAttachFd request leaves with a descriptor;
//   - events never reach xgb: they go to onEvent, GenericEvents are dropped;
//   - error codes of extensions become BadValue, because xgb would have to be
//     taught them in a global table;
//   - when the server is lost, each request that waits, and each later one,
//     is answered with an error, because xgb would panic or wait for ever.
type stream struct {
	conn     *net.UnixConn
	setup    []byte
	onEvent  func(unit []byte)
	onLost   func(error)
	shmMajor atomic.Uint32

	pending  []byte // what Read hands out next; the reading goroutine's
	state    int    // likewise
	answered uint64 // number of the last request answered; likewise

	mu     sync.Mutex // guards what follows
	change sync.Cond  // of mu
	buf    []byte     // requests to write
	fds    []int      // for ShmAttachFd requests to come
	attach []attachment
	sent   uint64 // requests taken from xgb
	begun  bool   // our set-up request is in buf or written
	lost   error
}

// attachment is a descriptor that leaves with the byte at offset at of buf.
type attachment struct{ at, fd int }

const (
	stateSetup = iota
	stateRunning
)

func newStream(conn *net.UnixConn, setup []byte, onEvent func([]byte), onLost func(error)) *stream {
	s := &stream{conn: conn, setup: setup, onEvent: onEvent, onLost: onLost}
	s.change.L = &s.mu
	go s.write()
	return s
}

// Write takes one request. It never fails: a loss is reported by Read's means.
func (s *stream) Write(request []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(request)
	if !s.begun {
		s.begun = true
		request = s.setup
	} else {
		s.sent++
	}
	for len(s.buf) > maxUnsent && s.lost == nil {
		s.change.Wait()
	}
	if s.lost == nil {
		if len(request) >= 2 && request[1] == shmAttachFD && uint32(request[0]) == s.shmMajor.Load() && len(s.fds) > 0 {
			s.attach = append(s.attach, attachment{len(s.buf), s.fds[0]})
			s.fds = s.fds[1:]
		}
		s.buf = append(s.buf, request...)
	}
	s.change.Broadcast()
	return n, nil
}

// addFD queues a descriptor for the next ShmAttachFd request. It stays the
// caller's, who keeps it open until the request is answered.
func (s *stream) addFD(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fds = append(s.fds, fd)
}

// write is the goroutine that empties buf.
func (s *stream) write() {
	var spare []byte
	for {
		s.mu.Lock()
		for len(s.buf) == 0 && s.lost == nil {
			s.change.Wait()
		}
		if s.lost != nil {
			s.mu.Unlock()
			return
		}
		b, attach := s.buf, s.attach
		s.buf, s.attach = spare[:0], nil
		s.change.Broadcast()
		s.mu.Unlock()
		if err := s.writeAll(b, attach); err != nil {
			s.lose(fmt.Errorf("write to the X server: %w", err))
			return
		}
		spare = b
	}
}

func (s *stream) writeAll(b []byte, attach []attachment) error {
	start := 0
	for _, a := range attach {
		if _, err := s.conn.Write(b[start:a.at]); err != nil {
			return err
		}
		// The descriptor goes with the first byte of its request.
		n, _, err := s.conn.WriteMsgUnix(b[a.at:a.at+1], unix.UnixRights(a.fd), nil)
		if err != nil {
			return err
		}
		start = a.at + n
	}
	if start == len(b) {
		return nil
	}
	_, err := s.conn.Write(b[start:])
	return err
}

// Read hands set-up data, replies and errors to xgb.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.pending) == 0 {
		if err := s.fill(); err != nil {
			s.lose(fmt.Errorf("read from the X server: %w", err))
			if s.state == stateSetup {
				return 0, err
			}
			s.pending = s.answerForLost()
		}
	}
	n := copy(p, s.pending)
	s.pending = s.pending[n:]
	return n, nil
}

// fill reads what comes next from the server.
func (s *stream) fill() error {
	if s.state == stateSetup {
		return s.fillSetup()
	}
	unit := make([]byte, unitSize)
	if _, err := io.ReadFull(s.conn, unit); err != nil {
		return err
	}
	switch kind := unit[0] &^ syntheticBit; kind {
	case kindError:
		s.answer(unit)
		if unit[1] >= firstExtensionError {
			unit[1] = codeBadValue
		}
		s.pending = unit
	case kindReply, kindGeneric:
		rest := int64(binary.LittleEndian.Uint32(unit[4:])) * 4
		if kind == kindGeneric {
			_, err := io.CopyN(io.Discard, s.conn, rest)
			return err
		}
		if rest > 0 {
			unit = append(unit, make([]byte, rest)...)
			if _, err := io.ReadFull(s.conn, unit[unitSize:]); err != nil {
				return err
			}
		}
		s.answer(unit)
		s.pending = unit
	default:
		s.onEvent(unit)
	}
	return nil
}

func (s *stream) fillSetup() error {
	head := make([]byte, 8)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return err
	}
	body := make([]byte, int(binary.LittleEndian.Uint16(head[6:]))*4)
	if _, err := io.ReadFull(s.conn, body); err != nil {
		return err
	}
	s.pending = append(head, body...)
	s.state = stateRunning
	return nil
}

// answer notes which request an answer belongs to; the wire has the low 16
// bits of its number.
func (s *stream) answer(unit []byte) {
	seq := binary.LittleEndian.Uint16(unit[2:])
	s.answered += uint64(seq - uint16(s.answered))
}

// answerForLost waits for a request without an answer and refuses it.
func (s *stream) answerForLost() []byte {
	s.mu.Lock()
	for s.answered == s.sent {
		s.change.Wait()
	}
	s.mu.Unlock()
	s.answered++
	unit := make([]byte, unitSize)
	unit[1] = codeBadImplementation
	binary.LittleEndian.PutUint16(unit[2:], uint16(s.answered))
	return unit
}

// lose ends the connection for the first reason that is given.
func (s *stream) lose(err error) {
	s.mu.Lock()
	first := s.lost == nil
	if first {
		s.lost = err
		s.buf, s.attach = nil, nil
	}
	s.change.Broadcast()
	s.mu.Unlock()
	if first {
		s.conn.Close()
		s.onLost(err)
	}
}

func (s *stream) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Close, the addresses and the deadlines complete net.Conn.
func (s *stream) Close() error                     { s.lose(ErrClosed); return nil }
func (s *stream) LocalAddr() net.Addr              { return s.conn.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr             { return s.conn.RemoteAddr() }
func (s *stream) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (s *stream) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (s *stream) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
