// Command trial runs one program as PID 1 of a machine, with the template
// debian-12 below it, and shows what it says. It is for developers who want to
// see their program in a qube without the rest of the system:
//
//	go run ./daemon/engine/trial --engine crun -- bash -c 'id; ls /rw'
//	go run ./daemon/engine/trial --engine runsc --agent bin -- /usr/lib/cubicle/qubes-agent init
//
// The template is built at the first run and kept in the cache folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/sandbox"
	"cubicle/daemon/paths"
	"cubicle/daemon/storage"
	"cubicle/daemon/storage/file"
	"cubicle/daemon/template"
)

type options struct {
	Engine  string   `help:"runsc or crun." default:"crun" enum:"runsc,crun"`
	Binary  string   `help:"The runtime's program."`
	Cache   string   `help:"Folder that keeps the template." default:"/var/cache/cubicle"`
	Agent   string   `help:"Folder to see at /usr/lib/cubicle." type:"existingdir"`
	Link    string   `help:"Folder to see at /run/cubicle." type:"existingdir"`
	Memory  int      `help:"MiB." default:"1000"`
	Probe   bool     `help:"Only probe the engine."`
	Command []string `arg:"" optional:"" passthrough:""`
}

func main() {
	var o options
	k := kong.Parse(&o)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k.FatalIfErrorf(run(ctx, o))
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "trial-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := paths.New(dir)
	if err != nil {
		return err
	}
	if len(o.Command) > 0 && o.Command[0] == "--" {
		o.Command = o.Command[1:]
	}
	eng, err := sandbox.New(sandbox.Options{Runtime: o.Engine, Binary: o.Binary, Root: root, Command: o.Command,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	defer eng.Close()
	if o.Probe {
		return eng.Probe(ctx)
	}
	m := engine.Machine{UUID: "01234567-89ab-4def-8123-456789abcdef", Name: "trial", Domain: 0x8000, Memory: o.Memory, VCPUs: 2, AgentDir: o.Agent, LinkDir: o.Link}
	for _, d := range []*string{&m.AgentDir, &m.LinkDir} {
		if *d == "" {
			*d = filepath.Join(dir, "empty")
		}
		if err := os.MkdirAll(*d, 0o755); err != nil {
			return err
		}
	}
	if err := volumes(ctx, o, root, &m); err != nil {
		return err
	}
	began := time.Now()
	if err := eng.Prepare(ctx, m); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Release(context.WithoutCancel(ctx), m.UUID)) }()
	prepared := time.Now()
	if err := eng.Start(ctx, m.UUID); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "prepared in %v, started in %v\n", prepared.Sub(began).Round(time.Millisecond), time.Since(prepared).Round(time.Millisecond))
	var ev engine.Event
	for done := ctx.Done(); ev.Reason == ""; {
		select {
		case ev = <-eng.Events():
		case <-done:
			done = nil
			if err := eng.Kill(context.WithoutCancel(ctx), m.UUID); err != nil {
				return err
			}
		}
	}
	said, err := os.ReadFile(filepath.Join(root.Log(), "console-trial.log"))
	os.Stdout.Write(said)
	fmt.Fprintf(os.Stderr, "%s %s\n", ev.Reason, ev.Detail)
	return err
}

// volumes makes the template's root volume and a private one and starts them.
func volumes(ctx context.Context, o options, root paths.Root, m *engine.Machine) error {
	pool, err := file.New("trial", root.State())
	if err != nil {
		return err
	}
	recipe, err := template.Load("debian-12")
	if err != nil {
		return err
	}
	last := -1
	image, size, err := template.Build(ctx, template.Options{Recipe: recipe, Dir: pool.ImportDir(), Cache: o.Cache,
		Progress: func(f float64, text string) {
			if percent := int(100 * f); percent > last {
				last = percent
				fmt.Fprintf(os.Stderr, "%3d %% %s\n", percent, text)
			}
		}})
	if err != nil {
		return err
	}
	origin := storage.Spec{VID: "vm-templates/debian-12/root", Size: size, SaveOnStop: true, ReadWrite: true, Revisions: 1}
	snapshot := storage.Spec{VID: "appvms/trial/root", Size: size, SnapOnStart: true, ReadWrite: true, Source: origin.VID}
	private := storage.Spec{VID: "appvms/trial/private", Size: 2 << 30, SaveOnStop: true, ReadWrite: true}
	for _, s := range []storage.Spec{origin, snapshot, private} {
		if err := pool.Create(ctx, s); err != nil {
			return err
		}
	}
	if err := pool.Import(ctx, origin, image); err != nil {
		return err
	}
	began := time.Now()
	if m.Root, err = pool.Start(ctx, snapshot); err != nil {
		return err
	}
	m.Private, err = pool.Start(ctx, private)
	fmt.Fprintf(os.Stderr, "volumes started in %v\n", time.Since(began).Round(time.Millisecond))
	return err
}
