package gui

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	desktop "cubicle/agents/session"
	"cubicle/daemon/vchan"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

const patience = 10 * time.Second

// startX runs an X server of the test's own and sets DISPLAY to it: the
// qube's (Xorg with the dummy driver), or Xvfb where that is not installed.
func startX(t *testing.T) (display string, grows bool) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "xorg.conf")
	if err := os.WriteFile(config, []byte(desktop.XConfig()), 0o644); err != nil {
		t.Fatal(err)
	}
	var cmd *exec.Cmd
	if server, err := desktop.XServer(); err == nil && os.Getuid() == 0 {
		grows = true
		cmd = exec.Command(server, "-config", config, "-displayfd", "3", "-logfile", filepath.Join(dir, "log"),
			"-verbose", "0", "-novtswitch", "-sharevts", "-noreset", "-nolisten", "tcp")
	} else {
		cmd = exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1920x1080x24", "-noreset", "-nolisten", "tcp")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { stop(cmd) })
	r.SetReadDeadline(time.Now().Add(patience))
	// The line break is a write of its own, which must find a reader.
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("%s does not start: %v", cmd.Path, err)
	}
	display = ":" + strings.TrimSpace(line)
	t.Setenv("DISPLAY", display)
	t.Setenv("XAUTHORITY", filepath.Join(dir, "none"))
	return display, grows
}

func stop(cmd *exec.Cmd) {
	cmd.Process.Signal(unix.SIGTERM)
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
}

// run starts a program of the test on its display.
func run(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(cmd) })
	return cmd
}

// switchboard is a transport whose listener gets what the test connects.
type switchboard struct{ calls chan *vchan.Channel }

func (s switchboard) Listen(ctx context.Context, peer vchan.Domain, port vchan.Port) (*vchan.Channel, error) {
	if peer != 0 || port != vchan.PortGUI {
		return nil, fmt.Errorf("listen for domain %d port %d", peer, port)
	}
	select {
	case ch := <-s.calls:
		return ch, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s switchboard) Dial(context.Context, vchan.Domain, vchan.Port) (*vchan.Channel, error) {
	return nil, fmt.Errorf("a GUI agent does not dial")
}

// startAgent runs an agent on the test's display.
func startAgent(t *testing.T) switchboard {
	t.Helper()
	s := switchboard{make(chan *vchan.Channel)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
	go func() { done <- Run(ctx, s, Options{Layout: "us", Log: log}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ended: %v", err)
		}
	})
	return s
}

// view is what the daemon knows about a window.
type view struct {
	id      wire.WindowID
	create  wire.Create
	place   wire.Configure
	mapped  *wire.Map
	maps    int
	title   string
	class   string
	name    string
	hints   wire.WindowHints
	flags   uint32
	dump    *wire.WindowDump
	dumps   int
	painted int // SHMIMAGE since the last dump
	cursor  uint32
}

// daemon is dom0's side, as the protocol asks for.
type daemon struct {
	t      *testing.T
	conn   net.Conn
	region []byte
	inbox  chan incoming
	failed chan error

	windows map[wire.WindowID]*view
	gone    map[wire.WindowID]int

	clipboard []string // the agent's answers
}

// connect plays a daemon with a screen of that size.
func connect(t *testing.T, s switchboard, width, height uint32) *daemon {
	t.Helper()
	return connectWith(t, s, width, height, vchan.RegionSize)
}

// connectWith gives the agent a region of so many bytes; 0: none.
func connectWith(t *testing.T, s switchboard, width, height uint32, regionSize int) *daemon {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "gui")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	region := os.NewFile(uintptr(fd), "region")
	if err := region.Truncate(int64(max(regionSize, 4096))); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, max(regionSize, 4096), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	if regionSize == 0 {
		region.Close()
		region = nil
	}
	select {
	case s.calls <- &vchan.Channel{Conn: ends[0], Region: region}:
	case <-time.After(patience):
		t.Fatal("the agent does not listen")
	}
	d := &daemon{t: t, conn: ends[1], region: mem, inbox: make(chan incoming, 4096), failed: make(chan error, 1),
		windows: make(map[wire.WindowID]*view), gone: make(map[wire.WindowID]int)}
	t.Cleanup(func() { d.conn.Close() })
	version, err := wire.DaemonHandshake(d.conn, wire.NewXConf(width, height, 24))
	if err != nil {
		t.Fatal(err)
	}
	go d.read(wire.NewReader(d.conn, wire.ToDaemon, version))
	return d
}

func (d *daemon) read(r *wire.Reader) {
	for {
		id, m, err := r.Next()
		if err != nil {
			d.failed <- err
			return
		}
		d.inbox <- incoming{id, m}
	}
}

func (d *daemon) send(id wire.WindowID, m wire.Message) {
	d.t.Helper()
	if _, err := d.conn.Write(wire.Append(nil, id, m)); err != nil {
		d.t.Fatal(err)
	}
}

// handle notes a message and answers as the protocol asks.
func (d *daemon) handle(in incoming) {
	d.t.Helper()
	if c, ok := in.message.(wire.ClipboardData); ok {
		d.clipboard = append(d.clipboard, string(c.Data))
		return
	}
	w := d.windows[in.window]
	if c, ok := in.message.(wire.Create); ok {
		if w != nil {
			d.t.Fatalf("CREATE of the live window %#x", in.window)
		}
		if c.Width == 0 || c.Height == 0 {
			d.t.Fatalf("CREATE without a size: %+v", c)
		}
		d.windows[in.window] = &view{id: in.window, create: c}
		return
	}
	if w == nil {
		d.t.Fatalf("%T for window %#x, which does not exist", in.message, in.window)
	}
	switch m := in.message.(type) {
	case wire.Destroy:
		delete(d.windows, in.window)
		d.gone[in.window]++
		d.send(in.window, wire.Destroy{})
	case wire.Map:
		w.mapped = &m
		w.maps++
	case wire.Unmap:
		w.mapped, w.dump = nil, nil
	case wire.Configure:
		w.place = m
	case wire.WMName:
		w.title = text(m.Text[:])
	case wire.WMClass:
		w.class, w.name = text(m.Class[:]), text(m.Name[:])
	case wire.WindowHints:
		w.hints = m
	case wire.WindowFlags:
		if m.Set&m.Unset != 0 {
			d.t.Fatalf("flags both set and unset: %+v", m)
		}
		w.flags = w.flags&^m.Unset | m.Set
	case wire.WindowDump:
		if m.Kind != wire.DumpRegion || m.Stride < 4*m.Width || m.Offset%4096 != 0 ||
			m.Offset+uint64(m.Stride)*uint64(m.Height) > uint64(len(d.region)) {
			d.t.Fatalf("a dump that leaves the region: %+v", m)
		}
		w.dump, w.painted = &m, 0
		w.dumps++
		d.send(in.window, wire.WindowDumpAck{})
	case wire.ShmImage:
		if w.dump == nil || m.X < 0 || m.Y < 0 || uint32(m.X)+m.Width > w.dump.Width || uint32(m.Y)+m.Height > w.dump.Height {
			d.t.Fatalf("SHMIMAGE %+v outside of the dump %+v", m, w.dump)
		}
		w.painted++
	case wire.Cursor:
		w.cursor = m.Cursor
	}
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// await handles messages until ok holds.
func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	timeout := time.After(patience)
	for !ok() {
		select {
		case in := <-d.inbox:
			d.handle(in)
		case err := <-d.failed:
			d.t.Fatalf("waiting for %s: the channel ended: %v", what, err)
		case <-time.After(20 * time.Millisecond): // ok may look at other things
		case <-timeout:
			for _, w := range d.windows {
				d.t.Logf("%#x: %+v dump %+v", w.id, *w, w.dump)
			}
			d.t.Fatalf("no %s", what)
		}
	}
}

// awaitWindow waits for a window that is mapped, painted and fits.
func (d *daemon) awaitWindow(what string, fits func(*view) bool) *view {
	d.t.Helper()
	var found *view
	d.await(what, func() bool {
		for _, w := range d.windows {
			if w.mapped != nil && w.painted > 0 && fits(w) {
				found = w
				return true
			}
		}
		return false
	})
	return found
}

func titled(title string) func(*view) bool {
	return func(w *view) bool { return w.title == title }
}

// configure moves and resizes as a window manager in dom0 would, and waits
// for agreement.
func (d *daemon) configure(w *view, x, y int32, width, height uint32) {
	d.t.Helper()
	want := wire.Configure{X: x, Y: y, Width: width, Height: height}
	w.place = wire.Configure{}
	d.send(w.id, want)
	d.await("agreement on a place", func() bool {
		p := w.place
		p.OverrideRedirect = 0
		return p == want
	})
}

// rows returns a window's pixels as dom0 sees them, without the unused bytes.
func (d *daemon) rows(w *view) []byte {
	var out []byte
	for y := range uint64(w.dump.Height) {
		row := d.region[w.dump.Offset+y*uint64(w.dump.Stride):][:4*w.dump.Width]
		for i := 0; i < len(row); i += 4 {
			out = append(out, row[i], row[i+1], row[i+2])
		}
	}
	return out
}

// same compares dom0's pixels with those of the window itself.
func (d *daemon) same(x *x11.Conn, w *view) bool {
	d.t.Helper()
	image, err := x.Image(x11.Drawable(w.id), 0, 0, int(w.dump.Width), int(w.dump.Height))
	if err != nil {
		d.t.Fatal(err)
	}
	got := d.rows(w)
	for i := range len(image) / 4 {
		if got[3*i] != image[4*i] || got[3*i+1] != image[4*i+1] || got[3*i+2] != image[4*i+2] {
			return false
		}
	}
	return true
}

// awaitSame waits until dom0 has the pixels of the window.
func (d *daemon) awaitSame(x *x11.Conn, w *view) {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		d.drain()
		if w.dump != nil && int(w.dump.Width) == int(w.place.Width) && d.same(x, w) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("dom0 has other pixels than window %#x: %+v", w.id, w.dump)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// drain handles what waits.
func (d *daemon) drain() {
	for {
		select {
		case in := <-d.inbox:
			d.handle(in)
		default:
			return
		}
	}
}

// colours counts the different pixels of a window.
func (d *daemon) colours(w *view) int {
	seen := make(map[[3]byte]bool)
	px := d.rows(w)
	for i := 0; i+2 < len(px); i += 3 {
		seen[[3]byte(px[i:])] = true
	}
	return len(seen)
}

func dialX(t *testing.T, display string) *x11.Conn {
	t.Helper()
	x, err := x11.Dial(display)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	go func() {
		for range x.Events() {
		}
	}()
	return x
}
