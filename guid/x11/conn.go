package x11

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"

	"github.com/BurntSushi/xgb"
	"github.com/BurntSushi/xgb/xproto"
)

// Conn is a connection to the X server. It is safe for concurrent use.
type Conn struct {
	x      *xgb.Conn
	stream *stream
	screen *xproto.ScreenInfo
	setup  *xproto.SetupInfo

	queue  eventQueue
	events chan Event
	done   chan struct{} // closed when the server is lost
	quit   chan struct{} // closed by Close: nobody reads events any more
	once   sync.Once

	mu        sync.Mutex // guards what follows
	atoms     map[string]Atom
	names     map[Atom]string
	extEvents map[byte]xgb.NewEventFun
	opcodes   map[string]byte

	attachMu sync.Mutex // one ShmAttachFd at a time
}

// silence turns off xgb's logging to stderr, which it does on its own.
var silence sync.Once

// Dial connects to a display of this machine: ":N", or "" for $DISPLAY. The
// cookie comes from $XAUTHORITY or ~/.Xauthority.
func Dial(display string) (*Conn, error) {
	if display == "" {
		display = os.Getenv("DISPLAY")
	}
	c, err := dial(display)
	return c, wrap(fmt.Sprintf("connect to display %q", display), err)
}

func dial(display string) (*Conn, error) {
	if display == "" {
		return nil, errors.New("DISPLAY is not set")
	}
	n, err := displayNumber(display)
	if err != nil {
		return nil, err
	}
	cookie, err := readCookie(n)
	if err != nil {
		return nil, err
	}
	conn, err := dialSocket(n)
	if err != nil {
		return nil, err
	}
	return newConn(conn, cookie)
}

// dialSocket tries the socket file first and Linux' abstract name second.
func dialSocket(display int) (*net.UnixConn, error) {
	path := fmt.Sprintf("/tmp/.X11-unix/X%d", display)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		if abstract, err2 := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: "@" + path}); err2 == nil {
			return abstract, nil
		}
	}
	return conn, err
}

func newConn(conn *net.UnixConn, cookie []byte) (*Conn, error) {
	silence.Do(func() { xgb.Logger = log.New(io.Discard, "", 0) })
	c := &Conn{
		events:    make(chan Event, 64),
		done:      make(chan struct{}),
		quit:      make(chan struct{}),
		atoms:     make(map[string]Atom),
		names:     make(map[Atom]string),
		extEvents: make(map[byte]xgb.NewEventFun),
		opcodes:   make(map[string]byte),
	}
	c.queue.init(c.events)
	c.stream = newStream(conn, setupRequest(cookie), c.onEvent, func(error) {
		close(c.done)
		c.queue.close()
	})
	x, err := xgb.NewConnNet(c.stream)
	if err != nil {
		c.stream.Close()
		return nil, err
	}
	c.x = x
	c.setup = xproto.Setup(x)
	c.screen = c.setup.DefaultScreen(x)
	go c.drainErrors()
	go c.pump()
	return c, nil
}

// Close ends the connection; all its windows vanish. xgb's own goroutines stay
// parked, because xgb panics when a request meets its Close.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.quit) })
	return c.stream.Close()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err tells why the connection ended: ErrClosed after Close, nil before.
func (c *Conn) Err() error { return c.stream.err() }

// Events delivers events in order, without a bound on how many wait. It is
// closed when the connection has ended and all events were taken.
func (c *Conn) Events() <-chan Event { return c.events }

// onEvent runs in the reading goroutine and must not make requests.
func (c *Conn) onEvent(unit []byte) {
	code := unit[0] &^ syntheticBit
	parse := xgb.NewEventFuncs[int(code)] // the core events; nobody writes to it
	if parse == nil {
		c.mu.Lock()
		parse = c.extEvents[code]
		c.mu.Unlock()
	}
	if parse != nil {
		c.queue.put(Event{Synthetic: unit[0]&syntheticBit != 0, Body: parse(unit)})
	}
}

// drainErrors moves the errors of unanswered requests into the event queue.
func (c *Conn) drainErrors() {
	for {
		_, xerr := c.x.WaitForEvent()
		if xerr == nil {
			return
		}
		select {
		case <-c.done: // made by the stream itself: the requests after the end
		default:
			c.queue.put(Event{Body: &RequestError{Text: xerr.Error(), ID: xerr.BadId(), err: xerr}})
		}
	}
}

// pump delivers the events that had to wait.
func (c *Conn) pump() {
	defer close(c.events)
	defer c.queue.close()
	for {
		ev, ok := c.queue.take()
		if !ok {
			return
		}
		select {
		case c.events <- ev:
		case <-c.quit:
			return
		}
	}
}

// eventQueue has no bound: a full one would stall the answers behind it. An
// event that finds nothing before it goes straight to the reader: each
// goroutine on the way of a key or a pixel costs time.
type eventQueue struct {
	out chan<- Event

	mu       sync.Mutex // guards what follows
	some     sync.Cond
	events   []Event
	carrying bool // take's caller has one that it has not delivered yet
	closed   bool // nothing is put into out any more
}

func (q *eventQueue) init(out chan<- Event) { q.out, q.some.L = out, &q.mu }

func (q *eventQueue) put(ev Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.events) == 0 && !q.carrying {
		select {
		case q.out <- ev:
			return
		default:
		}
	}
	q.events = append(q.events, ev)
	q.some.Signal()
}

// take returns the next event that waits; the caller has delivered the one
// before.
func (q *eventQueue) take() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.carrying = false
	for len(q.events) == 0 && !q.closed {
		q.some.Wait()
	}
	if len(q.events) == 0 {
		return Event{}, false
	}
	ev := q.events[0]
	q.events[0] = Event{}
	q.events = q.events[1:]
	q.carrying = true
	return ev, true
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}

// Root is the root window of the default screen.
func (c *Conn) Root() Window { return c.screen.Root }

// RootDepth is the root window's depth in bits.
func (c *Conn) RootDepth() byte { return c.screen.RootDepth }

// RootVisual is the root window's visual.
func (c *Conn) RootVisual() VisualID { return c.screen.RootVisual }

// DefaultColormap is the colormap of the default screen.
func (c *Conn) DefaultColormap() Colormap { return c.screen.DefaultColormap }

// ScreenSize is the root window's size in pixels when the connection was
// made; Geometry(Root()) has the present one.
func (c *Conn) ScreenSize() (width, height int) {
	return int(c.screen.WidthInPixels), int(c.screen.HeightInPixels)
}

// VisualDepth returns the depth in bits of a visual, 0 for an unknown one.
func (c *Conn) VisualDepth(id VisualID) byte {
	for _, d := range c.screen.AllowedDepths {
		for _, v := range d.Visuals {
			if v.VisualId == id {
				return d.Depth
			}
		}
	}
	return 0
}

// Sync waits until the server has done everything that was asked before.
func (c *Conn) Sync() error {
	_, err := xproto.GetInputFocus(c.x).Reply()
	return wrap("sync", c.orLost(err))
}

// Grab makes the server serve nobody else until Ungrab.
func (c *Conn) Grab() { xproto.GrabServer(c.x) }

// Ungrab ends Grab.
func (c *Conn) Ungrab() { xproto.UngrabServer(c.x) }

// orLost names the loss of the server where it is the cause of an error.
func (c *Conn) orLost(err error) error {
	if err == nil {
		return nil
	}
	if lost := c.stream.err(); lost != nil {
		return lost
	}
	return err
}
