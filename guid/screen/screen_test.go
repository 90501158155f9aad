package screen

import (
	"bufio"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cubicle/guid/x11"
)

// display starts an X server for the test and returns its name.
func display(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "400x300x24", "-nolisten", "tcp", "-noreset")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return ":" + strings.TrimSpace(line)
}

func TestWindowsAndPicture(t *testing.T) {
	name := display(t)
	s, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetBackground(); err != nil {
		t.Fatal(err)
	}
	// A qube's window inside one of a window manager, and a hidden one.
	conn, err := x11.Dial(name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	vmname, err := conn.Atom("_QUBES_VMNAME")
	if err != nil {
		t.Fatal(err)
	}
	white := x11.Attributes{BackPixel: x11.Ptr[uint32](0xffffff)}
	outer, err := conn.CreateWindow(conn.Root(), 20, 30, 120, 110, white)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := conn.CreateWindow(outer, 5, 6, 100, 90, white)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetText(inner, vmname, x11.AtomString, "work")
	conn.SetText(inner, x11.AtomWMClass, x11.AtomString, "work:xterm\x00work:XTerm\x00")
	hidden, err := conn.CreateWindow(conn.Root(), 0, 0, 10, 10, white)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetText(hidden, vmname, x11.AtomString, "vault")
	conn.Map(inner)
	conn.Map(outer)
	if err := conn.Sync(); err != nil {
		t.Fatal(err)
	}

	windows, err := s.Windows()
	if err != nil {
		t.Fatal(err)
	}
	if len(windows) != 1 || windows[0].ID != inner || windows[0].Qube != "work" || windows[0].Class != "work:XTerm" {
		t.Fatalf("windows %+v", windows)
	}
	if b := windows[0].Bounds; b.Min.X != 25 || b.Min.Y != 36 || b.Dx() != 100 || b.Dy() != 90 {
		t.Errorf("bounds %v", b)
	}
	drawn, err := s.IsDrawn(windows[0])
	if err != nil || drawn {
		t.Errorf("a blank window is drawn: %v, %v", drawn, err)
	}
	gc, err := conn.CreateGC(x11.Drawable(inner), 0xff0000)
	if err != nil {
		t.Fatal(err)
	}
	conn.FillRectangle(x11.Drawable(inner), gc, x11.Rectangle{X: 40, Y: 40, Width: 9, Height: 9})
	if err := conn.Sync(); err != nil {
		t.Fatal(err)
	}
	if drawn, err = s.IsDrawn(windows[0]); err != nil || !drawn {
		t.Errorf("it is not drawn: %v, %v", drawn, err)
	}

	path := filepath.Join(t.TempDir(), "shot.png")
	if err := s.SavePNG(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	img, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct{ x, y, r, g, b uint32 }{
		{0, 0, 0x2b, 0x34, 0x40}, {66, 77, 0xff, 0, 0}, {30, 40, 0xff, 0xff, 0xff},
	} {
		if r, g, b, _ := img.At(int(p.x), int(p.y)).RGBA(); r>>8 != p.r || g>>8 != p.g || b>>8 != p.b {
			t.Errorf("pixel %d,%d is %02x%02x%02x", p.x, p.y, r>>8, g>>8, b>>8)
		}
	}
}

func TestSecondString(t *testing.T) {
	for in, want := range map[string]string{"a\x00B\x00": "B", "a\x00B": "B", "a": "", "": "", "a\x00B\x00c\x00": "B"} {
		if got := secondString([]byte(in)); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
