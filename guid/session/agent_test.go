package session_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"cubicle/guid/display"
	"cubicle/guid/session"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"

	"golang.org/x/sys/unix"
)

const (
	regionSize = 64 << 20
	labelColor = 0x3465a4
	border     = 4
)

// agent is a qube's side, under the test's control.
type agent struct {
	t      *testing.T
	conn   net.Conn
	region []byte
	conf   wire.XConf
	done   chan error // the session's end
	shade  byte       // of the last drawing

	mu       sync.Mutex
	received []received
}

type received struct {
	window wire.WindowID
	msg    wire.Message
}

func socketpair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "channel")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

func newRegion(t *testing.T) (*os.File, []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "region")
	if err := f.Truncate(regionSize); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(fd, 0, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	return f, m
}

// start starts a session for qube "work" on a display. Its agent has not
// spoken yet.
func start(t *testing.T, screen string, change ...func(*session.Config)) *agent {
	t.Helper()
	ours, theirs := socketpair(t)
	region, memory := newRegion(t)
	cfg := session.Config{
		Screen:  display.Config{Name: "work", Label: display.Label{Index: 6, Color: labelColor}, Lockers: []string{"xscreensaver"}},
		Windows: window.Config{},
		Display: screen,
	}
	for _, f := range change {
		f(&cfg)
	}
	t.Setenv("XAUTHORITY", os.DevNull)
	a := &agent{t: t, conn: ours, region: memory, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		a.done <- session.Run(ctx, cfg, theirs, region, slog.New(slog.NewTextHandler(t.Output(), nil)))
	}()
	t.Cleanup(func() {
		cancel()
		ours.Close()
		select {
		case <-a.done:
		case <-time.After(10 * time.Second):
			t.Error("the session does not end")
		}
	})
	return a
}

// connect is start and the handshake, and reads what comes.
func connect(t *testing.T, screen string, change ...func(*session.Config)) *agent {
	t.Helper()
	a := start(t, screen, change...)
	version, conf, err := wire.AgentHandshake(a.conn)
	if err != nil {
		t.Fatal(err)
	}
	a.conf = conf
	go func() {
		ours := a.conn
		r := wire.NewReader(ours, wire.ToAgent, version)
		for {
			window, msg, err := r.Next()
			if err != nil {
				return
			}
			a.mu.Lock()
			a.received = append(a.received, received{window, msg})
			a.mu.Unlock()
			if c, ok := msg.(wire.Configure); ok { // an agent agrees (spec §9)
				a.send(window, c)
			}
		}
	}()
	return a
}

// send sends messages about one window. Writing to a session that has ended is
// no failure of the test.
func (a *agent) send(id wire.WindowID, msgs ...wire.Message) {
	var b []byte
	for _, m := range msgs {
		b = wire.Append(b, id, m)
	}
	a.conn.Write(b)
}

// end waits for the session's end and returns its error.
func (a *agent) end() error {
	a.t.Helper()
	select {
	case err := <-a.done:
		a.done <- err
		return err
	case <-time.After(90 * time.Second):
		a.t.Fatal("the session lives on")
		return nil
	}
}

// messages are those of type M that came for a window.
func messages[M wire.Message](a *agent, id wire.WindowID) []M {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []M
	for _, r := range a.received {
		if m, ok := r.msg.(M); ok && r.window == id {
			out = append(out, m)
		}
	}
	return out
}

// wait waits for a message that satisfies ok.
func wait[M wire.Message](a *agent, id wire.WindowID, what string, ok func(M) bool) {
	a.t.Helper()
	x11test.Eventually(a.t, what, func() bool {
		for _, m := range messages[M](a, id) {
			if ok(m) {
				return true
			}
		}
		return false
	})
}

func any[M wire.Message](M) bool { return true }

// place is where the content is according to the last CONFIGURE.
func (a *agent) place(id wire.WindowID) (c wire.Configure, ok bool) {
	all := messages[wire.Configure](a, id)
	if len(all) == 0 {
		return c, false
	}
	return all[len(all)-1], true
}

// draw fills an image at offset of the region: pixel (x, y) is
// (x, y, shade) as (B, G, R).
func (a *agent) draw(offset, width, height int, shade byte) {
	for y := range height {
		for x := range width {
			binary.LittleEndian.PutUint32(a.region[offset+4*(y*width+x):], pixel(x, y, shade))
		}
	}
}

func pixel(x, y int, shade byte) uint32 {
	return uint32(shade)<<16 | uint32(y&0xff)<<8 | uint32(x&0xff)
}

// show opens a window with pixels and waits until it has been confirmed.
func (a *agent) show(id wire.WindowID, create wire.Create, shade byte, extra ...wire.Message) {
	a.t.Helper()
	w, h := int(create.Width), int(create.Height)
	offset := int(id) * 4 << 20
	a.draw(offset, w, h, shade)
	a.send(id, create)
	a.send(id, extra...)
	a.send(id, wire.Map{OverrideRedirect: create.OverrideRedirect},
		wire.WindowDump{Kind: wire.DumpRegion, Width: create.Width, Height: create.Height, BPP: 32, Offset: uint64(offset), Stride: 4 * create.Width},
		wire.ShmImage{Width: create.Width, Height: create.Height})
	wait(a, id, "the dump's confirmation", any[wire.WindowDumpAck])
}

// user is dom0's side: it looks at the screen and uses keyboard and mouse.
type user struct {
	t *testing.T
	*x11.Conn
	atoms map[string]x11.Atom
}

func newUser(t *testing.T, screen string) *user {
	t.Helper()
	c := x11test.Dial(t, screen)
	if err := c.InitXTest(); err != nil {
		t.Fatal(err)
	}
	atoms, err := c.Atoms("_QUBES_VMNAME", "_QUBES_LABEL", "_QUBES_LABEL_COLOR", "_QUBES_VMWINDOWID", "_NET_WM_NAME", "UTF8_STRING",
		"_NET_WM_STATE", "_NET_WM_STATE_FULLSCREEN", "_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ",
		"_NET_CLOSE_WINDOW", "WM_PROTOCOLS", "_NET_WM_PING", "_NET_WM_USER_TIME")
	if err != nil {
		t.Fatal(err)
	}
	return &user{t, c, atoms}
}

// frames finds the frames of a qube's windows by the agent's ids, anywhere in
// the tree.
func (u *user) frames() map[wire.WindowID]x11.Window {
	found := make(map[wire.WindowID]x11.Window)
	var walk func(w x11.Window)
	walk = func(w x11.Window) {
		_, children, err := u.Tree(w)
		if err != nil {
			return
		}
		for _, child := range children {
			p, err := u.GetProperty(child, u.atoms["_QUBES_VMWINDOWID"], x11.AtomWindow, 4)
			if words := p.Words(); err == nil && len(words) == 1 {
				found[wire.WindowID(words[0])] = child
				continue
			}
			walk(child)
		}
	}
	walk(u.Root())
	return found
}

// frame waits until a window's frame can be seen.
func (u *user) frame(id wire.WindowID) x11.Window {
	u.t.Helper()
	var frame x11.Window
	x11test.Eventually(u.t, "a visible frame", func() bool {
		frame = u.frames()[id]
		if frame == 0 {
			return false
		}
		info, err := u.Info(frame)
		return err == nil && info.MapState == x11.MapStateViewable
	})
	return frame
}

// content is the inner window and its place on the root.
func (u *user) content(frame x11.Window) (w x11.Window, g window.Geometry) {
	u.t.Helper()
	_, children, err := u.Tree(frame)
	if err != nil || len(children) != 1 {
		u.t.Fatalf("children of the frame: %v, %v", children, err)
	}
	size, err := u.Geometry(x11.Drawable(children[0]))
	if err != nil {
		u.t.Fatal(err)
	}
	x, y, err := u.Translate(children[0], u.Root(), 0, 0)
	if err != nil {
		u.t.Fatal(err)
	}
	return children[0], window.Geometry{X: x, Y: y, Width: size.Width, Height: size.Height}
}

// look returns the pixels of a rectangle of the root as 0xRRGGBB.
func (u *user) look(x, y, width, height int) []uint32 {
	u.t.Helper()
	b, err := u.Image(x11.Drawable(u.Root()), x, y, width, height)
	if err != nil {
		u.t.Fatal(err)
	}
	out := make([]uint32, width*height)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[4*i:]) & 0xffffff
	}
	return out
}

// checkPixels waits until the window shows width×height pixels of a drawing
// and, around its content of that place, the label's colour.
func (u *user) checkPixels(g window.Geometry, width, height int, shade byte) {
	u.t.Helper()
	var x0, y0 int
	var got, want uint32
	right := func() bool {
		w, h := g.Width+2*border, g.Height+2*border
		pixels := u.look(g.X-border, g.Y-border, w, h)
		for i, p := range pixels {
			x, y := i%w-border, i/w-border
			inside := x >= 0 && y >= 0 && x < g.Width && y < g.Height
			drawn := inside && x < width && y < height
			if inside && !drawn {
				continue
			}
			expect := uint32(labelColor)
			if drawn {
				expect = pixel(x, y, shade)
			}
			if p != expect {
				x0, y0, got, want = x, y, p, expect
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(5 * time.Second); !right(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			u.t.Fatalf("pixel (%d,%d) of the content is %#06x, want %#06x", x0, y0, got, want)
		}
	}
}

func (u *user) text(w x11.Window, prop x11.Atom) string {
	p, err := u.GetProperty(w, prop, x11.AtomAny, 4096)
	if err != nil {
		u.t.Fatal(err)
	}
	return string(p.Data)
}

func (u *user) words(w x11.Window, prop x11.Atom) []uint32 {
	p, err := u.GetProperty(w, prop, x11.AtomAny, 4096)
	if err != nil {
		u.t.Fatal(err)
	}
	return p.Words()
}
