package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxEvent bounds an event in bytes.
const maxEvent = 1 << 20

// Event is something that happened (spec/admin-api.md §7).
type Event struct {
	Subject string // a qube's name; empty for the system
	Name    string
	Args    map[string]string
}

// Stream is a stream of events.
type Stream struct {
	r    *bufio.Reader
	end  func()
	left int // what the event being read may still have, in bytes
}

// Events calls a method that replies with a stream of events: admin.Events,
// admin.vm.Stats, or our own cubicle.job.Events. It returns when the server has
// accepted; the first event, connection-established, is taken. The stream
// ends with Close or ctx.
func (c *Client) Events(ctx context.Context, dest, method string) (*Stream, error) {
	s, werr, err := c.stream(ctx, dest, method)
	if err != nil {
		return nil, err
	}
	first, err := s.Next()
	switch {
	case err == nil && first.Name == "connection-established":
		return s, nil
	case err == nil:
		err = &Error{"QubesDaemonCommunicationError", fmt.Sprintf("unexpected event from qubesd: %.64q", first.Name)}
	case errors.Is(err, io.EOF):
		err = &Error{"QubesDaemonAccessError", "got empty response from qubesd"}
		if werr != nil {
			err = unreachable(werr)
		}
	}
	s.Close()
	return nil, err
}

// stream begins a stream. werr is that the request could not be sent whole.
func (c *Client) stream(ctx context.Context, dest, method string) (s *Stream, werr, err error) {
	if c.Remote != nil {
		if isOwn(method) {
			return nil, nil, errOwn
		}
		s, err := c.streamRemote(ctx, dest, method)
		return s, nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, unreachable(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	s = &Stream{r: bufio.NewReader(conn), end: func() {
		stop()
		conn.Close()
	}}
	return s, send(conn, head(dest, method, ""), strings.NewReader("")), nil
}

// Close ends the stream.
func (s *Stream) Close() { s.end() }

// Next waits for the next event. At the stream's end it is io.EOF; an
// exception of the server is an *Error.
func (s *Stream) Next() (Event, error) {
	s.left = maxEvent
	kind, err := s.field()
	switch {
	case err != nil:
		return Event{}, err
	case kind == "2":
		raw, err := io.ReadAll(io.LimitReader(s.r, maxEvent))
		if err != nil {
			return Event{}, unreachable(err)
		}
		_, err = parseReply(append([]byte("2\x00"), raw...))
		return Event{}, err
	case kind != "1":
		return Event{}, &Error{"QubesDaemonCommunicationError", fmt.Sprintf("unexpected reply from qubesd: %.64q", kind)}
	}
	e := Event{Args: map[string]string{}}
	if e.Subject, err = s.field(); err != nil {
		return Event{}, cut(err)
	}
	if e.Name, err = s.field(); err != nil {
		return Event{}, cut(err)
	}
	for {
		key, err := s.field()
		if err != nil {
			return Event{}, cut(err)
		}
		if key == "" {
			return e, nil
		}
		if e.Args[key], err = s.field(); err != nil {
			return Event{}, cut(err)
		}
	}
}

// cut turns the end within an event into an error of its own.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// field reads up to the next NUL.
func (s *Stream) field() (string, error) {
	var b bytes.Buffer
	for {
		part, err := s.r.ReadSlice(0)
		s.left -= len(part)
		b.Write(part)
		switch {
		case s.left < 0:
			return "", &Error{"QubesDaemonCommunicationError", "an event from qubesd is too long"}
		case err == nil:
			return string(b.Bytes()[:b.Len()-1]), nil
		case errors.Is(err, io.EOF) && b.Len() > 0:
			return "", io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
	}
}
