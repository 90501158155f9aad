// Command painter is the X client that the bench draws with, in a qube and in
// dom0 alike: a window that changes its colour at a key, or as often as it
// can. It prints when it drew.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"cubicle/guid/x11"
)

// The keys that it obeys; see package main of the bench.
const (
	keyPatch  = 'a' // change the colour of the corner
	keyWindow = 'b' // change the colour of the whole window
	keyFrames = 'f' // change the whole window's colour again and again
	keyEnd    = 'q' // print the times and end
)

type options struct {
	Class    string        `default:"Painter" help:"Window class."`
	Width    uint16        `default:"1280"`
	Height   uint16        `default:"720"`
	Patch    uint16        `default:"32" help:"Side of the corner in pixels."`
	Rate     int           `help:"Frames a second after the key f; 0: as many as possible."`
	Duration time.Duration `default:"3s" help:"How long the key f paints."`
}

func main() {
	var o options
	kong.Parse(&o)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "painter:", err)
		os.Exit(1)
	}
}

type painter struct {
	options
	x      *x11.Conn
	keys   *x11.Keyboard
	window x11.Window
	gc     x11.GC
	color  uint32
	drawn  []time.Time // when each colour was drawn
}

// firstColor is the colour before the first change; each change adds one.
const firstColor = 0x204060

func run(o options) error {
	x, err := x11.Dial("")
	if err != nil {
		return err
	}
	defer x.Close()
	p := &painter{options: o, x: x, color: firstColor}
	if p.keys, err = x.Keyboard(); err != nil {
		return err
	}
	p.window, err = x.CreateWindow(x.Root(), 40, 40, o.Width, o.Height, x11.Attributes{
		BackPixel: x11.Ptr[uint32](firstColor), EventMask: x11.Ptr[uint32](x11.MaskKeyPress | x11.MaskExposure)})
	if err != nil {
		return err
	}
	if p.gc, err = x.CreateGC(x11.Drawable(p.window), firstColor); err != nil {
		return err
	}
	class := []byte("painter\x00" + o.Class + "\x00")
	x.SetProperty(p.window, x11.AtomWMClass, x11.AtomString, 8, class)
	normal, err := x.Atoms("WM_NORMAL_HINTS", "WM_SIZE_HINTS")
	if err != nil {
		return err
	}
	// A fixed size: no window manager shall change it (ICCCM §4.1.2.3).
	width, height := uint32(o.Width), uint32(o.Height)
	x.SetWords(p.window, normal["WM_NORMAL_HINTS"], normal["WM_SIZE_HINTS"],
		1<<4|1<<5, 0, 0, 0, 0, width, height, width, height, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	x.Map(p.window)
	for ev := range x.Events() {
		switch e := ev.Body.(type) {
		case *x11.RequestError:
			return e
		case x11.KeyPressEvent:
			if end, err := p.key(p.keys.Sym(e.Detail, 0)); err != nil || end {
				return err
			}
		}
	}
	return x.Err()
}

func (p *painter) key(sym x11.Keysym) (end bool, err error) {
	switch sym {
	case keyPatch:
		return false, p.paint(p.Patch, p.Patch)
	case keyWindow:
		return false, p.paint(p.Width, p.Height)
	case keyFrames:
		return false, p.frames()
	case keyEnd:
		for i, at := range p.drawn {
			fmt.Printf("%d %d\n", firstColor+i+1, at.UnixNano())
		}
		return true, nil
	}
	return false, nil
}

// paint fills a corner with the next colour.
func (p *painter) paint(width, height uint16) error {
	p.color++
	p.drawn = append(p.drawn, time.Now())
	p.x.SetForeground(p.gc, p.color)
	p.x.FillRectangle(x11.Drawable(p.window), p.gc, x11.Rectangle{Width: width, Height: height})
	return p.x.Sync()
}

func (p *painter) frames() error {
	end := time.Now().Add(p.Duration)
	var pace <-chan time.Time
	if p.Rate > 0 {
		t := time.NewTicker(time.Second / time.Duration(p.Rate))
		defer t.Stop()
		pace = t.C
	}
	for time.Now().Before(end) {
		if pace != nil {
			<-pace
		}
		if err := p.paint(p.Width, p.Height); err != nil {
			return err
		}
	}
	return nil
}
