// Package screen looks at a whole X screen from outside: which windows are on
// it, whose they are, and a picture of it.
package screen

import (
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"

	"cubicle/guid/x11"
)

// Screen is a connection for looking at a screen.
type Screen struct {
	conn  *x11.Conn
	atoms map[string]x11.Atom
}

// Open connects to a display.
func Open(display string) (*Screen, error) {
	conn, err := x11.Dial(display)
	if err != nil {
		return nil, err
	}
	atoms, err := conn.Atoms("_QUBES_VMNAME", "_NET_MOVERESIZE_WINDOW", "_NET_FRAME_EXTENTS")
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("atoms: %w", err)
	}
	return &Screen{conn, atoms}, nil
}

// Close ends the connection.
func (s *Screen) Close() { s.conn.Close() }

// Window is a mapped top-level window of a program.
type Window struct {
	ID    x11.Window
	Qube  string // value of _QUBES_VMNAME; empty for dom0's own
	Class string // second part of WM_CLASS
	// Bounds is its place on the root window, without what the window
	// manager draws around it.
	Bounds image.Rectangle
}

// Room is the part of the screen that no panel covers (EWMH _NET_WORKAREA),
// in pixels; all of it where no window manager tells.
func (s *Screen) Room() (image.Rectangle, error) {
	area, ok, err := s.conn.WorkArea()
	if err != nil {
		return image.Rectangle{}, fmt.Errorf("room on the screen: %w", err)
	}
	if !ok {
		w, h := s.conn.ScreenSize()
		return image.Rect(0, 0, w, h), nil
	}
	return image.Rect(area.X, area.Y, area.X+area.Width, area.Y+area.Height), nil
}

// Move asks the window manager to place a window so that it fills a rectangle
// together with what the window manager draws around it (EWMH
// _NET_MOVERESIZE_WINDOW).
func (s *Screen) Move(id x11.Window, place image.Rectangle) error {
	extents, err := s.conn.GetProperty(id, s.atoms["_NET_FRAME_EXTENTS"], x11.AtomCardinal, 16)
	if err != nil {
		return err
	}
	var around [4]uint32 // left, right, top, bottom
	copy(around[:], extents.Words())
	width := uint32(place.Dx()) - around[0] - around[1]
	height := uint32(place.Dy()) - around[2] - around[3]
	const given = 0xf<<8 | 1 // x, y, width and height, for the upper left corner
	s.conn.SendClientMessage(s.conn.Root(), id, s.atoms["_NET_MOVERESIZE_WINDOW"],
		x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect,
		[5]uint32{given, uint32(place.Min.X), uint32(place.Min.Y), width, height})
	return s.conn.Sync()
}

// depth is how far below the root a program's window may lie: window managers
// put it into one or two windows of theirs.
const depth = 3

// Windows lists the windows on the screen, bottom to top.
func (s *Screen) Windows() ([]Window, error) { return s.below(s.conn.Root(), depth) }

func (s *Screen) below(parent x11.Window, levels int) ([]Window, error) {
	_, children, err := s.conn.Tree(parent)
	if err != nil {
		return nil, err
	}
	var found []Window
	for _, id := range children {
		w, ok, err := s.look(id)
		switch {
		case errors.As(err, new(*x11.Error)):
			continue // it vanished meanwhile
		case err != nil:
			return nil, err
		case ok:
			found = append(found, w)
		case levels > 1:
			more, err := s.below(id, levels-1)
			if err != nil && !errors.As(err, new(*x11.Error)) {
				return nil, err
			}
			found = append(found, more...)
		}
	}
	return found, nil
}

// look tells whether id is a program's window that can be seen.
func (s *Screen) look(id x11.Window) (Window, bool, error) {
	info, err := s.conn.Info(id)
	if err != nil || info.MapState != x11.MapStateViewable {
		return Window{}, false, err
	}
	name, err := s.conn.GetProperty(id, s.atoms["_QUBES_VMNAME"], x11.AtomString, 64)
	if err != nil {
		return Window{}, false, err
	}
	class, err := s.conn.GetProperty(id, x11.AtomWMClass, x11.AtomString, 256)
	if err != nil || len(name.Data) == 0 && len(class.Data) == 0 {
		return Window{}, false, err
	}
	g, err := s.conn.Geometry(x11.Drawable(id))
	if err != nil {
		return Window{}, false, err
	}
	x, y, err := s.conn.Translate(id, s.conn.Root(), 0, 0)
	if err != nil {
		return Window{}, false, err
	}
	return Window{
		ID: id, Qube: string(name.Data), Class: secondString(class.Data),
		Bounds: image.Rect(x, y, x+int(g.Width), y+int(g.Height)),
	}, true, nil
}

// secondString returns the second of two NUL-ended strings (WM_CLASS,
// ICCCM §4.1.2.5).
func secondString(data []byte) string {
	var parts [2]string
	part := 0
	for _, c := range data {
		if c == 0 {
			if part++; part == len(parts) {
				break
			}
			continue
		}
		parts[part] += string(rune(c))
	}
	return parts[1]
}

// frame is the margin of a window that IsDrawn leaves out: the coloured frame
// is there before the content is.
const frame = 16

// IsDrawn tells whether the window's inner part has more than one colour.
func (s *Screen) IsDrawn(w Window) (bool, error) {
	img, err := s.picture(w.Bounds.Inset(frame))
	if err != nil || img.Rect.Empty() {
		return false, err
	}
	first := img.RGBAAt(0, 0)
	for i := 0; i < len(img.Pix); i += 4 {
		if img.Pix[i] != first.R || img.Pix[i+1] != first.G || img.Pix[i+2] != first.B {
			return true, nil
		}
	}
	return false, nil
}

// picture returns what the screen shows in r, as far as r lies on it.
func (s *Screen) picture(r image.Rectangle) (*image.RGBA, error) {
	g, err := s.conn.Geometry(x11.Drawable(s.conn.Root()))
	if err != nil {
		return nil, err
	}
	r = r.Intersect(image.Rect(0, 0, int(g.Width), int(g.Height)))
	img := image.NewRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	if r.Empty() {
		return img, nil
	}
	pixels, err := s.conn.Image(x11.Drawable(s.conn.Root()), r.Min.X, r.Min.Y, r.Dx(), r.Dy())
	if err != nil {
		return nil, fmt.Errorf("picture of the screen: %w", err)
	}
	for i := 0; i+3 < len(pixels) && i+3 < len(img.Pix); i += 4 {
		img.Pix[i], img.Pix[i+1], img.Pix[i+2], img.Pix[i+3] = pixels[i+2], pixels[i+1], pixels[i], 0xff
	}
	return img, nil
}

// SavePNG writes a picture of the whole screen to the file at path.
func (s *Screen) SavePNG(path string) error {
	img, err := s.picture(image.Rect(0, 0, 1<<15, 1<<15))
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".shot-*.png")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails once it was renamed
	if err := png.Encode(file, img); err != nil {
		file.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Chmod(file.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// background is the colour of an empty desktop: dark enough for the coloured
// frames to stand out, and none of the labels.
const background = 0x2b3440

// SetBackground fills the root window with a quiet colour.
func (s *Screen) SetBackground() error {
	s.conn.SetAttributes(s.conn.Root(), x11.Attributes{BackPixel: x11.Ptr[uint32](background)})
	s.conn.ClearArea(s.conn.Root(), 0, 0, 0, 0)
	return s.conn.Sync()
}
