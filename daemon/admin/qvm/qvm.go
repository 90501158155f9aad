// Package qvm is the command line of dom0, and of qubes that dom0's policy lets
// use the Admin API: qvm-ls, qvm-create and so on, with
// upstream's options, output and exit status (0; 1 with "PROG: error: …" on
// stderr; 2 for wrong usage). Everything goes over the Admin API; qvm-run
// calls services through package daemon/qrexec/client.
//
// A tool is a struct whose fields are its command line (kong's grammar), and
// a row in tools.go. Main parses and runs it; completion and manual pages are
// made from the same struct.
package qvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
)

// Streams are the standard streams of a tool.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// tool is what runs after its options were parsed.
type tool interface {
	run(context.Context, *env) error
}

// env is what a tool works with.
type env struct {
	Streams
	*client.Client
	root    paths.Root
	prog    string
	quiet   bool
	command any // of a tool that has commands: the one that was asked for
}

// Failure is an error with an exit status of its own.
type Failure struct {
	Status int
	Err    error // nil: nothing is to be said
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return fmt.Sprintf("status %d", f.Status)
	}
	return f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// usage is wrong usage.
func usage(format string, args ...any) error {
	return &Failure{2, fmt.Errorf(format, args...)}
}

// helped ends parsing after --help was shown.
type helped struct{ status int }

// Main runs the tool that args names in dom0 and returns the exit status.
func Main(ctx context.Context, s Streams, args []string) int { return MainIn(ctx, s, nil, args) }

// MainIn is Main in a qube, from which calls go over remote; nil: in dom0.
func MainIn(ctx context.Context, s Streams, remote client.Remote, args []string) (status int) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case helped:
			status = p.status
		default:
			panic(p)
		}
	}()
	row, name, rest, err := find(args)
	if err != nil {
		return report(s.Err, args[0], err)
	}
	if row == nil {
		if len(args) == 2 && (args[1] == "--help" || args[1] == "-h" || args[1] == "help") {
			overview(s.Out, args[0])
			return 0
		}
		overview(s.Err, args[0])
		return 2
	}
	t := row.new()
	parser, err := grammar(s, row, t)
	if err != nil {
		return report(s.Err, name, usage("%w", err))
	}
	var parsed *kong.Context
	if rest, err = expand(parser.Model.Node, t, rest); err == nil {
		parsed, err = parser.Parse(rest)
	}
	if err != nil {
		fmt.Fprintf(s.Err, "%s: error: %v\nTry '%s --help' for more information.\n", name, err, name)
		return 2
	}
	root, err := paths.FromEnv()
	if err == nil {
		e := &env{Streams: s, Client: client.New(root), root: root, prog: name}
		e.Remote = remote
		if command := parsed.Selected(); command != nil {
			e.command = command.Target.Addr().Interface()
		}
		if v, ok := t.(interface{ isQuiet() bool }); ok {
			e.quiet = v.isQuiet()
		}
		err = t.run(ctx, e)
	}
	return report(s.Err, name, err)
}

// find finds the tool that a command line names, by the program's own name or
// by its first argument. The row is nil when neither is a tool's.
func find(args []string) (row *row, name string, rest []string, err error) {
	name, rest = args[0], args[1:]
	all := tools()
	row = lookup(all, name)
	if row == nil && len(rest) > 0 {
		word := rest[0]
		for _, candidate := range []string{"qvm-" + word, word} {
			if row = lookup(all, candidate); row != nil {
				name, rest = candidate, rest[1:]
				break
			}
		}
	}
	if row != nil && row.name == "qvm-device" {
		return deviceTool(row, rest)
	}
	return row, name, rest, nil
}

func lookup(all []row, name string) *row {
	for i := range all {
		if all[i].name == name {
			return &all[i]
		}
	}
	return nil
}

// overview lists the tools.
func overview(w io.Writer, prog string) {
	fmt.Fprintf(w, "usage: %s TOOL …, where TOOL is one of:\n", prog)
	for _, r := range tools() {
		if !r.hidden {
			fmt.Fprintf(w, "  %-18s %s\n", strings.TrimPrefix(r.name, "qvm-"), r.summary)
		}
	}
	fmt.Fprintf(w, "\n%[1]s TOOL --help tells more. %[1]s man DIR writes manual pages, %[1]s completion bash (zsh, fish) completes for a shell.\n", prog)
}

// grammar makes the parser of a tool.
func grammar(s Streams, r *row, t tool) (*kong.Kong, error) {
	return kong.New(t, kong.Name(r.name), kong.Description(r.summary), kong.Writers(s.Out, s.Err),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true}),
		kong.Exit(func(code int) { panic(helped{code}) }))
}

func report(w io.Writer, name string, err error) int {
	if err == nil {
		return 0
	}
	status := 1
	if f, ok := errors.AsType[*Failure](err); ok {
		status = f.Status
		if f.Err == nil {
			return status
		}
	}
	if errors.Is(err, context.Canceled) {
		return 130 // interrupted: nothing to be said
	}
	fmt.Fprintf(w, "%s: error: %v\n", name, err)
	return status
}

// verbosity are options that every upstream tool has.
type verbosity struct {
	Verbose   int  `short:"v" type:"counter" help:"Say more."`
	Quiet     bool `short:"q" help:"Say less."`
	ForceRoot bool `name:"force-root" hidden:""`
}

func (v verbosity) isQuiet() bool { return v.Quiet }

// selection chooses qubes by name, or all.
type selection struct {
	verbosity
	All     bool     `help:"All qubes but dom0."`
	Exclude []string `help:"With --all: not this one. May be given several times." sep:"none" placeholder:"VMNAME" complete:"qube"`
	VMNames []string `arg:"" optional:"" name:"VMNAME" help:"Names of qubes." complete:"qube"`
}

// pick returns the chosen qubes, in the order given.
func (s *selection) pick(ctx context.Context, e *env) ([]client.Qube, error) {
	if err := s.check(true); err != nil {
		return nil, err
	}
	all, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	return s.from(all)
}

// check checks the options against each other. needed: some must be chosen.
func (s *selection) check(needed bool) error {
	switch {
	case s.All && len(s.VMNames) > 0:
		return usage("--all and VMNAME exclude each other")
	case !s.All && len(s.Exclude) > 0:
		return usage("--exclude can only be used with --all")
	case needed && !s.All && len(s.VMNames) == 0:
		return usage("a VMNAME is needed")
	}
	return nil
}

// from picks the chosen ones of all qubes.
func (s *selection) from(all []client.Qube) ([]client.Qube, error) {
	if s.All {
		return slices.DeleteFunc(all, func(q client.Qube) bool {
			return q.IsAdmin() || slices.Contains(s.Exclude, q.Name)
		}), nil
	}
	return named(all, s.VMNames)
}

func named(all []client.Qube, names []string) ([]client.Qube, error) {
	var list []client.Qube
	for _, n := range names {
		i := slices.IndexFunc(all, func(q client.Qube) bool { return q.Name == n })
		if i < 0 {
			return nil, usage("no such domain: %q", n)
		}
		if !slices.Contains(list, all[i]) {
			list = append(list, all[i])
		}
	}
	return list, nil
}

// one returns the qube of that name.
func (e *env) one(ctx context.Context, name string) (client.Qube, error) {
	q, err := e.Client.Qube(ctx, name)
	if client.Is(err, "QubesVMNotFoundError") || client.Is(err, "QubesValueError") {
		return q, usage("no such domain: %q", name)
	}
	return q, err
}

// each does something for several qubes, goes on after an error, and fails
// at the end if one failed.
func (e *env) each(list []client.Qube, do func(client.Qube) error) error {
	failed := false
	for _, q := range list {
		if err := do(q); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			failed = true
			fmt.Fprintf(e.Err, "%s: error: %v\n", e.prog, err)
		}
	}
	if failed {
		return &Failure{Status: 1}
	}
	return nil
}

// confirm asks a question on the terminal.
func (e *env) confirm(question string) bool {
	fmt.Fprint(e.Err, question, " [y/N] ")
	var answer string
	// An unreadable answer is a no.
	_, err := fmt.Fscanln(e.In, &answer)
	return err == nil && (strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"))
}

// say tells something that --quiet suppresses.
func (e *env) say(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintf(e.Err, format+"\n", args...)
	}
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
