// Command qrexecd is dom0's router of qrexec calls: it owns the links of all
// running qubes, follows qubesd, and locks itself in before it listens.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec"
	"cubicle/daemon/qrexec/jail"
)

type flags struct {
	Root     string   `help:"Folder of the whole system (default: $$CUBICLE_ROOT, or /)." type:"path" placeholder:"DIR"`
	AllowUID []uint32 `help:"User who may use the broker and the qubes' sockets, beside root and our own." name:"allow-uid" placeholder:"N"`
	Debug    bool     `help:"Log details." env:"CUBICLE_DEBUG"`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("qrexecd"), kong.Description("Routes qrexec calls between dom0 and the qubes."), kong.UsageOnError())
	level := slog.LevelInfo
	if f.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(log, f); err != nil {
		log.Error("failed", "err", err)
		os.Exit(1)
	}
}

func run(log *slog.Logger, f flags) error {
	root, err := paths.FromEnv()
	if f.Root != "" {
		root, err = paths.New(f.Root)
	}
	if err != nil {
		return err
	}
	// Whoever starts us makes these with the right owners; alone we make do.
	for _, dir := range []string{root.RunQubes(), root.Links(), root.Vchan()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	router := qrexec.New(qrexec.Options{Root: root, AllowUIDs: f.AllowUID, Log: log})
	weakness, err := jail.Enter(root)
	if err != nil {
		return err
	}
	if weakness != "" {
		log.Warn("jailed, but", "weakness", weakness)
	} else {
		log.Info("jailed")
	}
	return router.Run(ctx)
}
