package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cubicle/app/dom0/dom0test"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
	"cubicle/guid/notice/noticetest"
	"cubicle/guid/screen"
	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

const wide, high = 1000, 760

// patience bounds every wait, far above what a loaded machine needs.
const patience = 90 * time.Second

// primary is the colour of a live Allow in the dark theme.
const primary = 0x3cc4b8

// rig is the agent on a screen with a window manager, and the daemon's face
// behind it.
type rig struct {
	t        *testing.T
	x        *x11.Conn
	keyboard *x11.Keyboard
	screen   *screen.Screen
	bus      string
	socket   string
	agent    *exec.Cmd
	ended    chan error
	log      bytes.Buffer
}

func TestOnAScreen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts X servers")
	}
	program := filepath.Join(t.TempDir(), "qubes-policy-agent")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, test := range map[string]func(r *rig){
		"a person answers":                         (*rig).testAnswers,
		"Enter too early allows nothing":           (*rig).testTooEarly,
		"questions end":                            (*rig).testEnds,
		"denials are told":                         (*rig).testNews,
		"a killed agent takes its questions along": (*rig).testKilled,
	} {
		t.Run(name, func(t *testing.T) { test(start(t, program, "openbox")) })
	}
	// Window managers differ in whom they give the keyboard.
	t.Run("a person answers under xfwm4", func(t *testing.T) { start(t, program, "xfwm4").testAnswers() })
}

func start(t *testing.T, program, manager string) *rig {
	t.Helper()
	r := &rig{t: t, ended: make(chan error, 1)}
	folder := t.TempDir()
	root, err := paths.New(folder)
	if err != nil {
		t.Fatal(err)
	}
	r.socket = root.PolicyAgent()
	if err := os.MkdirAll(root.RunQubes(), 0o700); err != nil {
		t.Fatal(err)
	}
	var stop func()
	if r.bus, stop, err = dom0test.StartBus(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	service, err := dom0test.Serve(r.bus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close() })
	for name, label := range map[string]string{"work": "blue", "untrusted": "red", "vault": "black", "personal": "yellow"} {
		service.Add(name, qube.AppVM, label, "")
	}
	display := x11test.Start(t, wide, high)
	x11test.StartWM(t, display, manager)
	r.x = x11test.Dial(t, display)
	if err := r.x.InitXTest(); err != nil {
		t.Fatal(err)
	}
	if r.keyboard, err = r.x.Keyboard(); err != nil {
		t.Fatal(err)
	}
	if r.screen, err = screen.Open(display); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.screen.Close)
	r.agent = exec.Command(program, "--root", folder, "--bus", r.bus)
	r.agent.Env = append(os.Environ(), "DISPLAY="+display, "HOME="+folder, "XDG_CONFIG_HOME="+folder, "XDG_CACHE_HOME="+folder,
		"FYNE_THEME=dark", "LC_ALL=C.UTF-8", "DBUS_SESSION_BUS_ADDRESS="+r.bus)
	r.agent.Stdout, r.agent.Stderr = &r.log, &r.log
	r.agent.WaitDelay = time.Second
	if err := r.agent.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- r.agent.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			r.shot("failed")
		}
		r.agent.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-r.ended:
			if err != nil {
				t.Errorf("qubes-policy-agent: %v", err)
			}
		case <-time.After(patience):
			r.agent.Process.Kill()
			t.Error("qubes-policy-agent does not end")
		}
		if _, err := os.Stat(r.socket); err == nil {
			t.Error("the socket is left behind")
		}
		if t.Failed() {
			t.Logf("qubes-policy-agent said:\n%s", r.log.String())
		}
	})
	return r
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("never came: %s", what)
		}
	}
}

// shot saves a picture where CUBICLE_PICTURES says.
func (r *rig) shot(name string) {
	r.t.Helper()
	if folder := os.Getenv("CUBICLE_PICTURES"); folder != "" {
		if err := r.screen.SavePNG(filepath.Join(folder, name+".png")); err != nil {
			r.t.Error(err)
		}
	}
}

// call is a caller that waits.
type call struct {
	conn   *net.UnixConn
	answer chan string
}

func (r *rig) send(service string, message any) *call {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	c, err := vchan.DialPath(ctx, r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	body, err := json.Marshal(message)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "%s dom0 name dom0\x00%s", service, body); err != nil {
		r.t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		r.t.Fatal(err)
	}
	out := &call{c, make(chan string, 1)}
	go func() {
		text, err := io.ReadAll(c)
		if err != nil {
			text = []byte(err.Error())
		}
		out.answer <- string(text)
	}()
	return out
}

func (r *rig) ask(source, preferred string) *call {
	r.t.Helper()
	return r.send("policy.Ask", map[string]any{
		"source": source, "service": "qubes.Filecopy", "argument": "+", "default_target": preferred,
		"targets": []string{"untrusted", "vault", "personal", "@dispvm:untrusted"}, "icons": map[string]string{source: "appvm-blue"},
	})
}

func (c *call) answers(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-c.answer:
		if got != want {
			t.Errorf("answered %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("no answer; want %q", want)
	}
}

// windows are those of that title.
func (r *rig) windows(title string) (found []screen.Window) {
	r.t.Helper()
	all, err := r.screen.Windows()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, w := range all {
		p, err := r.x.GetProperty(w.ID, x11.AtomWMName, x11.AtomAny, 256)
		if err == nil && string(p.Data) == title {
			found = append(found, w)
		}
	}
	return found
}

// dialog waits for the source's dialog with the keyboard.
func (r *rig) dialog(source string) (w screen.Window) {
	r.t.Helper()
	r.eventually("the dialog of "+source+" with the keyboard", func() bool {
		found := r.windows(source + " asks")
		if len(found) == 0 {
			return false
		}
		w = found[0]
		focus, err := r.x.InputFocus()
		return err == nil && focus == w.ID
	})
	return w
}

// live waits until the dialog's Allow is live.
func (r *rig) live(source string) {
	r.t.Helper()
	r.eventually("a live Allow", func() bool {
		found := r.windows(source + " asks")
		return len(found) == 1 && r.count(image.Rectangle{found[0].Bounds.Max.Sub(image.Pt(90, 70)), found[0].Bounds.Max}, primary) > 900
	})
}

func (r *rig) gone(source string) {
	r.t.Helper()
	r.eventually("the dialog's end", func() bool { return len(r.windows(source+" asks")) == 0 })
}

// count is the number of pixels of exactly that colour in a rectangle.
func (r *rig) count(at image.Rectangle, rgb uint32) (n int) {
	r.t.Helper()
	at = at.Intersect(image.Rect(0, 0, wide, high))
	data, err := r.x.Image(x11.Drawable(r.x.Root()), at.Min.X, at.Min.Y, at.Dx(), at.Dy())
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+3 < len(data); i += 4 {
		if binary.LittleEndian.Uint32(data[i:])&0xffffff == rgb {
			n++
		}
	}
	return n
}

const (
	enter  x11.Keysym = 0xff0d
	escape x11.Keysym = 0xff1b
	down   x11.Keysym = 0xff54
)

func (r *rig) keys(list ...x11.Keysym) {
	r.t.Helper()
	for _, k := range list {
		r.x.FakeKey(r.keyboard.Code(k), true)
		r.x.FakeKey(r.keyboard.Code(k), false)
		if err := r.x.Sync(); err != nil {
			r.t.Fatal(err)
		}
		// GLFW takes two presses in one millisecond for one.
		time.Sleep(30 * time.Millisecond)
	}
}

func (r *rig) write(text string) {
	r.t.Helper()
	for _, c := range text {
		r.keys(x11.Keysym(c))
	}
}

func (r *rig) testAnswers() {
	t := r.t

	// Typing chooses, Enter allows.
	c := r.ask("work", "")
	w := r.dialog("work")
	r.eventually("above all others", func() bool {
		atoms, err := r.x.Atoms("_NET_WM_STATE", "_NET_WM_STATE_ABOVE", "_NET_WM_WINDOW_TYPE", "_NET_WM_WINDOW_TYPE_DIALOG")
		if err != nil {
			t.Fatal(err)
		}
		state, err := r.x.GetProperty(w.ID, atoms["_NET_WM_STATE"], x11.AtomAtom, 64)
		kind, err2 := r.x.GetProperty(w.ID, atoms["_NET_WM_WINDOW_TYPE"], x11.AtomAtom, 64)
		return err == nil && err2 == nil && slices.Contains(state.Words(), uint32(atoms["_NET_WM_STATE_ABOVE"])) &&
			slices.Contains(kind.Words(), uint32(atoms["_NET_WM_WINDOW_TYPE_DIALOG"]))
	})
	for found := false; !found; { // what is typed too early is dropped
		r.write("vau")
		time.Sleep(600 * time.Millisecond)
		found = r.count(image.Rectangle{w.Bounds.Max.Sub(image.Pt(90, 70)), w.Bounds.Max}, primary) > 900
	}
	r.shot("typed")
	r.keys(enter)
	c.answers(t, "allow:vault")
	r.gone("work")

	// The arrow keys choose as well.
	c = r.ask("work", "personal")
	r.dialog("work")
	r.live("work")
	r.keys(down, down, enter)
	c.answers(t, "allow:vault")
	r.gone("work")

	c = r.ask("work", "untrusted")
	r.dialog("work")
	r.keys(escape)
	c.answers(t, "deny")
	r.gone("work")
}

// A window that appears under somebody's fingers is not answered by them.
func (r *rig) testTooEarly() {
	t := r.t
	for range 5 {
		c := r.ask("work", "untrusted")
		r.eventually("the window", func() bool { return len(r.windows("work asks")) == 1 })
		began := time.Now()
		r.dialog("work")
		r.keys(enter, enter)
		early := time.Since(began) < afterFocus/2
		select {
		case got := <-c.answer:
			if !early {
				continue // the machine was too slow for the test
			}
			t.Fatalf("answered %q", got)
		case <-time.After(afterFocus / 4):
		}
		r.live("work")
		r.keys(escape)
		c.answers(t, "deny")
		r.gone("work")
		if early {
			return
		}
	}
	t.Skip("this machine is too slow to be quick")
}

// afterFocus is how long a window that has just got the keyboard allows
// nothing (spec/qrexec.md §11).
const afterFocus = time.Second

// One question at a time; a caller that gives up takes his away, and a dialog
// that dies denies its own question alone.
func (r *rig) testEnds() {
	t := r.t
	first := r.ask("work", "")
	r.dialog("work")
	second := r.ask("personal", "untrusted")
	third := r.ask("work", "")
	r.shot("waiting")
	if len(r.windows("personal asks")) != 0 {
		t.Error("two questions stand at once")
	}
	first.conn.Close()
	r.dialog("personal")
	if len(r.windows("work asks")) != 0 {
		t.Error("two questions stand at once")
	}
	r.live("personal")
	r.keys(enter)
	second.answers(t, "allow:untrusted")
	w := r.dialog("work")
	r.kill(w)
	third.answers(t, "deny")
	fourth := r.ask("vault", "")
	r.dialog("vault")

	// The agent's end is a denial as well.
	r.agent.Process.Signal(syscall.SIGTERM)
	select {
	case got := <-fourth.answer:
		if got != "" && got != "deny" {
			t.Errorf("answered %q", got)
		}
	case <-time.After(patience):
		t.Error("the agent has ended, and its caller waits")
	}
}

// kill ends a window's process at once.
func (r *rig) kill(w screen.Window) {
	r.t.Helper()
	atom, err := r.x.Atom("_NET_WM_PID")
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := r.x.GetProperty(w.ID, atom, x11.AtomCardinal, 4)
	if err != nil || len(p.Words()) != 1 {
		r.t.Fatalf("no process: %v", err)
	}
	if err := syscall.Kill(int(p.Words()[0]), syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) testNews() {
	t := r.t
	news := map[string]string{"resolution": "deny", "source": "work", "service": "<i>q.S", "argument": "+", "target": "vault"}
	r.send("policy.Notify", news).answers(t, "")
	r.eventually("a notice of our own", func() bool {
		found := r.windows("Qubes notices")
		return len(found) == 1 && found[0].Bounds.Dy() > 60 && found[0].Bounds.Max.X < wide && found[0].Bounds.Min.X > wide/2
	})
	r.shot("notice")

	d := noticetest.Serve(t, r.bus)
	news["source"] = "personal"
	r.send("policy.Notify", news).answers(t, "")
	if got := d.Next(t); got.Title != "Call denied" || !strings.HasPrefix(got.Text, "personal was denied _i_q.S to vault.") {
		t.Errorf("the notification says %+v", got)
	}
}

// Nothing of a killed agent stands about: nobody would hear the answer.
func (r *rig) testKilled() {
	t := r.t
	c := r.ask("work", "untrusted")
	r.dialog("work")
	if err := r.agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	r.ended <- nil // as it should be
	select {
	case got := <-c.answer:
		if strings.HasPrefix(got, "allow") {
			t.Errorf("answered %q", got)
		}
	case <-time.After(patience):
		t.Error("the caller waits")
	}
	r.gone("work")
	if err := os.Remove(r.socket); err != nil {
		t.Error(err)
	}
}
