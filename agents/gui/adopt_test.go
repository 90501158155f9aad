package gui

import (
	"testing"

	"cubicle/guid/x11"
)

// A client that draws once and again only when it is told to (Expose) loses
// nothing by our coming, whether it has a border that we take or none, and
// also what it draws in a child of its window (as terminals do).
func TestWindowsDrawnBeforeUsKeepTheirContent(t *testing.T) {
	for name, border := range map[string]int{"no border": 0, "a border": 2} {
		t.Run(name, func(t *testing.T) {
			display, _ := startX(t)
			x, err := x11.Dial(display) // whose events we take ourselves
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			c := &client{t: t, Conn: x}
			if c.atoms, err = internAtoms(x); err != nil {
				t.Fatal(err)
			}
			w := c.window("early", rect{10, 10, 200, 100}, 0x202020, false)
			c.Configure(w, x11.Changes{BorderWidth: &border})
			child, err := c.CreateWindow(w, 0, 0, 200, 100, x11.Attributes{BackPixel: x11.Ptr[uint32](0x303030), EventMask: x11.Ptr[uint32](x11.MaskExposure)})
			if err != nil {
				t.Fatal(err)
			}
			gc, err := c.CreateGC(x11.Drawable(child), 0xffcc00)
			if err != nil {
				t.Fatal(err)
			}
			draw := func() {
				c.FillRectangle(x11.Drawable(child), gc, x11.Rectangle{X: 20, Y: 20, Width: 50, Height: 50})
			}
			c.Map(child)
			c.Map(w)
			draw()
			if err := c.Sync(); err != nil {
				t.Fatal(err)
			}
			go func() {
				for ev := range c.Events() {
					if _, ok := ev.Body.(x11.ExposeEvent); ok {
						draw()
					}
				}
			}()
			d := connect(t, startAgent(t), 1920, 1080)
			v := d.awaitWindow("the early window", titled("early"))
			d.await("what it drew", func() bool {
				px := d.rows(v)
				at := 3 * (40*200 + 40)
				return len(px) > at+2 && px[at] == 0 && px[at+1] == 0xcc && px[at+2] == 0xff
			})
			d.awaitSame(dialX(t, display), v)
		})
	}
}

// A client that makes its window in steps gets one answer, for the last step.
func TestStepsOfANewWindowAreOneWish(t *testing.T) {
	display, _ := startX(t)
	d := connect(t, startAgent(t), 1920, 1080)
	x, err := x11.Dial(display)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	c := &client{t: t, Conn: x}
	if c.atoms, err = internAtoms(x); err != nil {
		t.Fatal(err)
	}
	c.Grab() // all steps are there before the agent sees the first
	w := c.window("steps", rect{0, 0, 1, 1}, 0x123456, false)
	if err := c.SelectInput(w, x11.MaskStructureNotify); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		width, height := 10*(i+1), 20*(i+1)
		c.Configure(w, x11.Changes{Width: &width, Height: &height})
	}
	c.Map(w)
	c.Ungrab()
	v := d.awaitWindow("the window", titled("steps"))
	d.awaitSame(c.Conn, v)
	if v.place.Width != 50 || v.place.Height != 100 {
		t.Errorf("dom0 has it at %+v", v.place)
	}
	for {
		select {
		case ev := <-c.Events():
			if e, ok := ev.Body.(x11.ConfigureNotifyEvent); ok && e.Width != 50 && e.Width != 1 {
				t.Errorf("the client was told %d×%d", e.Width, e.Height)
			}
			continue
		default:
		}
		break
	}
}
