// Package tool is the command-line tools of QubesDB, with the options, output
// and exit status of upstream's (spec/platform.md §3.1): qubesdb-read,
// qubesdb-write, qubesdb-rm, qubesdb-list, qubesdb-multiread, qubesdb-watch.
// One program has all those names, or is told with -c which one to be.
package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/qubesdb"
)

// Names are the programs' names.
func Names() []string {
	var names []string
	for _, c := range commands {
		names = append(names, prefix+c)
	}
	return names
}

const prefix = "qubesdb-"

var commands = [...]string{"list", "multiread", "read", "rm", "watch", "write"}

// statusAbsent is the exit status of a read of an entry that is not there;
// everything else that fails is 1.
const statusAbsent = 2

// Tool is one call.
type Tool struct {
	Dir    string // folder of the databases' sockets
	Name   string // what the program was called by
	Stdout io.Writer
	Stderr io.Writer
}

type options struct {
	Command  string   `short:"c" placeholder:"COMMAND" help:"What to do, whatever the program is called: list, multiread, read, rm, watch or write."`
	Database string   `short:"d" placeholder:"QUBE" help:"The database of a qube; without it our own."`
	Full     bool     `short:"f" help:"Print whole paths."`
	Raw      bool     `short:"r" help:"Print values as they are; without it, what is not printable is shown as \\xNN, and a line ends each value."`
	Quiet    bool     `short:"q" help:"No error messages."`
	Wait     bool     `short:"w" help:"Wait until the entry is there."`
	Default  *string  `short:"e" placeholder:"VALUE" help:"What to print when there is no such entry."`
	Count    int      `short:"n" default:"1" placeholder:"N" help:"End after so many events; 0 for never (default ${default})."`
	Args     []string `arg:"" optional:"" name:"path" help:"Paths; for write, each with its value."`
}

// Run does what args say and returns the exit status.
func (t Tool) Run(ctx context.Context, args []string) int {
	var o options
	status := -1
	parser, err := kong.New(&o, kong.Name(t.Name), kong.Description("Reads and writes QubesDB."),
		kong.Writers(t.Stdout, t.Stderr), kong.Exit(func(int) { status = 0 }))
	if err == nil {
		_, err = parser.Parse(args)
	}
	if status == 0 {
		return 0 // help was asked for
	}
	quiet := o.Quiet
	if err == nil {
		err = t.do(ctx, o)
	}
	if err == nil {
		return 0
	}
	if !quiet {
		fmt.Fprintf(t.Stderr, "%s: error: %v\n", t.Name, err)
	}
	if errors.Is(err, errAbsent) {
		return statusAbsent
	}
	return 1
}

// errAbsent is the error of a read that found nothing.
var errAbsent = errors.New("no such entry")

func (t Tool) do(ctx context.Context, o options) error {
	command := o.Command
	if command == "" {
		command = strings.TrimPrefix(t.Name, prefix)
	}
	if !slices.Contains(commands[:], command) {
		return fmt.Errorf("%q is none of %s", command, strings.Join(commands[:], ", "))
	}
	if len(o.Args) == 0 {
		return errors.New("a path is needed")
	}
	c, err := t.dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	switch command {
	case "write":
		return write(c, o.Args)
	case "watch":
		return t.watch(ctx, c, o)
	}
	for _, path := range o.Args {
		switch command {
		case "read":
			err = t.read(ctx, c, o, path)
		case "rm":
			err = c.Remove(path)
		case "list":
			err = t.list(c, o, path)
		case "multiread":
			err = t.multiRead(c, o, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dialPause is between two looks for a database that -w waits for.
const dialPause = 50 * time.Millisecond

func (t Tool) dial(ctx context.Context, o options) (*qubesdb.Client, error) {
	if strings.ContainsAny(o.Database, "/\x00") {
		return nil, fmt.Errorf("%q is not a qube's name", o.Database)
	}
	for {
		c, err := qubesdb.Dial(t.Dir, o.Database)
		away := errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
		if err == nil || !o.Wait || !away {
			return c, err
		}
		select {
		case <-time.After(dialPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func write(c *qubesdb.Client, args []string) error {
	if len(args)%2 != 0 {
		return fmt.Errorf("%s has no value", args[len(args)-1])
	}
	for i := 0; i < len(args); i += 2 {
		if err := c.Write(args[i], args[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (t Tool) read(ctx context.Context, c *qubesdb.Client, o options, path string) error {
	if o.Wait {
		if err := c.Watch(path); err != nil {
			return err
		}
	}
	value, err := c.Read(path)
	for o.Wait && errors.Is(err, qubesdb.ErrNoEntry) {
		if _, err := c.Next(ctx); err != nil {
			return err
		}
		value, err = c.Read(path)
	}
	switch {
	case errors.Is(err, qubesdb.ErrNoEntry) && o.Default != nil:
		value = *o.Default
	case errors.Is(err, qubesdb.ErrNoEntry):
		return fmt.Errorf("%s: %w", path, errAbsent)
	case err != nil:
		return err
	}
	if o.Full {
		return t.print(o, path+" = ", value)
	}
	return t.print(o, "", value)
}

// print writes a value.
func (t Tool) print(o options, before, value string) error {
	if o.Raw {
		_, err := io.WriteString(t.Stdout, before+value)
		return err
	}
	_, err := fmt.Fprintln(t.Stdout, before+printable(value))
	return err
}

// printable shows what could steer a terminal, and the backslash, as \xNN.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// shown is a path as the options want it.
func shown(o options, path, under string) string {
	if o.Full {
		return path
	}
	return strings.TrimPrefix(path, under)
}

func (t Tool) list(c *qubesdb.Client, o options, under string) error {
	paths, err := c.List(under)
	for _, p := range paths {
		fmt.Fprintln(t.Stdout, shown(o, p, under))
	}
	return err
}

func (t Tool) multiRead(c *qubesdb.Client, o options, under string) error {
	entries, err := c.MultiRead(under)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := t.print(o, shown(o, e.Path, under)+" = ", e.Value); err != nil {
			return err
		}
	}
	return nil
}

func (t Tool) watch(ctx context.Context, c *qubesdb.Client, o options) error {
	for _, path := range o.Args {
		if err := c.Watch(path); err != nil {
			return err
		}
	}
	for n := 0; o.Count == 0 || n < o.Count; n++ {
		path, err := c.Next(ctx)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(t.Stdout, path); err != nil {
			return err
		}
	}
	return nil
}
