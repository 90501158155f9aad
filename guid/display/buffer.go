package display

import (
	"errors"
	"fmt"
	"math"
	"os"

	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"

	"golang.org/x/sys/unix"
)

// painter is a buffer that this package can paint.
type painter interface {
	window.Buffer
	paint(s *Display, to x11.Window, src window.Rect, x, y int)
}

var _ window.Buffers = (*Buffers)(nil)

// Buffers opens what dumps name: images in the one pixel region of the qube.
type Buffers struct {
	segment x11.Segment
	size    uint64 // of the region in bytes, 0: the qube has none
}

// errNoGrants is the answer to an agent that shares its pages by grants.
var errNoGrants = errors.New("grant references need Xen: this machine cannot map them")

// AttachRegion attaches a qube's pixel region to the X server, read-only, and
// returns the buffers in it. A nil region is a qube without one. The file may
// be closed afterwards.
func (s *Display) AttachRegion(region *os.File) (*Buffers, error) {
	if region == nil {
		return &Buffers{}, nil
	}
	info, err := region.Stat()
	if err != nil {
		return nil, fmt.Errorf("attach the pixel region: %w", err)
	}
	// PutImage has offsets of 32 bits.
	if info.Size() <= 0 || info.Size() > math.MaxUint32 {
		return nil, fmt.Errorf("attach the pixel region: a size of %d bytes", info.Size())
	}
	seals, err := unix.FcntlInt(region.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("attach the pixel region: read its seals: %w", err)
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return nil, errors.New("attach the pixel region: it is not sealed against shrinking")
	}
	seg, err := s.c.AttachSegment(region, true)
	if err != nil {
		return nil, err
	}
	return &Buffers{segment: seg, size: uint64(info.Size())}, nil
}

// Open checks a dump against the region.
func (b *Buffers) Open(dump wire.WindowDump) (window.Buffer, error) {
	if dump.Kind == wire.DumpGrants {
		if err := window.CheckGrantDump(dump); err != nil {
			return nil, err
		}
		return nil, errNoGrants
	}
	if b.size == 0 {
		return nil, errors.New("this qube was given no pixel region")
	}
	image, err := window.CheckRegionDump(dump, b.size)
	if err != nil {
		return nil, err
	}
	return &regionImage{b.segment, image}, nil
}

// regionImage is an image in the attached region.
type regionImage struct {
	segment x11.Segment
	image   window.Image
}

func (r *regionImage) Size() window.Size { return r.image.Size }

func (r *regionImage) Close() {} // the region stays attached

func (r *regionImage) paint(s *Display, to x11.Window, src window.Rect, x, y int) {
	s.c.ShmPutImage(x11.Drawable(to), s.gc, x11.ShmImage{
		Segment: r.segment,
		Offset:  uint32(r.image.Offset),
		Width:   uint16(r.image.Stride / 4),
		Height:  uint16(r.image.Size.Height),
	}, x11.Rectangle{X: int16(src.X), Y: int16(src.Y), Width: uint16(src.Width), Height: uint16(src.Height)}, int16(x), int16(y))
}
