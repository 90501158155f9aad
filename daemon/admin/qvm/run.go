package qvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
	qrexec "cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/wire"
)

type run struct {
	verbosity
	User        string   `short:"u" placeholder:"USER" help:"User in the qube (default: the qube's default user)."`
	Autostart   bool     `short:"a" aliases:"auto" default:"true" help:"Start the qube if it is not running (so it is anyway)."`
	NoAutostart bool     `short:"n" name:"no-autostart" aliases:"no-auto,no-start" help:"Do not start the qube."`
	PassIO      bool     `short:"p" name:"pass-io" help:"Pass stdin, stdout and stderr through, and the exit status."`
	LocalCmd    string   `name:"localcmd" placeholder:"COMMAND" help:"With --pass-io: connect stdin and stdout to this command of dom0."`
	Filter      bool     `name:"filter-escape-chars" help:"Show unprintable bytes of the qube as _ (so it is on a terminal)." xor:"filter"`
	NoFilter    bool     `name:"no-filter-escape-chars" help:"Do not. A qube can then do to the terminal what it likes." xor:"filter"`
	Color       string   `name:"colour-output" aliases:"color-output" placeholder:"COLOUR" help:"Colour of the qube's output, as a number that terminals know (default on a terminal: 31, red)." xor:"color"`
	NoColor     bool     `name:"no-colour-output" aliases:"no-color-output" help:"No colour for the qube's output." xor:"color"`
	ColorErr    string   `name:"colour-stderr" aliases:"color-stderr" placeholder:"COLOUR" help:"Colour of what the qube writes on stderr (default on a terminal: 31)." xor:"colorerr"`
	NoColorErr  bool     `name:"no-colour-stderr" aliases:"no-color-stderr" help:"No colour for the qube's stderr." xor:"colorerr"`
	Gui         bool     `xor:"gui" help:"Wait for the qube's graphical session first (so it is when DISPLAY is set)."`
	NoGui       bool     `name:"no-gui" aliases:"nogui" xor:"gui" help:"Do not."`
	Service     bool     `help:"COMMAND is the name of a service, with + and an argument if wished."`
	NoShell     bool     `name:"no-shell" help:"Run the words as they are, without a shell in the qube."`
	DispVM      string   `name:"dispvm" maybe:"@default" placeholder:"BASE" help:"In a new disposable, made from BASE (default: the system's default_dispvm)." complete:"disptemplate"`
	All         bool     `help:"In all running qubes."`
	Exclude     []string `help:"With --all: not this one. May be given several times." sep:"none" placeholder:"VMNAME" complete:"qube"`
	Words       []string `arg:"" optional:"" name:"VMNAME COMMAND" help:"Qube, then the command with its arguments. With --all and --dispvm only the command." complete:"command"`
}

// passFrom implements passer: the command's own options follow it.
func (r *run) passFrom(given map[string]bool) int {
	if given["all"] || given["dispvm"] {
		return 0
	}
	return 1
}

func (r *run) run(ctx context.Context, e *env) error {
	list, words, err := r.targets(ctx, e)
	if err != nil {
		return err
	}
	switch {
	case len(words) == 0 && r.DispVM != "":
		return usage("COMMAND is needed; %q was taken for the disposable's template: write --dispvm=BASE, or -- before the command", r.DispVM)
	case len(words) == 0:
		return usage("COMMAND is needed")
	case r.Service && len(words) > 1:
		return usage("a service takes no arguments but those in its name")
	case r.Service && strings.ContainsAny(words[0], " \x00"):
		return usage("%q is not the name of a service", words[0])
	case r.PassIO && len(list) > 1:
		return usage("--pass-io is for one qube")
	case r.LocalCmd != "" && !r.PassIO:
		return usage("--localcmd goes with --pass-io")
	}
	if r.DispVM != "" {
		return r.inDisposable(ctx, e, words)
	}
	worst := 0
	err = e.each(list, func(q client.Qube) error {
		status, err := r.one(ctx, e, q, words)
		if f, ok := errors.AsType[*Failure](err); ok && len(list) == 1 {
			return f
		}
		worst = max(worst, status)
		return err
	})
	if err == nil && worst != 0 {
		return &Failure{Status: worst}
	}
	return err
}

// targets are the qubes to run in, and the command.
func (r *run) targets(ctx context.Context, e *env) (list []client.Qube, words []string, err error) {
	words = r.Words
	switch {
	case r.All && r.DispVM != "":
		return nil, nil, usage("--all and --dispvm exclude each other")
	case !r.All && len(r.Exclude) > 0:
		return nil, nil, usage("--exclude can only be used with --all")
	case r.DispVM != "":
		return nil, words, nil
	case r.All:
		if list, err = e.List(ctx); err != nil {
			return nil, nil, err
		}
		return slices.DeleteFunc(list, func(q client.Qube) bool {
			return q.IsAdmin() || q.State != "Running" || slices.Contains(r.Exclude, q.Name)
		}), words, nil
	case len(words) < 2:
		return nil, nil, usage("VMNAME and COMMAND are needed")
	}
	q, err := e.one(ctx, words[0])
	if err != nil {
		return nil, nil, err
	}
	words = words[1:]
	if words[0] == "--" && len(words) > 1 {
		words = words[1:]
	}
	return []client.Qube{q}, words, nil
}

// inDisposable makes a disposable for the command and removes it afterwards.
func (r *run) inDisposable(ctx context.Context, e *env, words []string) error {
	base := "dom0"
	if r.DispVM != "@default" {
		base = r.DispVM
		if _, err := e.one(ctx, base); err != nil {
			return err
		}
	}
	name, err := e.Call(ctx, base, "admin.vm.CreateDisposable", "", nil)
	if err != nil {
		return fmt.Errorf("error creating a disposable: %w", err)
	}
	// It removes itself when it ends.
	defer func() {
		ctx := context.WithoutCancel(ctx)
		if _, err := e.Call(ctx, name, "admin.vm.Kill", "", nil); client.Is(err, "QubesVMNotStartedError") {
			_, err = e.Call(ctx, name, "admin.vm.Remove", "", nil)
			if err != nil && !client.Is(err, "QubesVMNotFoundError") {
				fmt.Fprintf(e.Err, "%s: error: %v\n", e.prog, err)
			}
		}
	}()
	q, err := e.one(ctx, name)
	if err != nil {
		return err
	}
	status, err := r.one(ctx, e, q, words)
	if err == nil && status != 0 {
		return &Failure{Status: status}
	}
	return err
}

// one runs the command in one qube.
func (r *run) one(ctx context.Context, e *env, q client.Qube, words []string) (int, error) {
	if q.IsAdmin() {
		return 0, usage("%s cannot run commands for itself this way", q.Name)
	}
	if q.State != "Running" {
		if r.NoAutostart || q.State == "Paused" || q.State == "Suspended" {
			return 0, fmt.Errorf("domain %s is not running", q.Name)
		}
		err := e.working(ctx, []string{q.Name}, func() error {
			_, err := e.Call(ctx, q.Name, "admin.vm.Start", "", nil)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	e.say("Running '%s' on %s", strings.Join(words, " "), q.Name)
	call := qrexec.Call{Root: e.root, Target: q.Name}
	name, user, err := r.command(ctx, e, q, words, &call)
	if err != nil {
		return 0, err
	}
	call.Command = qrexec.Service(user, name)
	place := caller(qrexec.Run)
	if e.Remote != nil {
		if user != "" {
			return 0, usage("from a qube it is dom0's policy that says as which user a service runs")
		}
		place = func(ctx context.Context, call qrexec.Call) (int, error) { return e.runRemote(ctx, name, call) }
	}
	if !r.PassIO {
		return place(ctx, call)
	}
	return r.passThrough(ctx, e, call, place)
}

// caller makes a call and returns its status.
type caller func(context.Context, qrexec.Call) (int, error)

// runRemote makes a call from a qube.
func (e *env) runRemote(ctx context.Context, service string, call qrexec.Call) (int, error) {
	in, out, errOut := call.Stdin, call.Stdout, call.Stderr
	if in == nil {
		in = strings.NewReader("")
	}
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	status, err := e.Remote(ctx, call.Target, service, io.MultiReader(bytes.NewReader(call.PrefixData), in), out, errOut)
	if status == wire.StatusRefused && err != nil {
		return status, fmt.Errorf("dom0's policy does not allow %s in %s", service, call.Target)
	}
	return status, err
}

// command is the service to call for the words, and the user to run it as
// (spec/admin-api.md §14).
func (r *run) command(ctx context.Context, e *env, q client.Qube, words []string, call *qrexec.Call) (service, user string, err error) {
	gui := r.Gui || os.Getenv("DISPLAY") != "" && !r.NoGui
	if r.Service {
		call.JustExec = !r.PassIO
		return words[0], r.User, nil
	}
	user, kind := r.User, "VM"
	if user == "root" {
		own, err := e.hasFeature(ctx, q.Name, "supported-rpc.qubes.VMRootExec")
		if err != nil {
			return "", "", err
		}
		if own {
			user, kind, gui = "", "VMRoot", false // services that are root's
		}
	}
	if len(words) > 1 || r.NoShell {
		exact, err := e.hasFeature(ctx, q.Name, "vmexec")
		if err != nil {
			return "", "", err
		}
		if exact {
			service = "qubes." + kind + "Exec"
			if gui && q.Class == "DispVM" {
				service += "GUI"
			}
			return service + "+" + wire.EncodeArgs(words), user, nil
		}
		words = slices.Clone(words)
		for i, w := range words {
			words[i] = quote(w)
		}
	}
	call.PrefixData = []byte(strings.Join(words, " ") + "; exit\n")
	service = "qubes." + kind + "Shell"
	if gui {
		service += "+WaitForSession"
	}
	return service, user, nil
}

// hasFeature tells whether a feature of a qube or its template is true.
func (e *env) hasFeature(ctx context.Context, vm, name string) (bool, error) {
	value, err := e.Call(ctx, vm, "admin.vm.feature.CheckWithTemplate", name, nil)
	if client.Is(err, "QubesFeatureNotFoundError") {
		return false, nil
	}
	return value != "", err
}

// quote makes the shell take a word as it is.
func quote(word string) string {
	if word != "" && safe(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'"'"'`) + "'"
}

// safe reports whether a shell leaves every byte of a word alone.
func safe(word string) bool {
	return strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-") == ""
}

// passThrough runs a call with our streams, or those of a command of dom0.
func (r *run) passThrough(ctx context.Context, e *env, call qrexec.Call, place caller) (int, error) {
	call.Stderr = r.filter(e.Err)
	if r.LocalCmd != "" {
		return r.local(ctx, e, call, place)
	}
	call.Stdin, call.Stdout = e.In, r.filter(e.Out)
	defer paint(e.Out, r.Color, r.NoColor)()
	defer paint(e.Err, r.ColorErr, r.NoColorErr)()
	return place(ctx, call)
}

// local connects a command of dom0 to the call.
func (r *run) local(ctx context.Context, e *env, call qrexec.Call, place caller) (int, error) {
	c := exec.CommandContext(ctx, "sh", "-c", r.LocalCmd)
	c.Stderr = e.Err
	in, err := c.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("start the local command: %w", err)
	}
	call.Stdin, call.Stdout = out, in
	status, err := place(ctx, call)
	in.Close()
	werr := c.Wait()
	if _, failed := errors.AsType[*exec.ExitError](werr); werr != nil && !failed && err == nil {
		err = fmt.Errorf("the local command: %w", werr)
	}
	return status, err
}

// paint colours what follows on a terminal, and returns what ends that.
func paint(w io.Writer, color string, none bool) func() {
	_, coloured := terminalOf(w)
	if none || color == "" && !coloured || strings.Trim(color, "0123456789;") != "" {
		return func() {}
	}
	if color == "" {
		color = "31"
	}
	fmt.Fprintf(w, "\x1b[0;%sm", color)
	return func() { fmt.Fprint(w, "\x1b[0m") }
}

// filter keeps a qube from steering dom0's terminal.
func (r *run) filter(w io.Writer) io.Writer {
	if r.NoFilter || !r.Filter && !isTerminal(w) {
		return w
	}
	return wire.NewEscapeFilter(w)
}
