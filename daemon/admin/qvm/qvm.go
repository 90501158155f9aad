// Package qvm is dom0's command line: qvm-ls, qvm-create and so on, with
// upstream's options, output and exit status (0; 1 with "PROG: error: …" on
// stderr; 2 for wrong usage). Everything goes over the Admin API; qvm-run
// calls services through package daemon/qrexec/client.
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
	root paths.Root
	prog string
}

// tools are the tools by name, each with its options unset.
func tools() map[string]tool {
	return map[string]tool{
		"qvm-ls": &ls{}, "qvm-create": &create{}, "qvm-start": &start{}, "qvm-shutdown": &shutdown{},
		"qvm-kill": &kill{}, "qvm-pause": &pause{}, "qvm-unpause": &unpause{}, "qvm-remove": &remove{},
		"qvm-run": &run{}, "qvm-prefs": &prefs{}, "qubes-prefs": &systemPrefs{}, "qvm-tags": &tags{},
		"qvm-features": &features{}, "qvm-volume": &volume{},
	}
}

var descriptions = map[string]string{
	"qvm-ls": "List qubes and their properties.", "qvm-create": "Create a qube.", "qvm-start": "Start qubes.",
	"qvm-shutdown": "Shut qubes down.", "qvm-kill": "End qubes at once.", "qvm-pause": "Freeze qubes.",
	"qvm-unpause": "Thaw frozen qubes.", "qvm-remove": "Remove qubes with their data.",
	"qvm-run": "Run a command in qubes.", "qvm-prefs": "Show and change the properties of a qube.",
	"qubes-prefs": "Show and change the global properties.", "qvm-tags": "Show and change the tags of a qube.",
	"qvm-features": "Show and change the features of a qube.", "qvm-volume": "Show and resize the volumes of qubes.",
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

// Main runs the tool that args names and returns the exit status.
func Main(ctx context.Context, s Streams, args []string) (status int) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case helped:
			status = p.status
		default:
			panic(p)
		}
	}()
	name, rest := args[0], args[1:]
	all := tools()
	if _, ok := all[name]; !ok {
		if len(rest) == 0 || all["qvm-"+rest[0]] == nil {
			fmt.Fprintf(s.Err, "usage: %s TOOL …, where TOOL is one of:\n", name)
			for _, n := range sortedTools(all) {
				fmt.Fprintf(s.Err, "  %-12s %s\n", strings.TrimPrefix(n, "qvm-"), descriptions[n])
			}
			return 2
		}
		name, rest = "qvm-"+rest[0], rest[1:]
	}
	t := all[name]
	parser, err := kong.New(t, kong.Name(name), kong.Description(descriptions[name]), kong.Writers(s.Out, s.Err), kong.Bind(t),
		kong.Exit(func(code int) { panic(helped{code}) }))
	if err != nil {
		fmt.Fprintf(s.Err, "%s: error: %v\n", name, err)
		return 2
	}
	if _, err := parser.Parse(rest); err != nil {
		fmt.Fprintf(s.Err, "%s: error: %v\nTry '%s --help' for more information.\n", name, err, name)
		return 2
	}
	root, err := paths.FromEnv()
	if err == nil {
		err = t.run(ctx, &env{Streams: s, Client: client.New(root), root: root, prog: name})
	}
	return report(s.Err, name, err)
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
	fmt.Fprintf(w, "%s: error: %v\n", name, err)
	return status
}

func sortedTools(all map[string]tool) []string {
	var names []string
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// verbosity are options that every upstream tool has.
type verbosity struct {
	Verbose int  `short:"v" type:"counter" help:"Say more."`
	Quiet   bool `short:"q" help:"Say less."`
}

// selection chooses qubes by name, or all.
type selection struct {
	verbosity
	All     bool     `help:"All qubes but dom0."`
	Exclude []string `help:"With --all: not this one. May be given several times." sep:"none" placeholder:"VMNAME"`
	VMNames []string `arg:"" optional:"" name:"VMNAME" help:"Names of qubes."`
}

// pick returns the chosen qubes, in the order given.
func (s *selection) pick(ctx context.Context, e *env) ([]client.Qube, error) {
	switch {
	case s.All && len(s.VMNames) > 0:
		return nil, usage("--all and VMNAME exclude each other")
	case !s.All && len(s.Exclude) > 0:
		return nil, usage("--exclude can only be used with --all")
	case !s.All && len(s.VMNames) == 0:
		return nil, usage("a VMNAME is needed")
	}
	all, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	if s.All {
		return slices.DeleteFunc(all, func(q client.Qube) bool {
			return q.Class == "AdminVM" || slices.Contains(s.Exclude, q.Name)
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
		list = append(list, all[i])
	}
	return list, nil
}

// one returns the qube of that name.
func (e *env) one(ctx context.Context, name string) (client.Qube, error) {
	all, err := e.List(ctx)
	if err != nil {
		return client.Qube{}, err
	}
	list, err := named(all, []string{name})
	if err != nil {
		return client.Qube{}, err
	}
	return list[0], nil
}

// each does something for several qubes, goes on after an error, and fails
// at the end if one failed.
func (e *env) each(list []client.Qube, do func(client.Qube) error) error {
	failed := false
	for _, q := range list {
		if err := do(q); err != nil {
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

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
