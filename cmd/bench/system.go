package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/paths"
	"cubicle/guid/screen"
	"cubicle/guid/x11"
)

// firstRun bounds `cubicle up`, which may have to build the template.
const firstRun = 10 * time.Minute

// system is a running `cubicle up` with all its qubes halted.
type system struct {
	bench  *bench
	root   paths.Root
	engine string
	up     *exec.Cmd
	ended  chan struct{}
	bus    *client.Client
	screen *screen.Screen
	x      *x11.Conn
	keys   *x11.Keyboard

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// up starts a desktop in a new root folder and halts its qubes.
func (b *bench) up(ctx context.Context, engine string) (*system, error) {
	dir, err := os.MkdirTemp("/tmp", "cubicle-bench-*") // short: sockets live in it
	if err != nil {
		return nil, err
	}
	s := &system{bench: b, root: paths.Root(dir), engine: engine, ended: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		s.down()
		return nil, fmt.Errorf("start the desktop: %w\n%s", err, s.output())
	}
	return s, nil
}

func (s *system) open(ctx context.Context) error {
	if err := os.Chmod(string(s.root), 0o755); err != nil {
		return err
	}
	if s.bench.Cache != "" {
		if err := os.MkdirAll(filepath.Dir(s.root.Cache()), 0o755); err != nil {
			return err
		}
		if _, err := output(ctx, "cp", "-a", "--sparse=always", "--reflink=auto", s.bench.Cache, s.root.Cache()); err != nil {
			return err
		}
	}
	if err := s.launch(ctx); err != nil {
		return err
	}
	if err := s.look(); err != nil {
		return err
	}
	var err error
	if s.bus, err = client.Connect(ctx, client.Address(s.root)); err != nil {
		return err
	}
	snapshot, err := s.bus.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, q := range snapshot.Qubes {
		if q.XID > 0 {
			if err := s.halt(ctx, q.UUID); err != nil {
				return err
			}
		}
	}
	return nil
}

// launch runs `cubicle up` until it says that the desktop is ready.
func (s *system) launch(ctx context.Context) error {
	s.up = exec.Command(filepath.Join(s.bench.Bin, "cubicle"), "up", "--headless", "--root", string(s.root),
		"--engine", s.engine, "--png", s.root.Join("desktop.png"))
	s.up.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.root.Join("config"))
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.up.Stdout, s.up.Stderr = w, w
	err = s.up.Start()
	w.Close()
	if err != nil {
		s.up = nil
		return err
	}
	ready := make(chan struct{})
	go func() {
		defer r.Close()
		once := sync.OnceFunc(func() { close(ready) })
		for lines := bufio.NewScanner(r); lines.Scan(); {
			s.mu.Lock()
			fmt.Fprintln(&s.out, lines.Text())
			s.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "desktop ready") {
				once()
			}
		}
	}()
	go func() {
		_ = s.up.Wait() // its own words are in the output
		close(s.ended)
	}()
	select {
	case <-ready:
		return nil
	case <-s.ended:
		return errors.New("cubicle up ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(firstRun):
		return errors.New("the desktop is not ready")
	}
}

// look connects to the desktop's screen.
func (s *system) look() error {
	note, err := os.ReadFile(s.root.Join("run/cubicle", strconv.Itoa(os.Getuid()), "display"))
	if err != nil {
		return err
	}
	display, rest, _ := strings.Cut(string(note), "\n")
	// For the X wrapper and for the programs that we run on the screen.
	if err := errors.Join(os.Setenv("DISPLAY", display), os.Setenv("XAUTHORITY", strings.TrimSpace(rest))); err != nil {
		return err
	}
	if s.screen, err = screen.Open(display); err != nil {
		return err
	}
	if s.x, err = x11.Dial(display); err != nil {
		return err
	}
	go func() {
		for range s.x.Events() { // nobody asked for any
		}
	}()
	if err := s.x.InitXTest(); err != nil {
		return err
	}
	s.keys, err = s.x.Keyboard()
	return err
}

func (s *system) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// down stops the desktop and removes its folder.
func (s *system) down() {
	if s.bus != nil {
		s.bus.Close()
	}
	if s.screen != nil {
		s.screen.Close()
	}
	if s.x != nil {
		s.x.Close()
	}
	if s.up != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		if _, err := output(ctx, filepath.Join(s.bench.Bin, "cubicle"), "down", "--root", string(s.root)); err != nil {
			s.bench.log.Error("stop the desktop", "root", s.root, "error", err)
			return // its folder is in use
		}
		<-s.ended
	}
	if err := os.RemoveAll(string(s.root)); err != nil {
		s.bench.log.Error("remove the desktop's folder", "error", err)
	}
}

// do waits for a job that was asked for.
func (s *system) do(ctx context.Context, job uint64, err error) error {
	if err != nil {
		return err
	}
	j, err := s.bus.Wait(ctx, job)
	if err != nil {
		return err
	}
	return j.Err()
}

func (s *system) halt(ctx context.Context, uuid string) error {
	job, err := s.bus.Kill(ctx, uuid)
	if err := s.do(ctx, job, err); err != nil {
		return fmt.Errorf("halt %s: %w", uuid, err)
	}
	return nil
}

func (s *system) boot(ctx context.Context, uuid string) error {
	job, err := s.bus.Start(ctx, uuid)
	if err := s.do(ctx, job, err); err != nil {
		return fmt.Errorf("start %s: %w", uuid, err)
	}
	return nil
}

// named returns a qube, which is created where there is none of that name.
func (s *system) named(ctx context.Context, name string) (client.Qube, error) {
	snapshot, err := s.bus.Snapshot(ctx)
	if err != nil {
		return client.Qube{}, err
	}
	if q, ok := snapshot.Named(name); ok {
		return q, nil
	}
	job, err := s.bus.CreateQube(ctx, name, "AppVM", "green", map[string]string{"template": snapshot.DefaultTemplate})
	if err := s.do(ctx, job, err); err != nil {
		return client.Qube{}, fmt.Errorf("create %s: %w", name, err)
	}
	var q client.Qube
	err = until(ctx, 5*time.Millisecond, "the new qube "+name, func() (ok bool, err error) {
		snapshot, err := s.bus.Snapshot(ctx)
		q, ok = snapshot.Named(name)
		return ok, err
	})
	return q, err
}

// find waits for a window of a qube ("" is dom0) whose class contains a text.
func (s *system) find(ctx context.Context, qube, class string) (screen.Window, error) {
	var found screen.Window
	err := until(ctx, 5*time.Millisecond, fmt.Sprintf("a window %s of %q", class, qube), func() (bool, error) {
		windows, err := s.screen.Windows()
		for _, w := range windows {
			if w.Qube == qube && strings.Contains(w.Class, class) {
				found = w
				return true, err
			}
		}
		return false, err
	})
	return found, err
}

// focus raises a window and gives it the keyboard.
func (s *system) focus(ctx context.Context, w x11.Window) error {
	atom, err := s.x.Atom("_NET_ACTIVE_WINDOW")
	if err != nil {
		return err
	}
	s.x.SendClientMessage(s.x.Root(), w, atom, x11.MaskSubstructureNotify|x11.MaskSubstructureRedirect, [5]uint32{2})
	return until(ctx, 5*time.Millisecond, "the keyboard's focus", func() (bool, error) {
		focus, err := s.x.InputFocus()
		return focus == w, err
	})
}

// press presses and releases the key of a letter.
func (s *system) press(letter rune) error {
	code := s.keys.Code(x11.Keysym(letter))
	if code == 0 {
		return fmt.Errorf("no key for %q", letter)
	}
	s.x.FakeKey(code, true)
	s.x.FakeKey(code, false)
	return s.x.Sync()
}
