// Command cubicle runs a whole Cubicle desktop without systemd: up, down,
// shot, doctor; and import and export, from and to a Qubes OS.
package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/desktop"
	"cubicle/daemon/doctor"
	"cubicle/daemon/engine/sandbox"
	"cubicle/daemon/launch"
	"cubicle/daemon/paths"
	"cubicle/guid/screen"
	"cubicle/guid/x11"
)

type cli struct {
	Up     upCmd     `cmd:"" help:"Start the desktop: qubes, their windows in coloured frames, and the Qube Manager. Ctrl-C stops everything that it started."`
	Down   downCmd   `cmd:"" help:"Stop the desktop of a root folder and everything that it started."`
	Shot   shotCmd   `cmd:"" help:"Save a picture of the desktop."`
	Doctor doctorCmd `cmd:"" help:"Tell what this machine offers to run qubes with, what follows, and how to mend what is missing."`
	Import importCmd `cmd:"" help:"Bring the qubes of a Qubes OS over: read its qubes.xml, tell what would be done, and with --apply do it."`
	Export exportCmd `cmd:"" help:"Write all qubes and settings as a qubes.xml."`

	System   systemCmd   `cmd:"" hidden:"" help:"The part of up that runs as root."`
	KVMGuest kvmGuestCmd `cmd:"" name:"kvm-guest" hidden:"" help:"Run a tiny KVM guest."`
}

// defaultRoot is where a desktop lives when nothing else is said: beside the
// real system, and where no parent folder is closed to a sandbox's root.
const defaultRoot = "/var/lib/cubicle"

type rootFlag struct {
	Root string `type:"path" env:"CUBICLE_ROOT" default:"${root}" placeholder:"DIR" help:"Folder that holds the whole system (default ${root})."`
}

func main() {
	var c cli
	parser := kong.Must(&c, kong.Name("cubicle"), kong.UsageOnError(),
		kong.Description("The Qubes OS architecture as a desktop suite: every activity in its own qube."),
		kong.Vars{"root": defaultRoot})
	k, err := parser.Parse(os.Args[1:])
	if err != nil {
		parser.FatalIfErrorf(err)
	}
	// A terminal or a log that is gone must not end us: there are qubes to
	// stop. Writing to it fails from then on.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	k.BindTo(ctx, (*context.Context)(nil))
	err = k.Run()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cubicle:", err)
		os.Exit(1)
	}
}

// places are the root folder, and the folder of our programs: the one that
// this program is in.
func (f rootFlag) places() (root paths.Root, programs string, err error) {
	if root, err = paths.New(f.Root); err != nil {
		return "", "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", "", err
	}
	return root, filepath.Dir(self), nil
}

// logTo returns a log of the desktop's programs that writes to standard
// error, through which our own messages go as well.
func logTo(name string) *launch.Log {
	l := launch.NewLog(os.Stderr, isTerminal(os.Stderr), 9)
	slog.SetDefault(slog.New(slog.NewTextHandler(l.Writer(name), &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{} // the log has its own
			}
			return a
		},
	})))
	return l
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

type upCmd struct {
	rootFlag
	Engine   string `placeholder:"NAME" help:"Engine for qubes that name none: runsc or crun (default: the strongest that works here)."`
	Display  string `placeholder:":N" help:"X display to use; an X server of its own is started there if none answers."`
	Headless bool   `help:"Start an X server in memory even where there is a DISPLAY."`
	Size     string `default:"1920x1080" placeholder:"WxH" help:"Size of the screen in memory (default ${default})."`
	PNG      string `type:"path" name:"png" default:"desktop.png" placeholder:"FILE" help:"Where the picture of the ready desktop goes (default ${default})."`
}

func (c *upCmd) Run(ctx context.Context) error {
	root, programs, err := c.places()
	if err != nil {
		return err
	}
	return desktop.Up(ctx, desktop.UpOptions{
		Root: root, Bin: programs, Engine: c.Engine, Display: c.Display, Headless: c.Headless, Size: c.Size, PNG: c.PNG,
		Log: logTo("cubicle"), Out: os.Stdout, Terminal: isTerminal(os.Stdout), Open: open,
	})
}

// looker adapts guid/screen to what package desktop asks for.
type looker struct{ *screen.Screen }

func open(display, xauthority string) (desktop.Screen, error) {
	if xauthority != "" {
		// The X wrapper looks there for the cookie, as every X client does.
		if err := os.Setenv("XAUTHORITY", xauthority); err != nil {
			return nil, err
		}
	}
	s, err := screen.Open(display)
	if err != nil {
		return nil, err
	}
	return looker{s}, nil
}

func (l looker) Windows() ([]desktop.Window, error) {
	found, err := l.Screen.Windows()
	if err != nil {
		return nil, err
	}
	windows := make([]desktop.Window, len(found))
	for i, w := range found {
		drawn, err := l.IsDrawn(w)
		if err != nil {
			return nil, err
		}
		windows[i] = desktop.Window{ID: uint32(w.ID), Qube: w.Qube, Class: w.Class, Drawn: drawn}
	}
	return windows, nil
}

func (l looker) Move(w desktop.Window, place image.Rectangle) error {
	return l.Screen.Move(x11.Window(w.ID), place)
}

type systemCmd struct {
	rootFlag
	Engine  string
	UserUID int `name:"user-uid" required:""`
	UserGID int `name:"user-gid" required:""`
	UpPID   int `name:"up-pid" required:""`
}

func (c *systemCmd) Run(ctx context.Context) error {
	root, programs, err := c.places()
	if err != nil {
		return err
	}
	return desktop.System(ctx, desktop.SystemOptions{
		Root: root, Bin: programs, Engine: c.Engine, UserUID: c.UserUID, UserGID: c.UserGID, UpPID: c.UpPID,
		Log: logTo("system"), Ready: os.Stdout, Stop: os.Stdin, Patience: 15 * time.Second,
	})
}

type downCmd struct{ rootFlag }

func (c *downCmd) Run(ctx context.Context) error {
	root, programs, err := c.places()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within two minutes"))
	defer cancel()
	return desktop.Down(ctx, root, func(ctx context.Context) error {
		args := desktop.SystemArgs(root, programs, "")
		system := exec.CommandContext(ctx, args[0], args[1:]...) // its input is empty: it stops at once
		system.Stderr = os.Stderr
		return system.Run()
	})
}

type shotCmd struct {
	rootFlag
	Display string `placeholder:":N" help:"X display (default: that of the desktop in the root folder, else DISPLAY)."`
	File    string `arg:"" type:"path" help:"PNG file to write."`
}

func (c *shotCmd) Run(context.Context) error {
	root, err := paths.New(c.Root)
	if err != nil {
		return err
	}
	display, authority := c.Display, ""
	if display == "" {
		if display, authority, err = desktop.Display(root); err != nil {
			return err
		}
	}
	s, err := open(display, authority)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.SavePNG(c.File)
}

type doctorCmd struct{ rootFlag }

func (c *doctorCmd) Run(ctx context.Context) error {
	root, programs, err := c.places()
	if err != nil {
		return err
	}
	machine := doctor.Machine{Root: "/", StateDir: root.State(), TryKVM: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer within 5 s"))
		defer cancel()
		out, err := exec.CommandContext(ctx, filepath.Join(programs, "cubicle"), "kvm-guest").CombinedOutput()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s", out)
		}
		return nil
	}}
	checks := machine.Checks()
	for _, runtime := range []string{"runsc", "crun"} {
		check, err := engineCheck(root, programs, runtime)
		if err != nil {
			return err
		}
		checks = append(checks, check)
	}
	return doctor.Print(os.Stdout, doctor.Run(ctx, checks), isTerminal(os.Stdout))
}

type kvmGuestCmd struct{}

func (*kvmGuestCmd) Run() error { return doctor.KVMGuest() }

func engineCheck(root paths.Root, programs, runtime string) (doctor.Check, error) {
	binary := filepath.Join(programs, runtime)
	if _, err := os.Stat(binary); err != nil {
		binary = "" // the engine looks in PATH
	}
	e, err := sandbox.New(sandbox.Options{Runtime: runtime, Binary: binary, Root: root})
	if err != nil {
		return nil, err
	}
	c := e.Capabilities()
	return doctor.Engine(runtime, string(c.Isolation), c.Weakness, func(ctx context.Context) error {
		return errors.Join(e.Probe(ctx), e.Close())
	}), nil
}
