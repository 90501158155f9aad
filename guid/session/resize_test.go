package session_test

import (
	"testing"

	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

// The screen of dom0 changes its size: the agent hears of it, and no window is
// left where nobody can reach it.
func TestScreenChangesItsSize(t *testing.T) {
	for _, manager := range []string{"", "openbox"} {
		t.Run(manager, func(t *testing.T) {
			screen := x11test.StartResizable(t)
			if manager != "" {
				x11test.StartWM(t, screen, manager)
			}
			u := newUser(t, screen)
			if err := u.InitRandR(); err != nil {
				t.Fatal(err)
			}
			resize := func(width, height uint16) {
				t.Helper()
				if err := u.ResizeScreen(width, height); err != nil {
					t.Fatal(err)
				}
			}
			resize(2000, 1500)
			a := connect(t, screen)
			if a.conf != wire.NewXConf(2000, 1500, 24) {
				t.Errorf("the agent hears of screen %+v", a.conf)
			}
			a.show(1, wire.Create{X: 1700, Y: 1300, Width: 200, Height: 150}, 1, wire.WindowHints{Flags: wire.HintUSPosition})
			a.show(2, wire.Create{X: 1800, Y: 100, Width: 100, Height: 100, OverrideRedirect: 1}, 2)
			frames := []x11.Window{u.frame(1), u.frame(2)}
			place := func(i int) window.Rect {
				_, g := u.content(frames[i])
				return window.Rect(g)
			}
			within := func(what string, width, height int) {
				t.Helper()
				screen := window.Rect{Width: width, Height: height}
				x11test.Eventually(t, what, func() bool {
					// A window manager may see to it that its title can be reached.
					title := place(0)
					title.Y -= 25
					seen := screen.Contains(place(0)) || manager != "" && !screen.Intersect(title).Empty()
					return seen && screen.Contains(place(1))
				})
			}
			told := func(width, height uint32) {
				t.Helper()
				wait(a, 0, "the screen's size", func(m wire.Resize) bool { return m == wire.Resize{Width: width, Height: height} })
			}
			within("both windows are on the screen", 2000, 1500)

			resize(1000, 700)
			told(1000, 700)
			within("both windows are on the small screen", 1000, 700)
			x11test.Eventually(t, "the agent knows where its menu is", func() bool {
				c, ok := a.place(2)
				return ok && int(c.X)+int(c.Width)+border <= 1000
			})

			resize(2560, 1440)
			told(2560, 1440)
			// What the small screen forbade is possible again.
			a.show(3, wire.Create{X: 2400, Y: 1200, Width: 100, Height: 100, OverrideRedirect: 1}, 3)
			if _, g := u.content(u.frame(3)); g.X != 2400 || g.Y != 1200 {
				t.Errorf("a menu on the large screen is at %+v", g)
			}
			_, g := u.content(frames[1])
			u.checkPixels(g, 100, 100, 2)
		})
	}
}
