// Package x11 is Cubicle's view of an X server, and the only importer of xgb.
//
// Dial returns a Conn. Requests without an answer are methods that return
// nothing: they are batched, and their errors arrive as events whose Body is a
// *RequestError. Requests with an answer are a round trip and return an error;
// never make one in the loop that reads Events unless the answer is needed
// there, because it stalls everything behind it for a round trip.
//
//	c, err := x11.Dial("")               // $DISPLAY, cookie from $XAUTHORITY
//	atoms, err := c.Atoms("WM_NAME")     // once, at the start
//	for ev := range c.Events() {         // closed when the server is lost
//		switch e := ev.Body.(type) {
//		case x11.KeyPressEvent: …
//		case x11.DamageNotifyEvent: …
//		}
//	}
//	err = c.Err()                        // why it ended
//
// Extensions are switched on one by one (InitShm, InitDamage …) before their
// requests are used. Pixels travel through a memfd: AttachSegment, then
// ShmPutImage (dom0) or ShmPixmap and CopyArea (in a qube).
//
// What xgb lacks or does wrong is handled here, in stream_linux.go: passing
// descriptors, the cookie of a connection of our own, the loss of the server
// (Done is closed and every waiting and later request fails; nothing panics),
// events without a bound, events longer than 32 bytes, the mark of synthetic
// events, several servers in one process, and batching of writes. X resource
// ids are never reused, about two million per connection: keep graphics
// contexts and cursors.
package x11

import (
	"fmt"

	"github.com/BurntSushi/xgb/damage"
	"github.com/BurntSushi/xgb/randr"
	"github.com/BurntSushi/xgb/shm"
	"github.com/BurntSushi/xgb/xfixes"
	"github.com/BurntSushi/xgb/xproto"
)

// Resources and values of X11.
type (
	Window    = xproto.Window
	Pixmap    = xproto.Pixmap
	Drawable  = xproto.Drawable
	GC        = xproto.Gcontext
	Cursor    = xproto.Cursor
	Colormap  = xproto.Colormap
	VisualID  = xproto.Visualid
	Atom      = xproto.Atom
	Keycode   = xproto.Keycode
	Keysym    = xproto.Keysym
	Timestamp = xproto.Timestamp
	Rectangle = xproto.Rectangle
	Segment   = shm.Seg
	Damage    = damage.Damage
)

// Event is one event, or a *RequestError.
type Event struct {
	// Synthetic is true when another client made the event with SendEvent.
	Synthetic bool

	// Body is one of the event types below, by value, or a *RequestError.
	Body any
}

// The event types; fields are those of the X protocol.
type (
	KeyPressEvent           = xproto.KeyPressEvent
	KeyReleaseEvent         = xproto.KeyReleaseEvent
	ButtonPressEvent        = xproto.ButtonPressEvent
	ButtonReleaseEvent      = xproto.ButtonReleaseEvent
	MotionNotifyEvent       = xproto.MotionNotifyEvent
	EnterNotifyEvent        = xproto.EnterNotifyEvent
	LeaveNotifyEvent        = xproto.LeaveNotifyEvent
	FocusInEvent            = xproto.FocusInEvent
	FocusOutEvent           = xproto.FocusOutEvent
	ExposeEvent             = xproto.ExposeEvent
	CreateNotifyEvent       = xproto.CreateNotifyEvent
	DestroyNotifyEvent      = xproto.DestroyNotifyEvent
	MapNotifyEvent          = xproto.MapNotifyEvent
	UnmapNotifyEvent        = xproto.UnmapNotifyEvent
	MapRequestEvent         = xproto.MapRequestEvent
	ReparentNotifyEvent     = xproto.ReparentNotifyEvent
	ConfigureNotifyEvent    = xproto.ConfigureNotifyEvent
	ConfigureRequestEvent   = xproto.ConfigureRequestEvent
	CirculateRequestEvent   = xproto.CirculateRequestEvent
	PropertyNotifyEvent     = xproto.PropertyNotifyEvent
	ClientMessageEvent      = xproto.ClientMessageEvent
	SelectionClearEvent     = xproto.SelectionClearEvent
	SelectionRequestEvent   = xproto.SelectionRequestEvent
	SelectionNotifyEvent    = xproto.SelectionNotifyEvent
	MappingNotifyEvent      = xproto.MappingNotifyEvent
	DamageNotifyEvent       = damage.NotifyEvent
	CursorNotifyEvent       = xfixes.CursorNotifyEvent
	SelectionOwnerEvent     = xfixes.SelectionNotifyEvent
	ScreenChangeNotifyEvent = randr.ScreenChangeNotifyEvent
)

// RequestError is the server's refusal of a request.
type RequestError struct {
	Text string // the server's words, as xgb renders them
	ID   uint32 // the offending resource or value
	err  error
}

func (e *RequestError) Error() string { return "X request refused: " + e.Text }

func (e *RequestError) Unwrap() error { return e.err }

// BadWindow tells whether the request named a window that no longer exists.
func (e *RequestError) BadWindow() bool {
	switch e.err.(type) {
	case xproto.WindowError, xproto.DrawableError:
		return true
	}
	return false
}

// Error tells which operation on the display failed.
type Error struct {
	Op  string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("x11 %s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Err: err}
}
