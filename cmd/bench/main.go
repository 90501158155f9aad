// Command bench measures a real desktop of qubes and writes
// docs/PERFORMANCE.md.
//
// It starts `cubicle up` in a root folder of its own, once per engine, and
// measures each figure together with what it is compared to, in turns, so
// that whatever else the machine does meets both. Medians stand on the page,
// and aims are ratios wherever the machine would otherwise decide.
//
// The programs must lie beside it: `make bench` builds them.
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
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type options struct {
	Quick   bool     `help:"Fewer repetitions and fewer qubes: a few minutes."`
	Engines []string `default:"crun,runsc" help:"Engines to measure (default ${default})."`
	Only    []string `help:"Parts to measure: start, pixels, qrexec, calls, many, manager, core (default: all)."`
	Write   string   `type:"path" placeholder:"FILE" help:"Page to write; else it goes to standard output."`
	Cache   string   `type:"existingdir" placeholder:"DIR" help:"Folder with built templates (var/cache/cubicle of another root), to save building one."`
	Bin     string   `type:"existingdir" placeholder:"DIR" help:"Folder of the programs (default: the one above this program's)."`
}

// bench is one run.
type bench struct {
	options
	tools string // folder of the helper programs
	count counts
	log   *slog.Logger
}

// counts are how often things are repeated.
type counts struct {
	starts, keys, paints, calls int
	frames, idle                time.Duration
	streams                     int
	streamBytes                 int64            // of a stream between qubes
	manyCalls                   map[string]int   // of which none may be lost, per engine
	crowd                       map[string][]int // how many qubes at once, per engine
}

func (o options) counts() counts {
	if o.Quick {
		return counts{starts: 7, keys: 100, paints: 5, calls: 50, frames: time.Second, idle: 10 * time.Second,
			streams: 3, streamBytes: 256 << 20, manyCalls: map[string]int{"crun": 2000, "runsc": 1000},
			crowd: map[string][]int{"crun": {1, 4, 10}, "runsc": {1, 4, 10}}}
	}
	return counts{starts: 25, keys: 1000, paints: 11, calls: 300, frames: 2 * time.Second, idle: 30 * time.Second,
		streams: 5, streamBytes: 1 << 30, manyCalls: map[string]int{"crun": 100_000, "runsc": 20_000},
		crowd: map[string][]int{"crun": {1, 2, 4, 8, 10, 16, 32}, "runsc": {1, 2, 4, 8, 10}}}
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("bench"), kong.Description("Measures a real desktop of qubes."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("qubes need root")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{options: o, tools: filepath.Dir(self), count: o.counts(), log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if b.Bin == "" {
		b.Bin = filepath.Dir(b.tools)
	}
	r := &results{machine: machine(), quick: o.Quick}
	busy := load()
	for _, name := range o.Engines {
		if !slices.ContainsFunc([]string{"start", "pixels", "qrexec", "calls", "many"}, b.wants) {
			break
		}
		e, err := b.engine(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.engines = append(r.engines, e)
	}
	if b.wants("manager") {
		if r.manager, err = b.manager(ctx); err != nil {
			return fmt.Errorf("manager: %w", err)
		}
	}
	if b.wants("core") {
		if r.core, err = b.core(ctx); err != nil {
			return fmt.Errorf("core: %w", err)
		}
	}
	r.load = busy + ", " + load()
	page := r.page()
	if o.Write == "" {
		_, err = os.Stdout.Write(page)
		return err
	}
	return os.WriteFile(o.Write, page, 0o644)
}

func (b *bench) wants(part string) bool { return len(b.Only) == 0 || slices.Contains(b.Only, part) }

// engine measures a desktop whose qubes run on one engine.
func (b *bench) engine(ctx context.Context, name string) (*engineResult, error) {
	s, err := b.up(ctx, name)
	if err != nil {
		return nil, err
	}
	defer s.down()
	r := &engineResult{name: name}
	for _, part := range []struct {
		name    string
		measure func(context.Context, *system, *engineResult) error
	}{
		{"start", b.start}, {"pixels", b.pixels}, {"qrexec", b.qrexec}, {"calls", b.calls}, {"many", b.many},
	} {
		if !b.wants(part.name) {
			continue
		}
		b.log.Info("measuring", "engine", name, "part", part.name)
		if err := part.measure(ctx, s, r); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return r, nil
}

// tool is a helper program of the bench.
func (b *bench) tool(name string) string { return filepath.Join(b.tools, name) }

// output runs a command and returns what it printed.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, exit.Stderr)
	}
	return out, err
}

// patience bounds every wait: far above what a loaded machine needs.
const patience = 90 * time.Second

// until waits for a condition, looking every so often.
func until(ctx context.Context, every time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		done, err := ok()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(every):
		}
	}
}
