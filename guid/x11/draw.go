package x11

import (
	"fmt"

	"github.com/BurntSushi/xgb/xproto"
)

// CreateGC makes a graphics context for drawables of d's depth, without
// GraphicsExposure events. Keep it: resource ids are never reused.
func (c *Conn) CreateGC(d Drawable, foreground uint32) (GC, error) {
	id, err := xproto.NewGcontextId(c.x)
	if err != nil {
		return 0, wrap("create graphics context", err)
	}
	// Children of a window are painted over only with IncludeInferiors.
	xproto.CreateGC(c.x, id, d, xproto.GcForeground|xproto.GcGraphicsExposures, []uint32{foreground, 0})
	return id, nil
}

// CreateCopyGC is CreateGC for copying from windows with what their children
// show (IncludeInferiors).
func (c *Conn) CreateCopyGC(d Drawable) (GC, error) {
	id, err := xproto.NewGcontextId(c.x)
	if err != nil {
		return 0, wrap("create graphics context", err)
	}
	xproto.CreateGC(c.x, id, d, xproto.GcSubwindowMode|xproto.GcGraphicsExposures,
		[]uint32{xproto.SubwindowModeIncludeInferiors, 0})
	return id, nil
}

// FreeGC frees a graphics context.
func (c *Conn) FreeGC(gc GC) { xproto.FreeGC(c.x, gc) }

// SetForeground changes the colour that FillRectangle uses.
func (c *Conn) SetForeground(gc GC, color uint32) {
	xproto.ChangeGC(c.x, gc, xproto.GcForeground, []uint32{color})
}

// FillRectangle fills a rectangle with the foreground of gc.
func (c *Conn) FillRectangle(d Drawable, gc GC, r Rectangle) {
	xproto.PolyFillRectangle(c.x, d, gc, []Rectangle{r})
}

// ClearArea paints a rectangle of a window with its background; width or
// height 0 reach to its edge.
func (c *Conn) ClearArea(w Window, x, y int16, width, height uint16) {
	xproto.ClearArea(c.x, false, w, x, y, width, height)
}

// CopyArea copies pixels between drawables of one depth.
func (c *Conn) CopyArea(src, dst Drawable, gc GC, srcX, srcY, dstX, dstY int16, width, height uint16) {
	xproto.CopyArea(c.x, src, dst, gc, srcX, srcY, dstX, dstY, width, height)
}

// FreePixmap frees a pixmap.
func (c *Conn) FreePixmap(p Pixmap) { xproto.FreePixmap(c.x, p) }

// Image asks for a rectangle of a drawable as 4 bytes a pixel (B, G, R,
// unused), in chunks so that no answer becomes huge.
func (c *Conn) Image(d Drawable, x, y, width, height int) ([]byte, error) {
	const chunk = 1 << 20
	rows := max(1, chunk/(4*max(1, width)))
	var out []byte
	for top := 0; top < height; top += rows {
		n := min(rows, height-top)
		r, err := xproto.GetImage(c.x, xproto.ImageFormatZPixmap, d, int16(x), int16(y+top), uint16(width), uint16(n), ^uint32(0)).Reply()
		if err != nil {
			return nil, wrap(fmt.Sprintf("image of %#x", d), c.orLost(err))
		}
		if len(r.Data) < 4*width*n {
			return nil, wrap(fmt.Sprintf("image of %#x", d), fmt.Errorf("%d bytes for %d×%d pixels", len(r.Data), width, n))
		}
		out = append(out, r.Data[:4*width*n]...)
	}
	return out, nil
}

// GlyphCursor makes the cursor of X's cursor font at an even index, black on
// white. Keep it: resource ids are never reused.
func (c *Conn) GlyphCursor(glyph uint16) (Cursor, error) {
	font, err := xproto.NewFontId(c.x)
	if err != nil {
		return 0, wrap("create cursor", err)
	}
	id, err := xproto.NewCursorId(c.x)
	if err != nil {
		return 0, wrap("create cursor", err)
	}
	xproto.OpenFont(c.x, font, uint16(len("cursor")), "cursor")
	xproto.CreateGlyphCursor(c.x, id, font, font, glyph, glyph+1, 0, 0, 0, 0xffff, 0xffff, 0xffff)
	xproto.CloseFont(c.x, font)
	return id, nil
}
