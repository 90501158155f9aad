package qvm

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
	qrexec "cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/wire"
)

type run struct {
	verbosity
	User        string   `short:"u" placeholder:"USER" help:"User in the qube (default: the qube's default user)."`
	Autostart   bool     `short:"a" default:"true" help:"Start the qube if it is not running (so it is anyway)."`
	NoAutostart bool     `short:"n" name:"no-autostart" aliases:"no-start" help:"Do not start the qube."`
	PassIO      bool     `short:"p" name:"pass-io" help:"Pass stdin, stdout and stderr through, and the exit status."`
	Filter      bool     `name:"filter-escape-chars" help:"Show unprintable bytes of the qube as _ (so it is on a terminal)." xor:"filter"`
	NoFilter    bool     `name:"no-filter-escape-chars" help:"Do not." xor:"filter"`
	Gui         bool     `xor:"gui" help:"Wait for the qube's graphical session first (so it is when DISPLAY is set)."`
	NoGui       bool     `name:"no-gui" xor:"gui" help:"Do not."`
	Service     bool     `help:"COMMAND is the name of a service."`
	All         bool     `help:"In all running qubes."`
	Exclude     []string `help:"With --all: not this one. May be given several times." sep:"none" placeholder:"VMNAME"`
	Words       []string `arg:"" optional:"" passthrough:"" name:"VMNAME COMMAND" help:"Qube, then the command with its arguments. With --all only the command."`
}

func (r *run) run(ctx context.Context, e *env) error {
	words := r.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	list, err := e.List(ctx)
	if err != nil {
		return err
	}
	if r.All {
		list = slices.DeleteFunc(list, func(q client.Qube) bool {
			return q.Class == "AdminVM" || q.State != "Running" || slices.Contains(r.Exclude, q.Name)
		})
	} else {
		if len(words) < 2 {
			return usage("VMNAME and COMMAND are needed")
		}
		if list, err = named(list, words[:1]); err != nil {
			return err
		}
		words = words[1:]
		if words[0] == "--" && len(words) > 1 {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return usage("COMMAND is needed")
	}
	if r.Service && len(words) > 1 {
		return usage("a service takes no arguments but those in its name")
	}
	if r.PassIO && len(list) > 1 {
		return usage("--pass-io is for one qube")
	}
	worst := 0
	for _, q := range list {
		status, err := r.one(ctx, e, q, strings.Join(words, " "))
		if err != nil {
			return err
		}
		worst = max(worst, status)
	}
	if worst != 0 {
		return &Failure{Status: worst}
	}
	return nil
}

func (r *run) one(ctx context.Context, e *env, q client.Qube, command string) (int, error) {
	if q.Class == "AdminVM" {
		return 0, usage("%s cannot run commands for itself this way", q.Name)
	}
	if q.State != "Running" {
		if r.NoAutostart || q.State == "Paused" {
			return 0, fmt.Errorf("domain %s is not running", q.Name)
		}
		if _, err := e.Call(ctx, q.Name, "admin.vm.Start", "", nil); err != nil {
			return 0, err
		}
	}
	if !r.Quiet {
		fmt.Fprintf(e.Err, "Running '%s' on %s\n", command, q.Name)
	}
	call := qrexec.Call{Root: e.root, Target: q.Name}
	switch {
	case r.Service:
		call.Command = qrexec.Service(r.User, command)
		call.JustExec = !r.PassIO
	default:
		service := "qubes.VMShell"
		if r.Gui || os.Getenv("DISPLAY") != "" && !r.NoGui {
			service += "+WaitForSession"
		}
		call.Command = qrexec.Service(r.User, service)
		call.PrefixData = []byte(command + "; exit\n")
	}
	if r.PassIO {
		call.Stdin, call.Stdout, call.Stderr = e.In, r.filter(e.Out), r.filter(e.Err)
	}
	return qrexec.Run(ctx, call)
}

// filter keeps a qube from steering dom0's terminal.
func (r *run) filter(w io.Writer) io.Writer {
	if r.NoFilter || !r.Filter && !isTerminal(w) {
		return w
	}
	return wire.NewEscapeFilter(w)
}
