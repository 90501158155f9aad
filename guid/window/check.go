package window

import (
	"errors"
	"fmt"
	"math"

	"cubicle/guid/wire"
)

// This file and text.go are the only ways from a qube's numbers and texts to
// values that dom0 acts on (spec/gui-protocol.md §7, §9, §10.1, §18): a
// Session never sees a message of the agent, only what check has made of it.

// wish is a message of the agent whose values have been judged: one of the
// types below.
type wish interface{ isWish() }

type (
	createWish struct {
		place    Geometry
		override bool
	}
	destroyWish struct{}
	mapWish     struct {
		transientFor wire.WindowID // names a window only if the agent has one
		override     bool
	}
	unmapWish     struct{}
	configureWish struct{ place Geometry }
	damageWish    struct{ area Rect } // maybe empty, or larger than the window
	titleWish     struct{ text Text }
	classWish     struct{ instance, class Text }
	hintsWish     struct{ hints Hints }
	flagsWish     struct{ set, unset uint32 } // known bits, none in both
	dumpWish      struct{ buffer Buffer }
	cursorWish    struct{ glyph Glyph }
	dockWish      struct{}
	nothingWish   struct{} // to be ignored whatever window it names
)

func (createWish) isWish()    {}
func (destroyWish) isWish()   {}
func (mapWish) isWish()       {}
func (unmapWish) isWish()     {}
func (configureWish) isWish() {}
func (damageWish) isWish()    {}
func (titleWish) isWish()     {}
func (classWish) isWish()     {}
func (hintsWish) isWish()     {}
func (flagsWish) isWish()     {}
func (dumpWish) isWish()      {}
func (cursorWish) isWish()    {}
func (dockWish) isWish()      {}
func (nothingWish) isWish()   {}

// check judges a message of the agent. Every error is an offence. A buffer in
// the result is the caller's to close.
func check(m wire.Message, cfg Config, buffers Buffers) (wish, error) {
	switch m := m.(type) {
	case wire.Create:
		g, err := checkGeometry(m.X, m.Y, m.Width, m.Height)
		return createWish{g, m.OverrideRedirect != 0}, err
	case wire.Destroy:
		return destroyWish{}, nil
	case wire.Map:
		return mapWish{wire.WindowID(m.TransientFor), m.OverrideRedirect != 0}, nil
	case wire.Unmap:
		return unmapWish{}, nil
	case wire.Configure:
		g, err := checkConfigure(m)
		return configureWish{g}, err
	case wire.ShmImage:
		return damageWish{checkDamage(m)}, nil
	case wire.WMName:
		return titleWish{cleanText(firstText(m.Text[:]), cfg.AllowUTF8Titles)}, nil
	case wire.WMClass:
		return classWish{cleanText(firstText(m.Name[:]), false), cleanText(firstText(m.Class[:]), false)}, nil
	case wire.WindowHints:
		return hintsWish{checkHints(m)}, nil
	case wire.WindowFlags:
		set, unset, err := checkFlags(m)
		return flagsWish{set, unset}, err
	case wire.WindowDump:
		b, err := buffers.Open(m)
		return dumpWish{b}, err
	case wire.Cursor:
		glyph, err := checkCursor(m)
		return cursorWish{glyph}, err
	case wire.Dock:
		return dockWish{}, nil
	case wire.ClipboardData:
		return nothingWish{}, nil // nobody asked: consumed and forgotten (§14.2)
	}
	return nil, errors.New("an agent does not send this")
}

// checkGeometry clamps a place and a size. Sizes that are no sizes are an
// error.
func checkGeometry(x, y int32, width, height uint32) (Geometry, error) {
	if width > math.MaxInt32 || height > math.MaxInt32 {
		return Geometry{}, fmt.Errorf("negative size %d×%d", int32(width), int32(height))
	}
	if width == 0 || height == 0 {
		return Geometry{}, fmt.Errorf("empty size %d×%d", width, height)
	}
	return Geometry{
		X:      clamp(x, wire.MaxWindowWidth),
		Y:      clamp(y, wire.MaxWindowHeight),
		Width:  int(min(width, wire.MaxWindowWidth)),
		Height: int(min(height, wire.MaxWindowHeight)),
	}, nil
}

// checkConfigure is checkGeometry as CONFIGURE has it: sizes are unsigned and
// clamped first.
func checkConfigure(m wire.Configure) (Geometry, error) {
	return checkGeometry(m.X, m.Y, min(m.Width, wire.MaxWindowWidth), min(m.Height, wire.MaxWindowHeight))
}

func clamp(v int32, limit int) int { return max(-limit, min(limit, int(v))) }

// checkDamage returns the rectangle of a SHMIMAGE, an empty one for what is to
// be ignored. Width and height stay below 2^31, so sums of two fit an int.
func checkDamage(m wire.ShmImage) Rect {
	if m.X < 0 || m.Y < 0 || m.Width > math.MaxInt32 || m.Height > math.MaxInt32 {
		return Rect{}
	}
	return Rect{int(m.X), int(m.Y), int(m.Width), int(m.Height)}
}

// checkHints keeps the groups of hints that make sense.
func checkHints(m wire.WindowHints) Hints {
	const maxW, maxH = wire.MaxWindowWidth, wire.MaxWindowHeight
	h := Hints{
		UserPosition:    m.Flags&wire.HintUSPosition != 0,
		ProgramPosition: m.Flags&wire.HintPPosition != 0,
	}
	size := func(width, height uint32) *Size { return &Size{int(width), int(height)} }
	if m.Flags&wire.HintPMinSize != 0 && m.MinWidth <= maxW && m.MinHeight <= maxH {
		h.Min = size(m.MinWidth, m.MinHeight)
	}
	if m.Flags&wire.HintPMaxSize != 0 && m.MaxWidth > 0 && m.MaxHeight > 0 && m.MaxWidth <= maxW && m.MaxHeight <= maxH {
		h.Max = size(m.MaxWidth, m.MaxHeight)
	}
	if h.Min != nil && h.Max != nil && (h.Min.Width > h.Max.Width || h.Min.Height > h.Max.Height) {
		h.Max = nil // some window managers loop over such a pair
	}
	if m.Flags&wire.HintPResizeInc != 0 && m.WidthInc > 0 && m.HeightInc > 0 && m.WidthInc < maxW && m.HeightInc < maxH {
		h.Increment = size(m.WidthInc, m.HeightInc)
	}
	if m.Flags&wire.HintPBaseSize != 0 && m.BaseWidth <= maxW && m.BaseHeight <= maxH {
		h.Base = size(m.BaseWidth, m.BaseHeight)
	}
	return h
}

// Glyph is an even index of X's cursor font, or DefaultCursor.
type Glyph int

// DefaultCursor is the pointer's usual shape.
const DefaultCursor Glyph = -1

// checkCursor returns the glyph that a qube names.
func checkCursor(m wire.Cursor) (Glyph, error) {
	switch {
	case m.Cursor == wire.CursorDefault:
		return DefaultCursor, nil
	case m.Cursor&wire.CursorX11 == 0 || m.Cursor >= wire.CursorX11End:
		return 0, fmt.Errorf("there is no cursor %#x", m.Cursor)
	case m.Cursor%2 != 0: // the glyphs between are masks
		return DefaultCursor, nil
	}
	return Glyph(m.Cursor &^ wire.CursorX11), nil
}

const knownFlags = wire.FlagFullscreen | wire.FlagDemandsAttention | wire.FlagMinimize

// checkFlags returns the known bits to set and to unset.
func checkFlags(m wire.WindowFlags) (set, unset uint32, err error) {
	if m.Set&m.Unset != 0 {
		return 0, 0, fmt.Errorf("flags %#x are set and unset at once", m.Set&m.Unset)
	}
	return m.Set & knownFlags, m.Unset & (wire.FlagFullscreen | wire.FlagDemandsAttention), nil
}

// Image is an image in a pixel region, proven to lie within it.
type Image struct {
	Offset uint64 // bytes from the region's start, a multiple of 4
	Stride int    // bytes from one row to the next, a multiple of 4
	Size   Size
}

// CheckRegionDump returns the image that a dump of kind DumpRegion names in a
// region of regionSize bytes. Any error ends the session.
func CheckRegionDump(d wire.WindowDump, regionSize uint64) (Image, error) {
	if d.Kind != wire.DumpRegion {
		return Image{}, fmt.Errorf("dump kind %d names no place in a region", d.Kind)
	}
	if err := checkImageSize(d); err != nil {
		return Image{}, err
	}
	switch {
	case d.Stride%4 != 0 || d.Offset%4 != 0:
		return Image{}, fmt.Errorf("offset %d or stride %d is not a multiple of 4", d.Offset, d.Stride)
	case d.Stride < 4*d.Width:
		return Image{}, fmt.Errorf("stride %d is too short for %d pixels", d.Stride, d.Width)
	case d.Stride > 4*math.MaxUint16:
		return Image{}, fmt.Errorf("stride %d is too long", d.Stride)
	}
	bytes := uint64(d.Stride) * uint64(d.Height) // below 2^31, whatever the qube says
	if bytes > regionSize || d.Offset > regionSize-bytes {
		return Image{}, fmt.Errorf("%d bytes at offset %d leave the region of %d bytes", bytes, d.Offset, regionSize)
	}
	return Image{d.Offset, int(d.Stride), Size{int(d.Width), int(d.Height)}}, nil
}

// checkImageSize judges the size of a dump's image.
func checkImageSize(d wire.WindowDump) error {
	if d.Width == 0 || d.Height == 0 {
		return errors.New("an empty image")
	}
	if d.Width > wire.MaxWindowWidth || d.Height > wire.MaxWindowHeight {
		return fmt.Errorf("an image of %d×%d", d.Width, d.Height)
	}
	return nil
}

// CheckGrantDump judges a dump of kind DumpGrants before anything is mapped.
// Any error ends the session.
func CheckGrantDump(d wire.WindowDump) error {
	if d.Kind != wire.DumpGrants {
		return fmt.Errorf("dump kind %d has no grants", d.Kind)
	}
	if err := checkImageSize(d); err != nil {
		return err
	}
	if have, want := uint64(len(d.Grants))*wire.PageSize, uint64(d.Width)*uint64(d.Height)*4; have < want {
		return fmt.Errorf("%d pages for an image of %d bytes", len(d.Grants), want)
	}
	return nil
}
