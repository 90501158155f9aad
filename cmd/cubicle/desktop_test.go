package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cubicle/guid/screen"
	"cubicle/guid/x11"
)

// patience bounds every wait: far above what a slow machine needs.
const patience = 90 * time.Second

// firstRun bounds the first `cubicle up`, which builds the template.
const firstRun = 10 * time.Minute

// desktop is a running `cubicle up`.
type desktop struct {
	t      *testing.T
	bin    string
	root   string
	png    string
	up     *exec.Cmd
	ended  chan error
	screen *screen.Screen
	x      *x11.Conn
	keys   *x11.Keyboard

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// TestDesktop walks the whole journey with real programs in real qubes: from
// an empty root folder to coloured windows, input, and back to nothing, on
// each container engine.
func TestDesktop(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("qubes need root")
	}
	bin := build(t)
	root := newRoot(t)
	for _, engine := range []string{"runsc", "crun"} {
		t.Run(engine, func(t *testing.T) {
			before := traces(t, root)
			d := start(t, bin, root, engine)
			t.Run("picture", d.testPicture)
			t.Run("typing", d.testTyping)
			t.Run("menu", d.testMenu)
			t.Run("same pixels", d.testSamePixels)
			t.Run("window", d.testWindow)
			t.Run("command line", d.testCommandLine)
			t.Run("disposable", d.testDisposable)
			t.Run("calls", d.testCalls)
			t.Run("ask", d.testAsk)
			t.Run("policy", d.testPolicy)
			t.Run("copy from dom0", d.testCopyFromDom0)
			t.Run("services", d.testServices)
			t.Run("qubesdb", d.testQubesDB)
			t.Run("keyboard", d.testKeyboard)
			t.Run("import", d.testImport)
			if engine == "crun" {
				t.Run("many qubes", d.testManyQubes)
			}
			t.Run("boundary", func(t *testing.T) { d.testBoundary(t, engine) })
			t.Run("daemons killed", d.testDaemonsKilled)
			t.Run("qubesdb after that", d.testQubesDB)
			d.down(t)
			for trace := range traces(t, root) {
				if !before[trace] {
					t.Errorf("left behind: %s", trace)
				}
			}
		})
	}
	t.Run("killed", func(t *testing.T) { killed(t, bin, root) })
	t.Run("soak", func(t *testing.T) { soak(t, bin, root) })
}

// newRoot makes an empty root folder. CUBICLE_TEST_CACHE names a cache folder
// of another root, from which a template's image is taken instead of built.
func newRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "cubicle-*") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if cache := os.Getenv("CUBICLE_TEST_CACHE"); cache != "" {
		target := filepath.Join(root, "var/cache")
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", cache, target).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return root
}

// build makes the programs and returns their folder, or that of programs that
// were made already: CUBICLE_TEST_BIN.
func build(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("CUBICLE_TEST_BIN"); bin != "" {
		return bin
	}
	cmd := exec.Command("make", "--no-print-directory", "-C", "../..", "go-build", "runsc")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// traces lists what a desktop in root could leave behind on the machine.
func traces(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, root) {
			found["mount "+line] = true
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range backing {
		if file, err := os.ReadFile(name); err == nil && strings.Contains(string(file), root) {
			found[name+" "+string(file)] = true
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range processes {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && strings.Contains(string(line)+string(env), root) {
			found["process "+dir+" "+strings.ReplaceAll(string(line), "\x00", " ")] = true
		}
	}
	err = filepath.WalkDir(filepath.Join(root, "run"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type()&fs.ModeSocket != 0 {
			found["socket "+path] = true
		}
		return nil // a folder that vanishes is as good as gone
	})
	if err != nil {
		t.Fatal(err)
	}
	for uuid := range machines(t, root) {
		for _, pattern := range []string{"/sys/fs/cgroup/cubicle/", "/sys/fs/cgroup/*/cubicle/"} {
			for _, group := range glob(t, pattern+uuid) {
				found["control group "+group] = true
			}
		}
	}
	return found
}

// machines are the UUIDs of the qubes in root: other systems of this machine
// have control groups beside ours.
func machines(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, name := range glob(t, filepath.Join(root, "var/lib/qubes/*/*/qube.toml")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "uuid = "); ok {
				found[strings.Trim(strings.TrimSpace(value), `"'`)] = true
			}
		}
	}
	return found
}

// start runs `cubicle up` and waits until it says "desktop ready".
func start(t *testing.T, bin, root, engine string) *desktop {
	t.Helper()
	d := &desktop{t: t, bin: bin, root: root, png: filepath.Join(root, engine+".png"), ended: make(chan error, 1)}
	d.up = exec.Command(filepath.Join(bin, "cubicle"), "up", "--headless", "--root", root, "--engine", engine, "--png", d.png)
	// The Manager keeps its settings in the user's folder.
	d.up.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(root, "config"))
	// A pipe of our own: nothing that outlives the desktop may keep it open.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.up.Stdout, d.up.Stderr = w, w
	begun := time.Now()
	if err := d.up.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ready := make(chan struct{})
	go func() {
		once := sync.OnceFunc(func() { close(ready) })
		for s := bufio.NewScanner(r); s.Scan(); {
			d.mu.Lock()
			fmt.Fprintln(&d.out, s.Text())
			d.mu.Unlock()
			if strings.HasPrefix(s.Text(), "desktop ready") {
				once()
			}
		}
	}()
	go func() { d.ended <- d.up.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			const lines = 60 // of each: what failed stands above them
			t.Logf("the end of what cubicle up said:\n%s", last(d.output(), lines))
			for _, console := range glob(t, filepath.Join(root, "var/log/qubes/console-*.log")) {
				if text, err := os.ReadFile(console); err == nil {
					t.Logf("the end of %s:\n%s", console, last(string(text), lines))
				}
			}
		}
		d.kill()
	})
	select {
	case <-ready:
	case err := <-d.ended:
		d.ended <- err
		t.Fatalf("cubicle up ended: %v", err)
	case <-time.After(firstRun):
		t.Fatal("the desktop is not ready")
	}
	t.Logf("%s: ready after %.1f s", engine, time.Since(begun).Seconds())
	d.look(t)
	return d
}

// last returns the last n lines of a text.
func last(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// look connects to the desktop's screen.
func (d *desktop) look(t *testing.T) {
	t.Helper()
	note, err := os.ReadFile(filepath.Join(d.root, "run/cubicle", strconv.Itoa(os.Getuid()), "display"))
	if err != nil {
		t.Fatal(err)
	}
	display, rest, _ := strings.Cut(string(note), "\n")
	t.Setenv("XAUTHORITY", strings.TrimSpace(rest))
	t.Setenv("DISPLAY", display)
	if d.screen, err = screen.Open(display); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.screen.Close)
	if d.x, err = x11.Dial(display); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.x.Close() })
	if err := d.x.InitXTest(); err != nil {
		t.Fatal(err)
	}
	if d.keys, err = d.x.Keyboard(); err != nil {
		t.Fatal(err)
	}
}

func (d *desktop) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// kill ends a desktop that a failed test left running.
func (d *desktop) kill() {
	select {
	case <-d.ended:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	exec.CommandContext(ctx, filepath.Join(d.bin, "cubicle"), "down", "--root", d.root).Run()
	d.up.Process.Kill()
	<-d.ended
}

// down stops the desktop by `cubicle down`.
func (d *desktop) down(t *testing.T) {
	out, err := exec.Command(filepath.Join(d.bin, "cubicle"), "down", "--root", d.root).CombinedOutput()
	if err != nil {
		t.Errorf("cubicle down: %v\n%s", err, out)
	}
	select {
	case err := <-d.ended:
		d.ended <- err
		if err != nil {
			t.Errorf("cubicle up: %v", err)
		}
	case <-time.After(patience):
		t.Error("cubicle up runs on")
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// eventually waits until try returns "", and else fails with what it said.
func eventually(t *testing.T, try func() string) {
	t.Helper()
	why := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		if why = try(); why == "" {
			return
		}
	}
	t.Fatal(why)
}

func (d *desktop) pixels(t *testing.T, r image.Rectangle) []byte {
	t.Helper()
	data, err := d.x.Image(x11.Drawable(d.x.Root()), r.Min.X, r.Min.Y, r.Dx(), r.Dy())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// find waits for a window of a qube whose class contains a text.
func (d *desktop) find(t *testing.T, qube, class string) screen.Window {
	t.Helper()
	var found screen.Window
	eventually(t, func() string {
		windows, err := d.screen.Windows()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range windows {
			if w.Qube == qube && strings.Contains(w.Class, class) {
				found = w
				return ""
			}
		}
		return fmt.Sprintf("no window of class %s in %q: %+v", class, qube, windows)
	})
	return found
}

// content is the inner window of a frame, and its place on the screen.
func (d *desktop) content(t *testing.T, w screen.Window) (x11.Window, image.Rectangle) {
	t.Helper()
	_, children, err := d.x.Tree(w.ID)
	if err != nil || len(children) != 1 {
		t.Fatalf("children of the frame %#x: %v, %v", w.ID, children, err)
	}
	return children[0], d.bounds(t, children[0])
}

func (d *desktop) bounds(t *testing.T, w x11.Window) image.Rectangle {
	t.Helper()
	g, err := d.x.Geometry(x11.Drawable(w))
	if err != nil {
		t.Fatal(err)
	}
	x, y, err := d.x.Translate(w, d.x.Root(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return image.Rect(x, y, x+int(g.Width), y+int(g.Height))
}

// steady waits until a window's upper left part has not changed for a second,
// and returns it.
func (d *desktop) steady(t *testing.T, w x11.Window, width, height int) []byte {
	t.Helper()
	var seen []byte
	since := time.Now()
	eventually(t, func() string {
		now, err := d.x.Image(x11.Drawable(w), 0, 0, width, height)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(now, seen) {
			seen, since = now, time.Now()
		}
		if time.Since(since) < time.Second {
			return "the window goes on changing"
		}
		return ""
	})
	return seen
}

// raise brings a window to the front and gives it the keyboard.
func (d *desktop) raise(t *testing.T, w screen.Window) {
	t.Helper()
	eventually(t, func() string {
		// Again each time: a window that comes up meanwhile takes the keyboard.
		d.message(t, w.ID, "_NET_ACTIVE_WINDOW", 2)
		focus, err := d.x.InputFocus()
		if err != nil {
			t.Fatal(err)
		}
		if focus != w.ID {
			return fmt.Sprintf("the keyboard is at %#x, not at %#x", focus, w.ID)
		}
		return ""
	})
}

// message sends an EWMH message about a window to the window manager.
func (d *desktop) message(t *testing.T, w x11.Window, name string, words ...uint32) {
	t.Helper()
	atom, err := d.x.Atom(name)
	if err != nil {
		t.Fatal(err)
	}
	var five [5]uint32
	copy(five[:], words)
	d.x.SendClientMessage(d.x.Root(), w, atom, x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect, five)
	if err := d.x.Sync(); err != nil {
		t.Fatal(err)
	}
}

// typeText types lower-case text and a few signs as a person would.
func (d *desktop) typeText(t *testing.T, text string) {
	t.Helper()
	shift := d.keys.Code(0xffe1)
	for _, r := range text {
		sym := x11.Keysym(r)
		if r == '\n' {
			sym = 0xff0d
		}
		code := d.keys.Code(sym)
		if code == 0 {
			t.Fatalf("no key for %q", r)
		}
		shifted := d.keys.Sym(code, 0) != sym
		if shifted {
			d.x.FakeKey(shift, true)
		}
		d.x.FakeKey(code, true)
		d.x.FakeKey(code, false)
		if shifted {
			d.x.FakeKey(shift, false)
		}
	}
	if err := d.x.Sync(); err != nil {
		t.Fatal(err)
	}
}

// tool runs one of our command line tools on the desktop.
func (d *desktop) tool(name string, args ...string) (stdout string, status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, name), args...)
	cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+d.root)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode(), fmt.Errorf("%s %q: status %d: %s", name, args, exit.ExitCode(), stderr.String())
	}
	return string(out), 0, err
}

// inQube runs a shell command in a qube and returns what it prints.
func (d *desktop) inQube(t *testing.T, qube, command string) string {
	t.Helper()
	out, _, err := d.tool("qvm-run", "--pass-io", qube, command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// Colours of the two labels.
const (
	blue = 0x3465a4
	red  = 0xcc0000
)

// count counts the pixels of a colour in the picture.
func count(img image.Image, color uint32) int {
	n := 0
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			if r>>8<<16|g>>8<<8|bl>>8 == color {
				n++
			}
		}
	}
	return n
}

func (d *desktop) testPicture(t *testing.T) {
	file, err := os.Open(d.png)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	img, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, color := range map[string]uint32{"blue": blue, "red": red} {
		if n := count(img, color); n < 4*1000 {
			t.Errorf("%d pixels of %s frames", n, name)
		}
	}
	d.find(t, "", "Manager")
}

func (d *desktop) testTyping(t *testing.T) {
	terminal := d.find(t, "work", "XTerm")
	d.raise(t, terminal)
	other := d.find(t, "untrusted", "XTerm")
	otherContent, _ := d.content(t, other)
	// It may still be drawing its cursor anew, having just lost the keyboard.
	before := d.steady(t, otherContent, 200, 100)
	d.typeText(t, "echo Typed-$((6*7)) > /tmp/typed\n")
	eventually(t, func() string {
		if got := d.inQube(t, "work", "cat /tmp/typed 2>/dev/null; true"); got != "Typed-42" {
			return fmt.Sprintf("what was typed arrived as %q", got)
		}
		return ""
	})
	if got := d.inQube(t, "untrusted", "cat /tmp/typed 2>/dev/null || echo nothing"); got != "nothing" {
		t.Errorf("the other qube got %q", got)
	}
	after, err := d.x.Image(x11.Drawable(otherContent), 0, 0, 200, 100)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the other qube's terminal changed")
	}
}

func (d *desktop) testMenu(t *testing.T) {
	terminal := d.find(t, "work", "XTerm")
	d.raise(t, terminal)
	known := map[x11.Window]bool{}
	windows, err := d.screen.Windows()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range windows {
		known[w.ID] = true
	}
	_, place := d.content(t, terminal)
	control := d.keys.Code(0xffe3)
	d.x.FakeMotion(place.Min.X+60, place.Min.Y+40)
	d.x.FakeKey(control, true)
	d.x.FakeButton(1, true)
	var menu screen.Window
	eventually(t, func() string {
		windows, err := d.screen.Windows()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range windows {
			if w.Qube == "work" && !known[w.ID] {
				menu = w
				return ""
			}
		}
		return "no menu"
	})
	info, err := d.x.Info(menu.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !info.OverrideRedirect {
		t.Error("the menu is managed by the window manager")
	}
	if w, h := d.x.ScreenSize(); !menu.Bounds.In(image.Rect(0, 0, w, h)) {
		t.Errorf("the menu at %v leaves the screen", menu.Bounds)
	}
	eventually(t, func() string { return d.frameIs(t, menu.Bounds, blue) })
	d.x.FakeButton(1, false)
	d.x.FakeKey(control, false)
	eventually(t, func() string {
		if info, err := d.x.Info(menu.ID); err == nil && info.MapState == x11.MapStateViewable {
			return "the menu stays"
		}
		return ""
	})
}

// frameIs tells whether the four corners and the middles of the edges have a
// colour.
func (d *desktop) frameIs(t *testing.T, r image.Rectangle, color uint32) string {
	t.Helper()
	for _, p := range []image.Point{
		{r.Min.X, r.Min.Y}, {r.Max.X - 1, r.Min.Y}, {r.Min.X, r.Max.Y - 1}, {r.Max.X - 1, r.Max.Y - 1},
		{(r.Min.X + r.Max.X) / 2, r.Min.Y + 1}, {(r.Min.X + r.Max.X) / 2, r.Max.Y - 2},
		{r.Min.X + 1, (r.Min.Y + r.Max.Y) / 2}, {r.Max.X - 2, (r.Min.Y + r.Max.Y) / 2},
	} {
		px := d.pixels(t, image.Rectangle{p, p.Add(image.Pt(1, 1))})
		if got := uint32(px[2])<<16 | uint32(px[1])<<8 | uint32(px[0]); got != color {
			return fmt.Sprintf("the frame of %v has %06x at %v", r, got, p)
		}
	}
	return ""
}

// sample is a terminal that shows fixed text, for dom0 and qube alike. It
// prints at once: a window whose size wavers while it is being shown would cut
// the text off.
var sample = []string{"xterm", "-class", "Sample", "-T", "sample", "-fn", "fixed", "-fg", "black", "-bg", "white", "-geometry", "40x6", "+sb",
	"-e", "sh", "-c", `printf 'The quick brown fox\njumps over 0123456789\n\033[31mthe lazy dog\033[?25l'; sleep 600`}

// runSample starts the sample in the qube and returns its window.
func (d *desktop) runSample(t *testing.T) screen.Window {
	t.Helper()
	var quoted []string
	for _, arg := range sample {
		quoted = append(quoted, "'"+strings.ReplaceAll(arg, "'", `'\''`)+"'")
	}
	if _, _, err := d.tool("qvm-run", "--no-gui", "work", "("+strings.Join(quoted, " ")+" >/dev/null 2>&1 &)"); err != nil {
		t.Fatal(err)
	}
	return d.find(t, "work", "Sample")
}

func (d *desktop) testSamePixels(t *testing.T) {
	inQube := d.runSample(t)
	local := exec.Command(sample[0], sample[1:]...)
	if err := local.Start(); err != nil {
		t.Fatal(err)
	}
	defer local.Wait()
	defer local.Process.Kill()
	here := d.find(t, "", "Sample")
	content, place := d.content(t, inQube)
	if size := here.Bounds.Size(); size != place.Size() {
		t.Fatalf("the window in the qube is %v, the local one %v", place.Size(), size)
	}
	eventually(t, func() string {
		// Each is looked at in front of the other windows.
		d.raise(t, inQube)
		a, err := d.x.Image(x11.Drawable(content), 0, 0, place.Dx(), place.Dy())
		if err != nil {
			t.Fatal(err)
		}
		d.raise(t, here)
		b, err := d.x.Image(x11.Drawable(here.ID), 0, 0, place.Dx(), place.Dy())
		if err != nil {
			t.Fatal(err)
		}
		differ, where, example := 0, image.Rectangle{}, ""
		for i := 0; i+3 < len(a); i += 4 {
			if bytes.Equal(a[i:i+3], b[i:i+3]) {
				continue
			}
			p := image.Pt(i/4%place.Dx(), i/4/place.Dx())
			if differ == 0 {
				example = fmt.Sprintf("at %v the qube has %x, dom0 %x", p, a[i:i+3], b[i:i+3])
			}
			where = where.Union(image.Rectangle{p, p.Add(image.Pt(1, 1))})
			differ++
		}
		if differ > 0 {
			return fmt.Sprintf("%d of %d pixels differ, within %v; %s (b, g, r)", differ, len(a)/4, where, example)
		}
		if n := count(toImage(a, place.Size()), 0); n < 100 {
			return fmt.Sprintf("only %d black pixels: there is no text", n)
		}
		return ""
	})
	d.message(t, inQube.ID, "_NET_CLOSE_WINDOW")
	d.gone(t, inQube)
}

func toImage(data []byte, size image.Point) image.Image {
	img := image.NewRGBA(image.Rectangle{Max: size})
	for i := 0; i+3 < len(data); i += 4 {
		img.Pix[i], img.Pix[i+1], img.Pix[i+2], img.Pix[i+3] = data[i+2], data[i+1], data[i], 0xff
	}
	return img
}

func (d *desktop) gone(t *testing.T, w screen.Window) {
	t.Helper()
	eventually(t, func() string {
		if _, err := d.x.Info(w.ID); err == nil {
			return "the window stays"
		}
		return ""
	})
}

// testWindow moves, resizes, maximises and closes a window.
func (d *desktop) testWindow(t *testing.T) {
	w := d.runSample(t)
	d.raise(t, w)
	// agrees waits until the qube sees its window where dom0 shows it.
	agrees := func(what string, ok func(image.Rectangle) bool) {
		t.Helper()
		eventually(t, func() string {
			_, place := d.content(t, w)
			if !ok(place) {
				return fmt.Sprintf("%s: the content is at %v", what, place)
			}
			seen := d.inQube(t, "work", "xwininfo -name sample | awk '/Absolute|Width|Height/ {print $NF}' | xargs")
			want := fmt.Sprintf("%d %d %d %d", place.Min.X, place.Min.Y, place.Dx(), place.Dy())
			if seen != want {
				return fmt.Sprintf("%s: the qube sees %q, dom0 %q", what, seen, want)
			}
			return ""
		})
	}
	const moveResize = 0xf << 8 // x, y, width and height are given
	d.message(t, w.ID, "_NET_MOVERESIZE_WINDOW", moveResize|1, 300, 200, 400, 250)
	agrees("moved and resized", func(r image.Rectangle) bool {
		return r.Min.X >= 300 && r.Min.X < 320 && r.Min.Y >= 200 && r.Min.Y < 240 && r.Dx() > 350 && r.Dx() <= 400
	})
	atoms, err := d.x.Atoms("_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ")
	if err != nil {
		t.Fatal(err)
	}
	width, height := d.x.ScreenSize()
	vert, horz := uint32(atoms["_NET_WM_STATE_MAXIMIZED_VERT"]), uint32(atoms["_NET_WM_STATE_MAXIMIZED_HORZ"])
	d.message(t, w.ID, "_NET_WM_STATE", x11.StateAdd, vert, horz, 2)
	agrees("maximised", func(r image.Rectangle) bool { return r.Dx() > width-60 && r.Dy() > height-100 })
	d.message(t, w.ID, "_NET_WM_STATE", x11.StateRemove, vert, horz, 2)
	agrees("restored", func(r image.Rectangle) bool { return r.Dx() <= 400 })
	d.message(t, w.ID, "_NET_CLOSE_WINDOW")
	d.gone(t, w)
}

func (d *desktop) testCommandLine(t *testing.T) {
	out, _, err := d.tool("qvm-ls")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"dom0", "work", "Running", "AppVM", "blue", "debian-12", "vault", "Halted", "default-dvm"} {
		if !strings.Contains(out, want) {
			t.Errorf("qvm-ls does not show %q:\n%s", want, out)
		}
	}
	if _, status, _ := d.tool("qvm-run", "--pass-io", "work", "exit 7"); status != 7 {
		t.Errorf("exit status %d, not 7", status)
	}
	if got := d.inQube(t, "work", "id -un; hostname; sudo -n id -u"); got != "user\nwork\n0" {
		t.Errorf("in the qube: %q", got)
	}
	if _, status, err := d.tool("qvm-start", "no-such-qube"); status != 2 || !strings.Contains(err.Error(), "no-such-qube") {
		t.Errorf("an unknown qube: %v", err)
	}
	name := "extra"
	if _, _, err := d.tool("qvm-create", "--label", "green", name); err != nil {
		t.Fatal(err)
	}
	if got := d.inQube(t, name, "echo kept > ~/note; hostname"); got != name {
		t.Errorf("the new qube says %q", got)
	}
	if _, _, err := d.tool("qvm-shutdown", "--wait", name); err != nil {
		t.Fatal(err)
	}
	if got := d.inQube(t, name, "cat ~/note"); got != "kept" {
		t.Errorf("after a restart its home holds %q", got)
	}
	if _, _, err := d.tool("qvm-kill", name); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.tool("qvm-remove", "--force", name); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := d.tool("qvm-ls", "--raw-list"); strings.Contains(out, name) {
		t.Errorf("it is still listed: %q", out)
	}
}

// testDaemonsKilled kills dom0's daemons one after the other: the qubes run
// on, and their windows come back.
func (d *desktop) testDaemonsKilled(t *testing.T) {
	for _, daemon := range []string{"qubes-guid", "qrexecd", "qubesd"} {
		boot := d.inQube(t, "work", "stat -c %Y /proc/1")
		pid := d.pidOf(t, daemon)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if now := d.pids(t, daemon); len(now) == 0 || now[0] == pid {
				return daemon + " is not started again"
			}
			return ""
		})
		eventually(t, func() string {
			out, _, err := d.tool("qvm-run", "--pass-io", "work", "stat -c %Y /proc/1")
			if err != nil {
				return err.Error()
			}
			if strings.TrimSpace(out) != boot {
				return "the qube was started anew"
			}
			return ""
		})
		w := d.find(t, "work", "XTerm")
		eventually(t, func() string {
			if drawn, err := d.screen.IsDrawn(w); err != nil || !drawn {
				w = d.find(t, "work", "XTerm")
				return fmt.Sprintf("the window is not drawn after the death of %s (%v)", daemon, err)
			}
			return ""
		})
	}
}

// pids lists the processes of one of our programs in this root, but for those
// that qubes-guid starts for each qube.
func (d *desktop) pids(t *testing.T, program string) []int {
	t.Helper()
	var found []int
	for _, dir := range glob(t, "/proc/[0-9]*") {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if args[0] == filepath.Join(d.bin, program) && strings.Contains(string(line), "\x00"+d.root) && !strings.Contains(string(line), "--qube-process") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, pid)
		}
	}
	return found
}

func (d *desktop) pidOf(t *testing.T, program string) int {
	t.Helper()
	pids := d.pids(t, program)
	if len(pids) == 0 {
		t.Fatalf("%s does not run", program)
	}
	return pids[0]
}
