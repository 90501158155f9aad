// Package tools is the command-line tools of a qube by which its user sends
// files to other qubes, opens things there and runs commands there, with the
// names, options and exit status of upstream's (spec/services.md §2–§4, §10).
// One binary has all their names.
package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/agents/qrexec/vmclient"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Where is what a tool finds around it.
type Where struct {
	Trigger               string          // the agent's socket
	Transport             vchan.Transport // for data channels that the agent does not open
	Stdin, Stdout, Stderr *os.File
}

// tool is a command line.
type tool interface {
	run(ctx context.Context, w Where) error
}

// table are the tools by their names.
var table = map[string]struct {
	help string
	make func() tool
}{
	"qvm-copy":        {"Copy files to another qube. dom0 asks which.", func() tool { return new(copyCmd) }},
	"qvm-move":        {"Move files to another qube. dom0 asks which.", func() tool { return &copyCmd{move: true} }},
	"qvm-copy-to-vm":  {"Copy files to the given qube, if dom0's policy and you allow it.", func() tool { return new(copyToCmd) }},
	"qvm-move-to-vm":  {"Move files to the given qube, if dom0's policy and you allow it.", func() tool { return &copyToCmd{copyCmd: copyCmd{move: true}} }},
	"qvm-open-in-vm":  {"Open a file or a link in another qube; changes to the file come back.", func() tool { return new(openInCmd) }},
	"qvm-open-in-dvm": {"Open a file or a link in a disposable qube; changes to the file come back.", func() tool { return new(openInDisposableCmd) }},
	"qvm-run-vm":      {"Run a command in another qube, if dom0's policy allows it.", func() tool { return new(runCmd) }},
	"qvm-connect-tcp": {"Make a TCP port of another qube one of this qube, if dom0's policy allows it.", func() tool { return new(connectCmd) }},
	"qfile-agent":     {"Send files as a qubes.Filecopy stream on the standard output.", func() tool { return new(fileAgentCmd) }},
}

// Names are the tools' names, in order.
func Names() []string {
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// statusError ends a tool with a status, after a text if there is one.
type statusError struct {
	status int
	err    error // may be nil
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// Run does what the tool called name does, and returns its exit status.
func Run(ctx context.Context, w Where, name string, args []string) int {
	entry, ok := table[name]
	if !ok {
		fmt.Fprintf(w.Stderr, "%s: no such tool\n", name)
		return 1
	}
	t := entry.make()
	exited := -1
	parser, err := kong.New(t, kong.Name(name), kong.Description(entry.help), kong.Writers(w.Stdout, w.Stderr),
		kong.Exit(func(status int) { exited = status }))
	if err == nil {
		_, err = parser.Parse(preprocess(args))
	}
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(w.Stderr, "%s: %v\n", name, err)
		return 2
	}
	err = t.run(ctx, w)
	var s *statusError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, vmclient.ErrRefused):
		fmt.Fprintln(w.Stderr, "Request refused") // upstream's words, which scripts look for
		return wire.StatusRefused
	case errors.As(err, &s):
		if s.err != nil {
			fmt.Fprintf(w.Stderr, "%s: %v\n", name, s.err)
		}
		return s.status & 0xff
	}
	fmt.Fprintf(w.Stderr, "%s: %v\n", name, err)
	return 1
}

// preprocess gives --dispvm its value where it has none.
func preprocess(args []string) []string {
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		if arg == "--dispvm" || arg == "-d" {
			out[i] = "--dispvm=" + anyDisposable
		}
	}
	return out
}

// Targets that are no qube's name (spec/policy.md).
const (
	anyDefault    = "@default"
	anyDisposable = "@dispvm"
)

// exchange calls a service and lets local talk to it. The service's own errors
// go to our standard error, filtered for a terminal.
func (w Where) exchange(ctx context.Context, target, service string, local func(ctx context.Context, out io.WriteCloser, in io.Reader) error) error {
	var localErr error
	status, err := vmclient.Run(ctx, vmclient.Call{
		Trigger: w.Trigger, Transport: w.Transport, Target: target, Service: service,
		Stderr: w.Stderr, FilterStderr: isTerminal(w.Stderr),
		Local: func(ctx context.Context, out io.WriteCloser, in io.Reader) int {
			localErr = local(ctx, out, in)
			_ = out.Close() // fails when the service has ended already
			return 0
		},
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, vmclient.ErrRefused):
		return err
	case err == nil && status == wire.StatusNoService:
		return &statusError{status, fmt.Errorf("the other qube has no service %s", service)}
	case localErr != nil && !errors.Is(localErr, unix.EPIPE) && !errors.Is(localErr, unix.ECONNRESET):
		return localErr
	case err != nil:
		return err
	case status != 0:
		return &statusError{status, fmt.Errorf("%s ended with status %d", service, status)}
	}
	return localErr // the service has ended before it had heard all
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
