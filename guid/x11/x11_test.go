package x11_test

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"

	"golang.org/x/sys/unix"
)

func memory(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("pixels", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "pixels")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	return f, m
}

// next returns the next event of type E, or fails.
func next[E any](t *testing.T, c *x11.Conn) (E, bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case ev, ok := <-c.Events():
			if !ok {
				t.Fatalf("events ended: %v", c.Err())
			}
			if e, ok := ev.Body.(E); ok {
				return e, ev.Synthetic
			}
		case <-timeout:
			var e E
			t.Fatalf("no %T came", e)
		}
	}
}

func TestPixelsTravelThroughMemory(t *testing.T) {
	c := x11test.Dial(t, x11test.Start(t, 320, 200))
	if err := c.InitShm(); err != nil {
		t.Fatal(err)
	}
	f, m := memory(t, 1<<20)
	seg, err := c.AttachSegment(f, true)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.CreateWindow(c.Root(), 10, 20, 64, 32, x11.Attributes{BackPixel: x11.Ptr[uint32](0xff0000), OverrideRedirect: x11.Ptr(true), EventMask: x11.Ptr[uint32](x11.MaskExposure)})
	if err != nil {
		t.Fatal(err)
	}
	c.Map(w)
	next[x11.ExposeEvent](t, c)
	gc, err := c.CreateGC(x11.Drawable(w), 0)
	if err != nil {
		t.Fatal(err)
	}
	const offset = 8192
	for i := range 16 * 8 {
		copy(m[offset+4*i:], []byte{byte(i), 2, 3, 0})
	}
	c.ShmPutImage(x11.Drawable(w), gc, x11.ShmImage{Segment: seg, Offset: offset, Width: 16, Height: 8}, x11.Rectangle{X: 0, Y: 1, Width: 16, Height: 2}, 4, 5)
	got, err := c.Image(x11.Drawable(w), 4, 5, 16, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 32 {
		if want := []byte{byte(16 + i), 2, 3}; !bytes.Equal(got[4*i:][:3], want) {
			t.Fatalf("pixel %d is %v, want %v", i, got[4*i:][:3], want)
		}
	}
	below, err := c.Image(x11.Drawable(w), 4, 7, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(below[:3], []byte{0, 0, 0xff}) {
		t.Errorf("a pixel outside the rectangle is %v", below)
	}
	// Past the end of the memory: an error event, and the connection lives on.
	c.ShmPutImage(x11.Drawable(w), gc, x11.ShmImage{Segment: seg, Offset: 1<<20 - 4, Width: 16, Height: 8}, x11.Rectangle{Width: 16, Height: 8}, 0, 0)
	refused, _ := next[*x11.RequestError](t, c)
	if refused.BadWindow() {
		t.Errorf("%v is taken for a missing window", refused)
	}
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestAttachOfNoMemoryIsAnError(t *testing.T) {
	c := x11test.Dial(t, x11test.Start(t, 100, 100))
	if err := c.InitShm(); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := c.AttachSegment(null, true); err == nil {
		t.Error("/dev/null was attached")
	}
	f, _ := memory(t, 4096)
	if _, err := c.AttachSegment(f, true); err != nil {
		t.Errorf("after a failed attach: %v", err)
	}
}

func TestLossOfTheServerFailsEveryRequest(t *testing.T) {
	display, server := x11test.StartServer(t, 100, 100)
	c := x11test.Dial(t, display)
	server.Kill()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the loss was not noticed")
	}
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			for range 2000 { // more than xgb keeps unanswered
				c.ClearArea(c.Root(), 0, 0, 1, 1)
			}
			if err := c.Sync(); err == nil {
				t.Error("a request to a dead server succeeded")
			}
		})
	}
	wait.Wait()
	for range c.Events() {
	}
	if c.Err() == nil {
		t.Error("no reason for the end")
	}
}

func TestLossWhileWaiting(t *testing.T) {
	display, server := x11test.StartServer(t, 100, 100)
	c := x11test.Dial(t, display)
	other := x11test.Dial(t, display)
	other.GrabServer()
	if err := other.Sync(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- c.Sync() }()
	time.Sleep(20 * time.Millisecond)
	server.Kill()
	select {
	case err := <-done:
		if err == nil {
			t.Error("the waiting request succeeded")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the waiting request hangs")
	}
}

func TestCloseEndsEventsAndRequests(t *testing.T) {
	c := x11test.Dial(t, x11test.Start(t, 100, 100))
	c.Close()
	for range c.Events() {
	}
	if err := c.Sync(); !errors.Is(err, x11.ErrClosed) {
		t.Errorf("error %v, want %v", err, x11.ErrClosed)
	}
}

func TestEventsHaveNoBound(t *testing.T) {
	c := x11test.Dial(t, x11test.Start(t, 100, 100))
	w, err := c.CreateWindow(c.Root(), 0, 0, 1, 1, x11.Attributes{EventMask: x11.Ptr[uint32](x11.MaskPropertyChange)})
	if err != nil {
		t.Fatal(err)
	}
	atom, err := c.Atom("MANY")
	if err != nil {
		t.Fatal(err)
	}
	const count = 20_000 // xgb alone stops at 5000
	for i := range count {
		c.SetWords(w, atom, x11.AtomCardinal, uint32(i))
	}
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	for range count {
		next[x11.PropertyNotifyEvent](t, c)
	}
}

func TestSyntheticEventsAreMarked(t *testing.T) {
	c := x11test.Dial(t, x11test.Start(t, 100, 100))
	w, err := c.CreateWindow(c.Root(), 0, 0, 5, 5, x11.Attributes{EventMask: x11.Ptr[uint32](x11.MaskStructureNotify)})
	if err != nil {
		t.Fatal(err)
	}
	c.MoveResize(w, 1, 2, 3, 4)
	if e, synthetic := next[x11.ConfigureNotifyEvent](t, c); synthetic || e.Width != 3 {
		t.Errorf("real: %+v, synthetic %v", e, synthetic)
	}
	c.SendConfigureNotify(w, 9, 8, 7, 6)
	if e, synthetic := next[x11.ConfigureNotifyEvent](t, c); !synthetic || e.X != 9 || e.Height != 6 {
		t.Errorf("synthetic: %+v, synthetic %v", e, synthetic)
	}
}

func TestSeveralServersInOneProcess(t *testing.T) {
	a := x11test.Dial(t, x11test.Start(t, 100, 100))
	b := x11test.Dial(t, x11test.Start(t, 200, 100))
	for _, c := range []*x11.Conn{a, b} {
		for _, init := range []func() error{c.InitXFixes, c.InitDamage, c.InitComposite, c.InitShm, c.InitRandR, c.InitXTest} {
			if err := init(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w, err := b.CreateWindow(b.Root(), 0, 0, 50, 50, x11.Attributes{BackPixel: x11.Ptr[uint32](1), EventMask: x11.Ptr[uint32](x11.MaskExposure)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.RedirectSubwindows(b.Root()); err != nil {
		t.Fatal(err)
	}
	b.Map(w)
	next[x11.ExposeEvent](t, b)
	d, err := b.CreateDamage(x11.Drawable(w), x11.DamageBoundingBox)
	if err != nil {
		t.Fatal(err)
	}
	next[x11.DamageNotifyEvent](t, b)
	b.SubtractDamage(d)
	b.ClearArea(w, 3, 4, 5, 6)
	if e, _ := next[x11.DamageNotifyEvent](t, b); e.Area != (x11.Rectangle{X: 3, Y: 4, Width: 5, Height: 6}) {
		t.Errorf("damage %+v", e.Area)
	}
	if _, err := b.NameWindowPixmap(w); err != nil {
		t.Error(err)
	}
	if img, err := b.CursorImage(); err != nil || len(img.Pixels) != img.Width*img.Height {
		t.Errorf("cursor %+v, %v", img, err)
	}
}
