package x11

import (
	"errors"
	"fmt"
	"os"

	"github.com/BurntSushi/xgb"
	"github.com/BurntSushi/xgb/composite"
	"github.com/BurntSushi/xgb/damage"
	"github.com/BurntSushi/xgb/randr"
	"github.com/BurntSushi/xgb/shm"
	"github.com/BurntSushi/xgb/xfixes"
	"github.com/BurntSushi/xgb/xproto"
	"github.com/BurntSushi/xgb/xtest"
)

// initExtension does for one connection what xgb's own Init functions do, but
// for xgb's process-wide tables, which stay untouched.
func (c *Conn) initExtension(name string) error {
	r, err := xproto.QueryExtension(c.x, uint16(len(name)), name).Reply()
	if err != nil {
		return c.orLost(err)
	}
	if !r.Present {
		return errors.New("the X server lacks it")
	}
	c.mu.Lock()
	for n, parse := range xgb.NewExtEventFuncs[name] {
		c.extEvents[r.FirstEvent+byte(n)] = parse
	}
	c.mu.Unlock()
	if name == "MIT-SHM" {
		c.stream.shmMajor.Store(uint32(r.MajorOpcode))
	}
	c.x.ExtLock.Lock()
	c.x.Extensions[name] = r.MajorOpcode
	c.x.ExtLock.Unlock()
	return nil
}

// InitShm switches MIT-SHM on, version 1.2 or later (descriptors).
func (c *Conn) InitShm() error {
	return wrap("MIT-SHM extension", c.initVersion("MIT-SHM", 1, 2, func() (uint32, uint32, error) {
		r, err := shm.QueryVersion(c.x).Reply()
		if err != nil {
			return 0, 0, err
		}
		return uint32(r.MajorVersion), uint32(r.MinorVersion), nil
	}))
}

// InitComposite switches Composite on, version 0.2 or later.
func (c *Conn) InitComposite() error {
	return wrap("Composite extension", c.initVersion("Composite", 0, 2, func() (uint32, uint32, error) {
		r, err := composite.QueryVersion(c.x, 0, 4).Reply()
		if err != nil {
			return 0, 0, err
		}
		return r.MajorVersion, r.MinorVersion, nil
	}))
}

// InitDamage switches Damage on, version 1.1 or later.
func (c *Conn) InitDamage() error {
	return wrap("DAMAGE extension", c.initVersion("DAMAGE", 1, 1, func() (uint32, uint32, error) {
		r, err := damage.QueryVersion(c.x, 1, 1).Reply()
		if err != nil {
			return 0, 0, err
		}
		return r.MajorVersion, r.MinorVersion, nil
	}))
}

// InitXFixes switches XFIXES on, version 4 or later.
func (c *Conn) InitXFixes() error {
	return wrap("XFIXES extension", c.initVersion("XFIXES", 4, 0, func() (uint32, uint32, error) {
		r, err := xfixes.QueryVersion(c.x, 4, 0).Reply()
		if err != nil {
			return 0, 0, err
		}
		return r.MajorVersion, r.MinorVersion, nil
	}))
}

// InitRandR switches RANDR on, version 1.2 or later.
func (c *Conn) InitRandR() error {
	return wrap("RANDR extension", c.initVersion("RANDR", 1, 2, func() (uint32, uint32, error) {
		r, err := randr.QueryVersion(c.x, 1, 3).Reply()
		if err != nil {
			return 0, 0, err
		}
		return r.MajorVersion, r.MinorVersion, nil
	}))
}

// InitXTest switches XTEST on, version 2.2 or later.
func (c *Conn) InitXTest() error {
	return wrap("XTEST extension", c.initVersion("XTEST", 2, 2, func() (uint32, uint32, error) {
		r, err := xtest.GetVersion(c.x, 2, 2).Reply()
		if err != nil {
			return 0, 0, err
		}
		return uint32(r.MajorVersion), uint32(r.MinorVersion), nil
	}))
}

func (c *Conn) initVersion(name string, major, minor uint32, query func() (uint32, uint32, error)) error {
	if err := c.initExtension(name); err != nil {
		return err
	}
	gotMajor, gotMinor, err := query()
	if err != nil {
		return c.orLost(err)
	}
	if gotMajor < major || gotMajor == major && gotMinor < minor {
		return fmt.Errorf("the X server has version %d.%d, needed is %d.%d", gotMajor, gotMinor, major, minor)
	}
	return nil
}

// AttachSegment gives the server a memory file: for reading only in dom0, for
// writing too in a qube. The file may be closed afterwards. Needs InitShm.
func (c *Conn) AttachSegment(memory *os.File, readOnly bool) (Segment, error) {
	seg, err := shm.NewSegId(c.x)
	if err != nil {
		return 0, wrap("attach memory", err)
	}
	raw, err := memory.SyscallConn()
	if err != nil {
		return 0, wrap("attach memory", err)
	}
	c.attachMu.Lock()
	defer c.attachMu.Unlock()
	var attach error
	err = raw.Control(func(fd uintptr) {
		c.stream.addFD(int(fd))
		attach = shm.AttachFdChecked(c.x, seg, readOnly).Check()
	})
	if err == nil {
		err = c.orLost(attach)
	}
	if err != nil {
		return 0, wrap("attach memory "+memory.Name(), err)
	}
	return seg, nil
}

// DetachSegment takes a memory file back.
func (c *Conn) DetachSegment(seg Segment) { shm.Detach(c.x, seg) }

// ShmImage names an image in a segment, of 32 bits a pixel and depth 24, rows
// without gaps.
type ShmImage struct {
	Segment       Segment
	Offset        uint32 // bytes from the segment's start
	Width, Height uint16 // of the whole image in pixels
}

// ShmPutImage copies the rectangle src of an image to (dstX, dstY) of d. The
// server refuses an image or rectangle that leaves the segment or the image.
func (c *Conn) ShmPutImage(d Drawable, gc GC, img ShmImage, src Rectangle, dstX, dstY int16) {
	shm.PutImage(c.x, d, gc, img.Width, img.Height, uint16(src.X), uint16(src.Y), src.Width, src.Height,
		dstX, dstY, 24, xproto.ImageFormatZPixmap, 0, img.Segment, img.Offset)
}

// ShmPixmap makes a pixmap whose pixels lie in a segment at offset, rows
// without gaps, for a screen like that of d.
func (c *Conn) ShmPixmap(d Drawable, width, height uint16, depth byte, seg Segment, offset uint32) (Pixmap, error) {
	id, err := xproto.NewPixmapId(c.x)
	if err != nil {
		return 0, wrap("create shared pixmap", err)
	}
	err = shm.CreatePixmapChecked(c.x, id, d, width, height, depth, seg, offset).Check()
	if err != nil {
		return 0, wrap("create shared pixmap", c.orLost(err))
	}
	return id, nil
}

// RedirectSubwindows keeps all children of w in memory of their own instead of
// on the screen. One client per window may: another one's is an error. Needs
// InitComposite.
func (c *Conn) RedirectSubwindows(w Window) error {
	err := composite.RedirectSubwindowsChecked(c.x, w, composite.RedirectManual).Check()
	return wrap(fmt.Sprintf("redirect the children of window %#x", w), c.orLost(err))
}

// NameWindowPixmap names the memory of a redirected, viewable window. It stays
// that of the window's present size; includes the border.
func (c *Conn) NameWindowPixmap(w Window) (Pixmap, error) {
	id, err := xproto.NewPixmapId(c.x)
	if err != nil {
		return 0, wrap("name window pixmap", err)
	}
	err = composite.NameWindowPixmapChecked(c.x, w, id).Check()
	if err != nil {
		return 0, wrap(fmt.Sprintf("name the pixmap of window %#x", w), c.orLost(err))
	}
	return id, nil
}

// Levels of damage reports.
const (
	DamageRawRectangles   = damage.ReportLevelRawRectangles
	DamageDeltaRectangles = damage.ReportLevelDeltaRectangles
	DamageBoundingBox     = damage.ReportLevelBoundingBox
	DamageNonEmpty        = damage.ReportLevelNonEmpty
)

// CreateDamage reports changes of a drawable as DamageNotifyEvent. Needs
// InitDamage.
func (c *Conn) CreateDamage(d Drawable, level byte) (Damage, error) {
	id, err := damage.NewDamageId(c.x)
	if err != nil {
		return 0, wrap("create damage", err)
	}
	damage.Create(c.x, id, d, level)
	return id, nil
}

// SubtractDamage forgets all damage so that the next change is reported.
func (c *Conn) SubtractDamage(d Damage) { damage.Subtract(c.x, d, 0, 0) }

// DestroyDamage ends the reports.
func (c *Conn) DestroyDamage(d Damage) { damage.Destroy(c.x, d) }

// SelectCursorInput reports changes of the pointer's shape as
// CursorNotifyEvent. Needs InitXFixes.
func (c *Conn) SelectCursorInput() {
	xfixes.SelectCursorInput(c.x, c.Root(), xfixes.CursorNotifyMaskDisplayCursor)
}

// SelectSelectionInput reports changes of a selection's owner as
// SelectionOwnerEvent. Needs InitXFixes.
func (c *Conn) SelectSelectionInput(w Window, selection Atom) {
	xfixes.SelectSelectionInput(c.x, w, selection, xfixes.SelectionEventMaskSetSelectionOwner|
		xfixes.SelectionEventMaskSelectionWindowDestroy|xfixes.SelectionEventMaskSelectionClientClose)
}

// CursorImage is the pointer's present shape.
type CursorImage struct {
	Name          string // often empty
	Serial        uint32
	Width, Height int
	HotX, HotY    int
	Pixels        []uint32 // 0xAARRGGBB, premultiplied
}

// CursorImage asks for the pointer's present shape. Needs InitXFixes.
func (c *Conn) CursorImage() (CursorImage, error) {
	r, err := xfixes.GetCursorImageAndName(c.x).Reply()
	if err != nil {
		return CursorImage{}, wrap("cursor image", c.orLost(err))
	}
	return CursorImage{r.Name, r.CursorSerial, int(r.Width), int(r.Height), int(r.Xhot), int(r.Yhot), r.CursorImage}, nil
}

// SelectScreenChange reports changes of the screen's size as
// ScreenChangeNotifyEvent. Needs InitRandR.
func (c *Conn) SelectScreenChange() {
	randr.SelectInput(c.x, c.Root(), randr.NotifyMaskScreenChange)
}

// SetScreenSize resizes the root window, within what the outputs allow. Needs
// InitRandR.
func (c *Conn) SetScreenSize(width, height uint16, mmWidth, mmHeight uint32) error {
	err := randr.SetScreenSizeChecked(c.x, c.Root(), width, height, mmWidth, mmHeight).Check()
	return wrap("set screen size", c.orLost(err))
}

// FakeKey presses or releases a key. Needs InitXTest.
func (c *Conn) FakeKey(key Keycode, press bool) {
	kind := byte(xproto.KeyRelease)
	if press {
		kind = xproto.KeyPress
	}
	xtest.FakeInput(c.x, kind, byte(key), 0, 0, 0, 0, 0)
}

// FakeButton presses or releases a pointer button. Needs InitXTest.
func (c *Conn) FakeButton(button byte, press bool) {
	kind := byte(xproto.ButtonRelease)
	if press {
		kind = xproto.ButtonPress
	}
	xtest.FakeInput(c.x, kind, button, 0, 0, 0, 0, 0)
}

// FakeMotion moves the pointer to a place on the root window. Needs InitXTest.
func (c *Conn) FakeMotion(x, y int) {
	xtest.FakeInput(c.x, xproto.MotionNotify, 0, 0, c.Root(), int16(x), int16(y), 0)
}
