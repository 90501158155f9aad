package gui

import (
	"encoding/binary"
	"hash/fnv"

	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

// cursors recognises the shapes of the pointer.
type cursors struct {
	byShape map[uint64]uint32 // shapeOf → index of X's cursor font
	byName  map[string]uint32
	asking  bool
	again   bool
	found   chan pointerShape
}

// pointerShape is what the pointer looked like, over which window.
type pointerShape struct {
	image x11.CursorImage
	over  x11.Window
	err   error
}

// learnCursors shows each cursor of X's font once, to an empty screen, and
// notes how it looks: clients without a cursor theme use these, unnamed.
func (a *Agent) learnCursors() {
	a.cursors = cursors{byShape: make(map[uint64]uint32), byName: cursorNames(), found: make(chan pointerShape, 1)}
	x, y, _, _, err := a.x.Pointer()
	if err != nil {
		return
	}
	a.x.Configure(a.shield, x11.Changes{X: &x, Y: &y, Stack: x11.Ptr[uint32](x11.StackAbove)})
	a.x.Map(a.shield)
	for i := range fontCursors {
		glyph := uint16(2 * i)
		cursor, err := a.x.GlyphCursor(glyph)
		if err != nil {
			break
		}
		a.x.SetAttributes(a.shield, x11.Attributes{Cursor: &cursor})
		image, err := a.x.CursorImage()
		if err != nil {
			break
		}
		a.cursors.byShape[shapeOf(image)] = uint32(glyph)
	}
	a.x.SetAttributes(a.shield, x11.Attributes{Cursor: x11.Ptr[x11.Cursor](0)})
	a.x.Unmap(a.shield)
}

// shapeOf identifies a cursor by its outline: clients colour them as they like.
func shapeOf(c x11.CursorImage) uint64 {
	h := fnv.New64a()
	var b []byte
	for _, v := range []int{c.Width, c.Height, c.HotX, c.HotY} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	for _, p := range c.Pixels {
		b = append(b, byte(bit(p>>24 >= 0x80)))
	}
	h.Write(b)
	return h.Sum64()
}

// lookAtCursor asks what the pointer looks like and where it is, without
// keeping the loop waiting.
func (a *Agent) lookAtCursor() {
	if a.cursors.asking {
		a.cursors.again = true
		return
	}
	a.cursors.asking = true
	go func() {
		var s pointerShape
		if s.image, s.err = a.x.CursorImage(); s.err == nil {
			_, _, s.over, _, s.err = a.x.Pointer()
		}
		a.cursors.found <- s
	}()
}

// onCursor tells dom0 how the pointer looks over a window.
func (a *Agent) onCursor(s pointerShape) {
	a.cursors.asking = false
	if a.cursors.again {
		a.cursors.again = false
		a.lookAtCursor()
	}
	w := a.byX[s.over]
	if s.err != nil || w == nil || a.session == nil {
		return
	}
	if c := a.cursors.number(s.image); c != w.cursor {
		w.cursor = c
		a.send(w, wire.Cursor{Cursor: c})
	}
}

// number is a shape as it travels: 0 for one that X's cursor font lacks.
func (c *cursors) number(image x11.CursorImage) uint32 {
	if glyph, ok := c.byName[image.Name]; ok {
		return wire.CursorX11 | glyph
	}
	if glyph, ok := c.byShape[shapeOf(image)]; ok {
		return wire.CursorX11 | glyph
	}
	return wire.CursorDefault
}

// cursorNames gives the glyph for each name that is known.
func cursorNames() map[string]uint32 {
	names := make(map[string]uint32)
	for i, name := range fontCursors {
		names[name] = uint32(2 * i)
	}
	for css, name := range cssCursors {
		names[css] = names[name]
	}
	return names
}

// fontCursors are the names of X's cursor font; the glyph of number i is 2·i.
var fontCursors = [...]string{
	"X_cursor", "arrow", "based_arrow_down", "based_arrow_up", "boat", "bogosity", "bottom_left_corner",
	"bottom_right_corner", "bottom_side", "bottom_tee", "box_spiral", "center_ptr", "circle", "clock", "coffee_mug",
	"cross", "cross_reverse", "crosshair", "diamond_cross", "dot", "dotbox", "double_arrow", "draft_large",
	"draft_small", "draped_box", "exchange", "fleur", "gobbler", "gumby", "hand1", "hand2", "heart", "icon",
	"iron_cross", "left_ptr", "left_side", "left_tee", "leftbutton", "ll_angle", "lr_angle", "man", "middlebutton",
	"mouse", "pencil", "pirate", "plus", "question_arrow", "right_ptr", "right_side", "right_tee", "rightbutton",
	"rtl_logo", "sailboat", "sb_down_arrow", "sb_h_double_arrow", "sb_left_arrow", "sb_right_arrow", "sb_up_arrow",
	"sb_v_double_arrow", "shuttle", "sizing", "spider", "spraycan", "star", "target", "tcross", "top_left_arrow",
	"top_left_corner", "top_right_corner", "top_side", "top_tee", "trek", "ul_angle", "umbrella", "ur_angle", "watch",
	"xterm",
}

// cssCursors are the names of CSS and of cursor themes, as cursors of X's font.
var cssCursors = map[string]string{
	"default": "left_ptr", "context-menu": "left_ptr", "copy": "left_ptr", "alias": "left_ptr",
	"dnd-copy": "left_ptr", "dnd-link": "left_ptr", "dnd-move": "fleur", "dnd-none": "left_ptr",
	"pointer": "hand2", "pointing_hand": "hand2", "hand": "hand2", "grab": "hand1", "openhand": "hand1",
	"grabbing": "fleur", "closedhand": "fleur", "move": "fleur", "all-scroll": "fleur", "size_all": "fleur",
	"text": "xterm", "ibeam": "xterm", "vertical-text": "xterm",
	"wait": "watch", "progress": "watch", "left_ptr_watch": "watch", "half-busy": "watch",
	"help": "question_arrow", "whats_this": "question_arrow", "left_ptr_help": "question_arrow",
	"cell": "plus", "crosshair": "crosshair", "not-allowed": "circle", "no-drop": "circle", "forbidden": "circle",
	"crossed_circle": "circle",
	"n-resize":       "top_side", "s-resize": "bottom_side", "e-resize": "right_side", "w-resize": "left_side",
	"ne-resize": "top_right_corner", "nw-resize": "top_left_corner", "se-resize": "bottom_right_corner",
	"sw-resize": "bottom_left_corner", "ew-resize": "sb_h_double_arrow", "ns-resize": "sb_v_double_arrow",
	"nesw-resize": "top_right_corner", "nwse-resize": "bottom_right_corner", "size_hor": "sb_h_double_arrow",
	"size_ver": "sb_v_double_arrow", "size_bdiag": "top_right_corner", "size_fdiag": "bottom_right_corner",
	"col-resize": "sb_h_double_arrow", "row-resize": "sb_v_double_arrow", "split_h": "sb_h_double_arrow",
	"split_v": "sb_v_double_arrow", "h_double_arrow": "sb_h_double_arrow", "v_double_arrow": "sb_v_double_arrow",
	"up-arrow": "sb_up_arrow", "color-picker": "crosshair", "pencil": "pencil",
}
