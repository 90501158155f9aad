package dock

import (
	"image"
	"testing"

	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

func TestMenusStayOnTheScreen(t *testing.T) {
	screen := image.Pt(1000, 600)
	for _, c := range []struct {
		anchor     image.Rectangle
		size, want image.Point
	}{
		{image.Rect(10, 0, 60, 30), image.Pt(200, 300), image.Pt(10, 30)},
		{image.Rect(960, 0, 1000, 30), image.Pt(200, 300), image.Pt(800, 30)},
		{image.Rect(10, 570, 60, 600), image.Pt(200, 300), image.Pt(10, 270)},
		{image.Rect(10, 0, 60, 30), image.Pt(2000, 3000), image.Pt(0, 0)},
	} {
		if got := Beside(c.anchor, c.size, screen); got != c.want {
			t.Errorf("below %v: %v, want %v", c.anchor, got, c.want)
		}
	}
}

// A panel keeps its room free under both window managers, also after the
// screen has changed its size, and gives it back.
func TestPanelReservesItsRoom(t *testing.T) {
	for _, wm := range []string{"openbox", "xfwm4"} {
		t.Run(wm, func(t *testing.T) {
			display := x11test.Start(t, 800, 600)
			x11test.StartWM(t, display, wm)
			s, err := Open(display)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := x11test.Dial(t, display)
			w, err := c.CreateWindow(c.Root(), 300, 300, 50, 20, x11.Attributes{})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := s.MakePanel(uint32(w)); err != nil {
				t.Fatal(err)
			}
			c.Map(w)
			room := func(y, height int) func() bool {
				return func() bool {
					if y > 0 {
						if err := s.PlacePanel(uint32(w), y); err != nil {
							t.Fatal(err)
						}
					}
					area, ok, err := c.WorkArea()
					at, err2 := s.Place(uint32(w))
					placed := y == 0 || at == image.Rect(0, 0, 800, y)
					return err == nil && err2 == nil && ok && placed && area.Y == y && area.Height == height
				}
			}
			x11test.Eventually(t, "room for a panel of 30", room(30, 570))
			x11test.Eventually(t, "room for a panel of 40", room(40, 560))
			c.Unmap(w)
			x11test.Eventually(t, "all the room", func() bool {
				area, ok, err := c.WorkArea()
				return err == nil && ok && area.Height == 600
			})
		})
	}
}

func TestAMenuHasTheKeyboardAndGivesItBack(t *testing.T) {
	display := x11test.Start(t, 800, 600)
	s, err := Open(display)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	lost, resized := make(chan struct{}, 10), make(chan struct{}, 10)
	go s.Follow(Happenings{Resized: func() { resized <- struct{}{} }, Left: func() {}, Unfocused: func() { lost <- struct{}{} }})
	c := x11test.Dial(t, display)
	window := func() uint32 {
		w, err := c.CreateWindow(c.Root(), 0, 0, 50, 50, x11.Attributes{})
		if err != nil {
			t.Fatal(err)
		}
		return uint32(w)
	}
	other, menu := window(), window()
	c.Map(x11.Window(other))
	c.SetInputFocus(x11.Window(other), x11.CurrentTime)
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.MakeMenu(menu); err != nil {
		t.Fatal(err)
	}
	if err := s.PlaceMenu(menu, image.Rect(10, 20, 110, 220)); err != nil {
		t.Fatal(err)
	}
	c.Map(x11.Window(menu))
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	before, err := s.Focus(menu)
	if err != nil || before != other {
		t.Fatalf("%#x had the keyboard, %v", before, err)
	}
	if has, err := s.Focused(menu); !has || err != nil {
		t.Errorf("%v %v", has, err)
	}
	if at, err := s.Place(menu); err != nil || at != image.Rect(10, 20, 110, 220) {
		t.Errorf("%v %v", at, err)
	}
	if err := s.GiveBack(menu, before); err != nil {
		t.Fatal(err)
	}
	<-lost
	if now, err := c.InputFocus(); err != nil || uint32(now) != other {
		t.Errorf("%#x has the keyboard, %v", now, err)
	}
	// What the server says of the root window when the screen is resized.
	c.SendConfigureNotify(c.Root(), 0, 0, 640, 480)
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	<-resized
	if found, err := s.Activate("Nobody"); found || err != nil {
		t.Errorf("%v %v", found, err)
	}
}
