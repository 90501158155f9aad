// Package window is what dom0 makes of a qube's windows: a Session reads the
// agent's messages and the local display's events and decides.
//
//	agent ──wire.Message──▶ Session ──Display──▶ dom0's screen
//	agent ◀──wire.Message── Session ◀──Local…─── its events
//
// What comes from the agent is hostile: it is of types from guid/wire and
// becomes one of this package's (Geometry, Hints, a title) only through
// check.go and text.go. A window is known by the agent's id alone; a Display
// maps ids of this one agent to windows of its own, so that ids of different
// qubes never mix and no id of dom0's display ever reaches a qube.
//
// An error of a Session's method is the end of the session: an offence of the
// agent (spec/gui-protocol.md §18) or the loss of either side.
package window

import (
	"fmt"

	"cubicle/guid/wire"
)

// Geometry is the place of a window's content, without its frame, on dom0's
// root window, in pixels. Width and Height are at least 1.
type Geometry struct{ X, Y, Width, Height int }

// State are the states of a window that both sides know, as bits of
// wire.WindowFlags, and those that only dom0 has.
type State struct {
	Fullscreen, Attention, Hidden bool
	Maximized                     bool // in both directions
}

// Hints are size hints that make sense; nil groups are not set. Sizes are the
// content's.
type Hints struct {
	UserPosition, ProgramPosition bool
	Min, Max, Increment, Base     *Size
}

// Size is a width and a height in pixels.
type Size struct{ Width, Height int }

// Rect is a rectangle of a window or an image, in pixels.
type Rect struct{ X, Y, Width, Height int }

// Empty tells whether the rectangle has no pixel.
func (r Rect) Empty() bool { return r.Width <= 0 || r.Height <= 0 }

// Intersect returns the common part of both rectangles, maybe an empty one.
func (r Rect) Intersect(o Rect) Rect {
	x, y := max(r.X, o.X), max(r.Y, o.Y)
	return Rect{x, y, min(r.X+r.Width, o.X+o.Width) - x, min(r.Y+r.Height, o.Y+o.Height) - y}
}

// Contains tells whether o lies within the rectangle.
func (r Rect) Contains(o Rect) bool {
	return o.X >= r.X && o.Y >= r.Y && o.X+o.Width <= r.X+r.Width && o.Y+o.Height <= r.Y+r.Height
}

// Union returns the smallest rectangle around both.
func (r Rect) Union(o Rect) Rect {
	x, y := min(r.X, o.X), min(r.Y, o.Y)
	return Rect{x, y, max(r.X+r.Width, o.X+o.Width) - x, max(r.Y+r.Height, o.Y+o.Height) - y}
}

// Buffer are the pixels of a window that an agent shares. They may change at
// any moment and are never read as anything but pixels.
type Buffer interface {
	// Size is the image's size in pixels, at least 1×1 and at most the
	// protocol's limits.
	Size() Size

	// Close gives the pixels back; the Buffer is not used afterwards.
	Close()
}

// Buffers opens what a WINDOW_DUMP names.
type Buffers interface {
	// Open checks the dump against what is shared, in 64-bit arithmetic, and
	// maps it for reading only. An error ends the session.
	Open(dump wire.WindowDump) (Buffer, error)
}

// Display is dom0's screen as a Session needs it. A window is a frame in the
// label's colour around the content. No method waits for the agent; failures
// of the display itself surface where its events are read.
type Display interface {
	// Create makes a hidden window. An error ends the session.
	Create(id wire.WindowID, g Geometry, override bool) error
	Destroy(id wire.WindowID)

	// Show makes a window visible. An override-redirect one comes on top of
	// all windows but screen lockers (spec/gui-protocol.md §11.3).
	Show(id wire.WindowID, override bool)
	Hide(id wire.WindowID)

	// SetOverride changes override-redirect of a hidden window.
	SetOverride(id wire.WindowID, override bool)

	// Place asks for the content to come to g; a window manager may differ.
	Place(id wire.WindowID, g Geometry)

	SetTitle(id wire.WindowID, title Text)
	SetClass(id wire.WindowID, instance, class Text)
	SetHints(id wire.WindowID, h Hints)

	// SetTransientFor names the window that this one belongs to; nil: none.
	SetTransientFor(id wire.WindowID, of *wire.WindowID)

	// SetCursor sets the pointer's shape.
	SetCursor(id wire.WindowID, glyph Glyph)

	// SetState replaces the wished state of a hidden window.
	SetState(id wire.WindowID, s State)

	// ChangeState asks the window manager to add or remove those states that
	// are true in s.
	ChangeState(id wire.WindowID, add bool, s State)
	Iconify(id wire.WindowID)

	// Paint copies a rectangle of the image, which lies within it, to (x, y)
	// of the content.
	Paint(id wire.WindowID, b Buffer, src Rect, x, y int)

	// Bounds are the present limits of the screen.
	Bounds() Bounds

	// KeysDown are the keys that are down: bit k%8 of byte k/8.
	KeysDown() [32]byte
}

// Agent takes messages for the agent, without blocking.
type Agent interface {
	Send(id wire.WindowID, m wire.Message) error
}

// OffenceError is a message of the agent that dom0 does not accept.
type OffenceError struct {
	Message wire.Type
	Window  wire.WindowID
	Reason  string
}

func (e *OffenceError) Error() string {
	return fmt.Sprintf("%v for window %#x: %s", e.Message, uint32(e.Window), e.Reason)
}

func offence(t wire.Type, id wire.WindowID, format string, args ...any) error {
	return &OffenceError{t, id, fmt.Sprintf(format, args...)}
}
