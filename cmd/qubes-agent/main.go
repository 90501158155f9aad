// Command qubes-agent is everything that runs inside a qube. Which of its
// programs it is, the name it was called by or its first argument tells.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/agents/gui"
	pid1 "cubicle/agents/init"
	"cubicle/agents/link"
	"cubicle/agents/qrexec"
	"cubicle/agents/session"
	"cubicle/daemon/vchan"
)

type commands struct {
	Debug bool `help:"Log details." env:"CUBICLE_DEBUG"`

	Init   initCmd   `cmd:"" help:"Be the first process of a sandbox qube."`
	Link   linkCmd   `cmd:"" help:"Share the link to dom0 among the qube's agents."`
	Qrexec qrexecCmd `cmd:"" help:"Run commands and services that dom0 asks for."`
	Gui    guiCmd    `cmd:"" help:"Show the windows of an X display in dom0."`
}

type initCmd struct{}

func (initCmd) Run(log *slog.Logger) error { return pid1.Run(log) }

type linkCmd struct {
	Upstream string `help:"Socket of qrexecd." default:"${upstream}"`
	Local    string `help:"Socket for the agents." default:"${local}"`
}

func (c linkCmd) Run(ctx context.Context, log *slog.Logger) error {
	r := link.Relay{Upstream: c.Upstream, Local: c.Local, Log: log}
	return ended(ctx, r.Run(ctx))
}

type guiCmd struct {
	Display string `help:"X display." env:"DISPLAY" default:":0"`
	Peer    uint32 `help:"Domain that shows the windows." default:"0"`
	Status  string `help:"File that tells how far the agent is; empty for none." default:"${status}"`
	Local   string `help:"Socket of the link's relay." default:"${local}"`
}

func (c guiCmd) Run(ctx context.Context, log *slog.Logger) error {
	t, err := transport(c.Local)
	if err != nil {
		return err
	}
	return gui.Run(ctx, t, gui.Options{Display: c.Display, Peer: vchan.Domain(c.Peer), StatusFile: c.Status, Log: log})
}

// transport is upstream's sockets for an agent started by hand with its
// variables set, else the relay.
func transport(local string) (vchan.Transport, error) {
	u, ok, err := vchan.FromEnv()
	if err != nil || ok {
		return u, err
	}
	return &link.Transport{Path: local}, nil
}

type qrexecCmd struct {
	Local string `help:"Socket of the link's relay." default:"${local}"`
}

func (c qrexecCmd) Run(ctx context.Context, log *slog.Logger) error {
	t, err := transport(c.Local)
	if err != nil {
		return err
	}
	return ended(ctx, qrexec.Run(ctx, t, qrexec.Options{Log: log}))
}

// ended is nil when a program stopped because it was asked to.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// byName tells which arguments stand for a name of the binary.
func byName(argv0 string) []string {
	switch filepath.Base(argv0) {
	case "init":
		return []string{"init"}
	case "qubes-gui":
		return []string{"gui"}
	case "qrexec-agent":
		return []string{"qrexec"}
	}
	return nil
}

func main() {
	args := append(byName(os.Args[0]), os.Args[1:]...)
	var cli commands
	parser := kong.Must(&cli, kong.Name("qubes-agent"), kong.Description("The agents of a qube."),
		kong.Vars{"upstream": link.Upstream, "local": link.Local, "status": session.StateFile})
	k, err := parser.Parse(args)
	parser.FatalIfErrorf(err)

	level := slog.LevelInfo
	if cli.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("agent", k.Selected().Name)
	ctx, stop := context.Background(), func() {}
	if k.Selected().Name != "init" { // which reads signals itself
		ctx, stop = signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	}
	k.BindTo(ctx, (*context.Context)(nil))
	k.Bind(log)
	err = k.Run()
	stop()
	if err != nil {
		log.Error("failed", "err", err)
		os.Exit(1)
	}
}
