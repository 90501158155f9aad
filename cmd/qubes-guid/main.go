// Command qubes-guid shows the windows of all running qubes on dom0's X
// server, each in a frame of its qube's colour. Started as it is, it follows
// qubesd and keeps one process for each running qube, which is this program
// again with --qube-process.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
	"cubicle/guid/display"
	"cubicle/guid/jail"
	"cubicle/guid/session"
	"cubicle/guid/supervise"
	"cubicle/guid/window"
	"cubicle/guid/wire"
	"cubicle/guid/x11"
)

type flags struct {
	Root  string `help:"Folder of the whole system (default: $$CUBICLE_ROOT, or /)." type:"path" placeholder:"DIR"`
	Debug bool   `help:"Log details." env:"CUBICLE_DEBUG"`

	AllowFullscreen bool     `help:"Let qubes fill the screen (else they are maximised instead). The frame stays visible."`
	AllowUTF8Titles bool     `name:"allow-utf8-titles" help:"Show characters beyond ASCII in titles, but for those that change how others are shown."`
	NoOverride      bool     `name:"no-override-redirect" help:"Put menus and tooltips under the window manager's control too."`
	Locker          []string `help:"WM_CLASS instance of a screen locker, which no qube's window may cover." default:"xscreensaver" placeholder:"NAME"`

	// One qube without qubesd.
	Domid    uint32 `group:"One qube, without qubesd:" help:"Domain of the qube." placeholder:"N"`
	Name     string `group:"One qube, without qubesd:" help:"Name of the qube." placeholder:"NAME"`
	Label    string `group:"One qube, without qubesd:" help:"Its label." default:"red" placeholder:"LABEL"`
	VchanDir string `group:"One qube, without qubesd:" name:"vchan-dir" help:"Folder of upstream-named channel sockets." type:"path" placeholder:"DIR"`

	QubeProcess bool   `hidden:"" help:"Serve one qube on inherited descriptors."`
	LabelIndex  uint8  `hidden:""`
	LabelColor  string `hidden:"" default:"0xcc0000"`
	Region      bool   `hidden:""`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("qubes-guid"), kong.Description("Shows the windows of qubes in frames of their colour."), kong.UsageOnError())
	level := slog.LevelInfo
	if f.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	run := supervisor
	if f.QubeProcess {
		log = log.With("qube", f.Name)
		run = qubeProcess
	}
	err := run(ctx, f, log)
	if err == nil || ctx.Err() != nil {
		return
	}
	log.Error("failed", "error", err)
	if f.QubeProcess {
		os.Exit(exitState(err))
	}
	os.Exit(supervise.ExitFailed)
}

// exitState tells the supervisor why a qube's session ended.
func exitState(err error) int {
	var offence *window.OffenceError
	var protocol *wire.ProtocolError
	var version *wire.VersionError
	switch {
	case errors.Is(err, session.ErrDisplayLost):
		return supervise.ExitDisplayLost
	case errors.As(err, &offence), errors.As(err, &protocol):
		return supervise.ExitOffence
	case errors.As(err, &version):
		return supervise.ExitVersion
	case errors.Is(err, os.ErrDeadlineExceeded):
		return supervise.ExitStalled
	case errors.Is(err, wire.ErrQueueFull):
		return supervise.ExitDeaf
	}
	return supervise.ExitFailed
}

// firstInherited is the first descriptor that no program of ours expects.
const firstInherited = 3

// dialScreen connects to dom0's X server. follow reads its events.
func dialScreen(follow func(*x11.Conn)) (supervise.Screen, error) {
	c, err := x11.Dial("")
	if err != nil {
		return nil, err
	}
	go follow(c)
	return c, nil
}

// unread takes events that nobody needs.
func unread(c *x11.Conn) {
	for range c.Events() {
	}
}

// setKeyboard makes a layout dom0's, from which the qubes have theirs.
func setKeyboard(ctx context.Context, bus *client.Client, layout string) error {
	const property = "keyboard_layout"
	known, err := bus.Properties(ctx, string(qube.Dom0UUID))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(known, func(p client.Property) bool { return p.Name == property && p.Value == layout }) {
		return nil
	}
	return bus.SetProperty(ctx, string(qube.Dom0UUID), property, layout)
}

// supervisor keeps one process for each running qube, and waits for dom0's X
// server while that is away.
func supervisor(ctx context.Context, f flags, log *slog.Logger) error {
	if os.Getenv("DISPLAY") == "" {
		return errors.New("DISPLAY is not set: qubes-guid needs dom0's X server")
	}
	// What our parent left open must not reach the jailed processes.
	if err := unix.CloseRange(firstInherited, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep inherited descriptors to ourselves: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s := &supervise.Supervisor{Run: supervise.Executable(self, f.policy()...), Log: log, Notify: supervise.SessionBus("")}
	if f.VchanDir != "" {
		q, err := f.single()
		if err != nil {
			return err
		}
		s.Source, s.Dial = supervise.Single(q), supervise.SocketDialer(f.VchanDir)
		s.ServeOn(ctx, func() (supervise.Screen, error) { return dialScreen(unread) })
		return nil
	}
	root, err := paths.Resolve(f.Root)
	if err != nil {
		return err
	}
	bus, err := client.Connect(ctx, client.Address(root))
	if err != nil {
		return err
	}
	defer bus.Close()
	s.Source, s.Dial = supervise.Bus{Client: bus, Tell: s.Tell}, supervise.BrokerDialer(root.Broker())
	keyboard := supervise.Keyboard{Log: log, Set: func(ctx context.Context, layout string) error { return setKeyboard(ctx, bus, layout) }}
	s.ServeOn(ctx, func() (supervise.Screen, error) {
		return dialScreen(func(c *x11.Conn) { keyboard.Follow(ctx, c) })
	})
	return nil
}

// policy are the flags that every qube's process gets.
func (f flags) policy() []string {
	args := []string{"--locker", strings.Join(f.Locker, ",")}
	for _, o := range []struct {
		flag string
		on   bool
	}{
		{"--allow-fullscreen", f.AllowFullscreen},
		{"--allow-utf8-titles", f.AllowUTF8Titles},
		{"--no-override-redirect", f.NoOverride},
		{"--debug", f.Debug},
	} {
		if o.on {
			args = append(args, o.flag)
		}
	}
	return args
}

func (f flags) single() (supervise.Qube, error) {
	name, err := qube.ParseName(f.Name)
	if err != nil {
		return supervise.Qube{}, err
	}
	l, err := qube.ParseLabel(f.Label)
	if err != nil {
		return supervise.Qube{}, err
	}
	return supervise.Qube{Domain: vchan.Domain(f.Domid), Name: string(name), LabelIndex: uint8(l.Index), LabelColor: l.Color}, nil
}

// qubeProcess serves one qube on the descriptors that the supervisor gave.
func qubeProcess(ctx context.Context, f flags, log *slog.Logger) error {
	color, err := strconv.ParseUint(f.LabelColor, 0, 24)
	if err != nil {
		return fmt.Errorf("label colour: %w", err)
	}
	channel, err := inherit(supervise.ChannelFD)
	if err != nil {
		return err
	}
	var region *os.File
	if f.Region {
		region = os.NewFile(supervise.RegionFD, "pixel region")
		unix.CloseOnExec(supervise.RegionFD)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leash := os.NewFile(supervise.LeashFD, "leash")
	unix.CloseOnExec(supervise.LeashFD)
	go func() {
		io.Copy(io.Discard, leash) // its end, of whatever kind, is the supervisor's
		cancel()
	}()
	cfg := session.Config{
		Screen: display.Config{
			Name:    f.Name,
			Label:   display.Label{Index: f.LabelIndex, Color: uint32(color)},
			Lockers: f.Locker,
		},
		Windows: window.Config{
			AllowFullscreen: f.AllowFullscreen,
			AllowUTF8Titles: f.AllowUTF8Titles,
			ForbidOverride:  f.NoOverride,
		},
		Confine: func() error {
			weakness, err := jail.Enter()
			if weakness != "" {
				log.Warn("jailed, but", "weakness", weakness)
			}
			return err
		},
	}
	return session.Run(ctx, cfg, channel, region, log)
}

// inherit takes over a socket that was open when this process started.
func inherit(fd uintptr) (net.Conn, error) {
	f := os.NewFile(fd, "channel")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("the qube's channel at descriptor %d: %w", fd, err)
	}
	return conn, nil
}
