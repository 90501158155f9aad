// Command qubes-policy-agent asks the person at the screen whether a call
// between qubes may be made, and tells of calls that were refused.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"cubicle/app/ask/agent"
	"cubicle/app/program"
	"cubicle/app/words"
	"cubicle/daemon/paths"
	"cubicle/guid/notice"
	"cubicle/guid/x11"
)

type options struct {
	program.Flags
	Serve  serve  `cmd:"" default:"withargs" help:"Answer dom0's questions (what it does without a command)."`
	Dialog dialog `cmd:"" hidden:"" help:"One question, from standard input to standard output."`
	Toasts toasts `cmd:"" hidden:"" help:"Notices, from standard input."`
}

type serve struct {
	Timeout time.Duration `help:"How long a question may stand before it is denied." default:"5m"`
}

func main() {
	var o options
	run := kong.Parse(&o, kong.Name("qubes-policy-agent"),
		kong.Description("Asks whether a call between qubes may be made, and tells of calls that were refused. A session has one."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run.BindTo(ctx, (*context.Context)(nil))
	if err := run.Run(&o.Flags); err != nil {
		fmt.Fprintln(os.Stderr, "qubes-policy-agent:", err)
		os.Exit(1)
	}
}

// settle leaves the desktop's other programs the time to appear before a
// dialog is made ready.
const settle = 3 * time.Second

// Run answers on the socket until the session ends.
func (s *serve) Run(ctx context.Context, f *program.Flags) error {
	root, err := paths.Resolve(f.Root)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Without a screen nobody can be asked: the socket must not say otherwise.
	screen, err := x11.Dial("")
	if err != nil {
		return fmt.Errorf("the screen: %w", err)
	}
	defer screen.Close()
	go func() {
		for range screen.Events() {
			// Nothing of it concerns us; unread, it would pile up.
		}
	}()
	// Here, so that no two of our processes do it at once.
	if err := program.Folders(appID); err != nil {
		return err
	}
	if err := program.Compose(); err != nil {
		return err
	}
	l, err := agent.Listen(root.PolicyAgent())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-screen.Done():
			cancel(errors.New("the X server is gone"))
		case <-ctx.Done():
		}
	}()
	log := slog.Default()
	command := func(name string) func() *exec.Cmd {
		return func() *exec.Cmd {
			cmd := exec.Command(self, name, "--root", string(root))
			if f.Bus != "" {
				cmd.Args = append(cmd.Args, "--bus", f.Bus)
			}
			cmd.Stderr = os.Stderr
			return cmd
		}
	}
	dialogs := &agent.Dialogs{Log: log, Command: command("dialog")}
	defer dialogs.Close()
	ready := time.AfterFunc(settle, dialogs.Ready)
	defer ready.Stop()
	queue := &agent.Queue{Show: dialogs.Show, Patience: s.Timeout, Log: log}

	toasts := &agent.Toasts{Log: log, Command: command("toasts"), Pressed: func(about string) { openManager(ctx, self, about, log) }}
	defer toasts.Close()
	desk := notice.NewDesk("", toasts.Pressed)
	defer desk.Close()
	notices := agent.NewNotices(func(ctx context.Context, n agent.Notice, replaces uint32) (uint32, error) {
		id, err := desk.Show(ctx, notice.Notice{Program: "Qubes", Icon: "dialog-information", Title: n.Title, Text: n.Text,
			Button: words.T("Open Qube Manager"), About: n.About}, replaces)
		if err != nil {
			return toasts.Show(ctx, n, replaces)
		}
		return id, nil
	}, log)
	go notices.Run(ctx)

	server := &agent.Server{Ask: queue.Ask, Tell: notices.Tell, Users: []uint32{uint32(os.Getuid())}, Log: log}
	err = server.Serve(ctx, l)
	if err == nil && screen.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// openManager brings the Qube Manager's window forward, or starts it: that is
// the program's own business. It shows the calls of a qube, where there is
// one. One that was started ends with us.
func openManager(ctx context.Context, self, name string, log *slog.Logger) {
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(self), "qube-manager"))
	if name != "" {
		cmd.Args = append(cmd.Args, "--calls="+name)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		log.Error("the Qube Manager does not start", "error", err)
		return
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			log.Warn("the Qube Manager has ended", "error", err)
		}
	}()
}
