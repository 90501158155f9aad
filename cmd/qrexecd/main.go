// Command qrexecd is dom0's router of qrexec calls: it owns the links of all
// running qubes, follows qubesd, and locks itself in before it listens.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec"
	"cubicle/daemon/qrexec/jail"
)

type flags struct {
	Root     string   `help:"Folder of the whole system (default: $$CUBICLE_ROOT, or /)." type:"path" placeholder:"DIR"`
	AllowUID []uint32 `help:"User who may use the broker and the qubes' sockets, beside root and our own." name:"allow-uid" placeholder:"N"`
	UID      int      `help:"User to run as when started by root (default: stay)." name:"uid" placeholder:"N"`
	GID      int      `help:"Its only group." name:"gid" placeholder:"N"`
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
	// It passes things on, in system calls, which run beside each other all the
	// same: with few processors for Go code a message is handed on without
	// waking another one. Large machines move many streams at once.
	runtime.GOMAXPROCS(max(1, runtime.NumCPU()/4))
	root, err := paths.Resolve(f.Root)
	if err != nil {
		return err
	}
	// Whoever starts us makes these with the right owners; alone we make do.
	for _, dir := range []string{root.RunQubes(), root.Links(), root.Vchan()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := become(f.UID, f.GID); err != nil {
		return err
	}
	if err := qrexec.ClearStale(root); err != nil {
		log.Warn("what an earlier qrexecd left stays", "err", err)
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

// become gives up root's rights for good. It is done here and not by who
// starts us, because our program may lie in a folder that is closed to that
// user.
func become(uid, gid int) error {
	if uid == 0 || os.Geteuid() != 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leave the groups: %w", err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	return nil
}
