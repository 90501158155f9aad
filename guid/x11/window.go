package x11

import (
	"encoding/binary"
	"fmt"

	"github.com/BurntSushi/xgb/xproto"
)

// Event masks.
const (
	MaskKeyPress             = xproto.EventMaskKeyPress
	MaskKeyRelease           = xproto.EventMaskKeyRelease
	MaskButtonPress          = xproto.EventMaskButtonPress
	MaskButtonRelease        = xproto.EventMaskButtonRelease
	MaskEnterWindow          = xproto.EventMaskEnterWindow
	MaskLeaveWindow          = xproto.EventMaskLeaveWindow
	MaskPointerMotion        = xproto.EventMaskPointerMotion
	MaskExposure             = xproto.EventMaskExposure
	MaskStructureNotify      = xproto.EventMaskStructureNotify
	MaskSubstructureNotify   = xproto.EventMaskSubstructureNotify
	MaskSubstructureRedirect = xproto.EventMaskSubstructureRedirect
	MaskFocusChange          = xproto.EventMaskFocusChange
	MaskPropertyChange       = xproto.EventMaskPropertyChange
)

// Numbers of X11 that callers compare with.
const (
	NotifyNormal       = xproto.NotifyModeNormal
	NotifyGrab         = xproto.NotifyModeGrab
	NotifyUngrab       = xproto.NotifyModeUngrab
	NotifyWhileGrabbed = xproto.NotifyModeWhileGrabbed

	DetailInferior  = xproto.NotifyDetailInferior
	DetailNonlinear = xproto.NotifyDetailNonlinear
	DetailPointer   = xproto.NotifyDetailPointer

	MapStateUnmapped = xproto.MapStateUnmapped
	MapStateViewable = xproto.MapStateViewable

	PropertyDeleted = xproto.PropertyDelete

	CurrentTime Timestamp = 0

	StackAbove = xproto.StackModeAbove
	StackBelow = xproto.StackModeBelow

	FocusNone        Window = xproto.InputFocusNone
	FocusPointerRoot Window = xproto.InputFocusPointerRoot
)

// Attributes are those attributes of a window that are set; nil leaves one at
// its default or as it is.
type Attributes struct {
	BackPixel        *uint32 // 0x00RRGGBB on a TrueColor visual
	BorderPixel      *uint32
	BitGravity       *uint32 // xproto gravity: 1 is north-west
	OverrideRedirect *bool
	EventMask        *uint32
	Cursor           *Cursor
	Colormap         *Colormap
	SaveUnder        *bool
}

// Ptr returns a pointer to a copy of v, for Attributes and Changes.
func Ptr[T any](v T) *T { return &v }

// values returns the request's mask and list in the order of the protocol.
func (a Attributes) values() (mask uint32, list []uint32) {
	add := func(bit uint32, v uint32) {
		mask |= bit
		list = append(list, v)
	}
	if a.BackPixel != nil {
		add(xproto.CwBackPixel, *a.BackPixel)
	}
	if a.BorderPixel != nil {
		add(xproto.CwBorderPixel, *a.BorderPixel)
	}
	if a.BitGravity != nil {
		add(xproto.CwBitGravity, *a.BitGravity)
	}
	if a.OverrideRedirect != nil {
		add(xproto.CwOverrideRedirect, bit(*a.OverrideRedirect))
	}
	if a.SaveUnder != nil {
		add(xproto.CwSaveUnder, bit(*a.SaveUnder))
	}
	if a.EventMask != nil {
		add(xproto.CwEventMask, *a.EventMask)
	}
	if a.Colormap != nil {
		add(xproto.CwColormap, uint32(*a.Colormap))
	}
	if a.Cursor != nil {
		add(xproto.CwCursor, uint32(*a.Cursor))
	}
	return mask, list
}

func bit(v bool) uint32 {
	if v {
		return 1
	}
	return 0
}

// CreateWindow makes an unmapped InputOutput window without a border, of the
// parent's depth and visual. Width and height must be at least 1.
func (c *Conn) CreateWindow(parent Window, x, y int16, width, height uint16, a Attributes) (Window, error) {
	id, err := xproto.NewWindowId(c.x)
	if err != nil {
		return 0, wrap("create window", err)
	}
	mask, list := a.values()
	xproto.CreateWindow(c.x, xproto.WindowClassCopyFromParent, id, parent, x, y, width, height, 0,
		xproto.WindowClassInputOutput, xproto.WindowClassCopyFromParent, mask, list)
	return id, nil
}

// SetAttributes changes a window's attributes.
func (c *Conn) SetAttributes(w Window, a Attributes) {
	if mask, list := a.values(); mask != 0 {
		xproto.ChangeWindowAttributes(c.x, w, mask, list)
	}
}

// SelectInput selects events on a window and waits for the server's consent,
// which it refuses for SubstructureRedirect when another client has that.
func (c *Conn) SelectInput(w Window, mask uint32) error {
	err := xproto.ChangeWindowAttributesChecked(c.x, w, xproto.CwEventMask, []uint32{mask}).Check()
	return wrap(fmt.Sprintf("select events of window %#x", w), c.orLost(err))
}

// Changes are those parts of a window's configuration that change.
type Changes struct {
	X, Y          *int
	Width, Height *int
	BorderWidth   *int
	Sibling       *Window
	Stack         *uint32 // StackAbove, StackBelow
}

// Configure moves, resizes or restacks a window.
func (c *Conn) Configure(w Window, ch Changes) {
	var mask uint16
	var list []uint32
	add := func(bit uint16, v *int) {
		if v != nil {
			mask |= bit
			list = append(list, uint32(int32(*v)))
		}
	}
	add(xproto.ConfigWindowX, ch.X)
	add(xproto.ConfigWindowY, ch.Y)
	add(xproto.ConfigWindowWidth, ch.Width)
	add(xproto.ConfigWindowHeight, ch.Height)
	add(xproto.ConfigWindowBorderWidth, ch.BorderWidth)
	if ch.Sibling != nil {
		mask |= xproto.ConfigWindowSibling
		list = append(list, uint32(*ch.Sibling))
	}
	if ch.Stack != nil {
		mask |= xproto.ConfigWindowStackMode
		list = append(list, *ch.Stack)
	}
	if mask != 0 {
		xproto.ConfigureWindow(c.x, w, mask, list)
	}
}

// MoveResize places a window within its parent.
func (c *Conn) MoveResize(w Window, x, y, width, height int) {
	c.Configure(w, Changes{X: &x, Y: &y, Width: &width, Height: &height})
}

// Raise puts a window above its siblings.
func (c *Conn) Raise(w Window) { c.Configure(w, Changes{Stack: Ptr[uint32](StackAbove)}) }

// Map shows a window.
func (c *Conn) Map(w Window) { xproto.MapWindow(c.x, w) }

// Unmap hides a window.
func (c *Conn) Unmap(w Window) { xproto.UnmapWindow(c.x, w) }

// Destroy ends a window and its children.
func (c *Conn) Destroy(w Window) { xproto.DestroyWindow(c.x, w) }

// KillClient ends the client that owns a resource.
func (c *Conn) KillClient(resource uint32) { xproto.KillClient(c.x, resource) }

// Reparent moves a window into another parent at x, y.
func (c *Conn) Reparent(w, parent Window, x, y int16) { xproto.ReparentWindow(c.x, w, parent, x, y) }

// Geometry is a window's place within its parent, without its border.
type Geometry struct {
	X, Y, Width, Height int
	BorderWidth         int
	Depth               byte
}

// Geometry asks for the geometry of a window or pixmap.
func (c *Conn) Geometry(d Drawable) (Geometry, error) {
	r, err := xproto.GetGeometry(c.x, d).Reply()
	if err != nil {
		return Geometry{}, wrap(fmt.Sprintf("geometry of %#x", d), c.orLost(err))
	}
	return Geometry{int(r.X), int(r.Y), int(r.Width), int(r.Height), int(r.BorderWidth), r.Depth}, nil
}

// WindowInfo are a window's attributes.
type WindowInfo struct {
	Visual           VisualID
	InputOnly        bool
	OverrideRedirect bool
	MapState         byte // MapStateUnmapped … MapStateViewable
}

// Info asks for a window's attributes.
func (c *Conn) Info(w Window) (WindowInfo, error) {
	r, err := xproto.GetWindowAttributes(c.x, w).Reply()
	if err != nil {
		return WindowInfo{}, wrap(fmt.Sprintf("attributes of window %#x", w), c.orLost(err))
	}
	return WindowInfo{r.Visual, r.Class == xproto.WindowClassInputOnly, r.OverrideRedirect, r.MapState}, nil
}

// Tree asks for a window's parent and its children, bottom to top.
func (c *Conn) Tree(w Window) (parent Window, children []Window, err error) {
	r, err := xproto.QueryTree(c.x, w).Reply()
	if err != nil {
		return 0, nil, wrap(fmt.Sprintf("children of window %#x", w), c.orLost(err))
	}
	return r.Parent, r.Children, nil
}

// Translate converts a point of window src into one of window dst.
func (c *Conn) Translate(src, dst Window, x, y int) (dx, dy int, err error) {
	r, err := xproto.TranslateCoordinates(c.x, src, dst, int16(x), int16(y)).Reply()
	if err != nil {
		return 0, 0, wrap(fmt.Sprintf("translate from window %#x to %#x", src, dst), c.orLost(err))
	}
	return int(r.DstX), int(r.DstY), nil
}

// Pointer asks where the pointer is on the root window, in which of its
// children (0: none), and for the modifiers and buttons.
func (c *Conn) Pointer() (x, y int, child Window, state uint16, err error) {
	r, err := xproto.QueryPointer(c.x, c.Root()).Reply()
	if err != nil {
		return 0, 0, 0, 0, wrap("query pointer", c.orLost(err))
	}
	return int(r.RootX), int(r.RootY), r.Child, r.Mask, nil
}

// WarpPointer moves the pointer to a place on the root window.
func (c *Conn) WarpPointer(x, y int) {
	xproto.WarpPointer(c.x, 0, c.Root(), 0, 0, 0, 0, int16(x), int16(y))
}

// SetInputFocus gives the keyboard to a window; it goes to whatever
// is under the pointer when the window vanishes.
func (c *Conn) SetInputFocus(w Window, t Timestamp) {
	xproto.SetInputFocus(c.x, xproto.InputFocusPointerRoot, w, t)
}

// InputFocus asks which window has the keyboard.
func (c *Conn) InputFocus() (Window, error) {
	r, err := xproto.GetInputFocus(c.x).Reply()
	if err != nil {
		return 0, wrap("query input focus", c.orLost(err))
	}
	return r.Focus, nil
}

// SendClientMessage sends a message of five words, about window w, to dst.
func (c *Conn) SendClientMessage(dst, w Window, typ Atom, mask uint32, words [5]uint32) {
	ev := ClientMessageEvent{Format: 32, Window: w, Type: typ, Data: xproto.ClientMessageDataUnionData32New(words[:])}
	xproto.SendEvent(c.x, false, dst, mask, string(ev.Bytes()))
}

// SendConfigureNotify tells a client about its window's place on the root, as
// a window manager does (ICCCM §4.1.5).
func (c *Conn) SendConfigureNotify(w Window, x, y, width, height int) {
	ev := ConfigureNotifyEvent{Event: w, Window: w, X: int16(x), Y: int16(y), Width: uint16(width), Height: uint16(height)}
	xproto.SendEvent(c.x, false, w, MaskStructureNotify, string(ev.Bytes()))
}

// SelectionOwner asks who owns a selection, 0 for nobody.
func (c *Conn) SelectionOwner(selection Atom) (Window, error) {
	r, err := xproto.GetSelectionOwner(c.x, selection).Reply()
	if err != nil {
		return 0, wrap("query selection owner", c.orLost(err))
	}
	return r.Owner, nil
}

// SetSelectionOwner takes a selection for a window of ours.
func (c *Conn) SetSelectionOwner(w Window, selection Atom, t Timestamp) {
	xproto.SetSelectionOwner(c.x, w, selection, t)
}

// ConvertSelection asks a selection's owner for its data in a property of w.
func (c *Conn) ConvertSelection(w Window, selection, target, property Atom, t Timestamp) {
	xproto.ConvertSelection(c.x, w, selection, target, property, t)
}

// SendSelectionNotify answers a request for a selection.
func (c *Conn) SendSelectionNotify(ev SelectionNotifyEvent) {
	xproto.SendEvent(c.x, false, ev.Requestor, 0, string(ev.Bytes()))
}

// GrabServer keeps other clients' requests waiting until UngrabServer.
func (c *Conn) GrabServer() { xproto.GrabServer(c.x) }

// UngrabServer ends GrabServer.
func (c *Conn) UngrabServer() { xproto.UngrabServer(c.x) }

// Words are the five words of a client message of format 32.
func Words(ev ClientMessageEvent) [5]uint32 {
	var words [5]uint32
	if ev.Format != 32 {
		return words
	}
	b := ev.Data.Bytes()
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return words
}
