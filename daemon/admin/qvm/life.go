package qvm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/admin/client"
)

type create struct {
	verbosity
	Class      string            `short:"C" default:"AppVM" placeholder:"CLS" help:"Class of the qube (default ${default})."`
	Property   map[string]string `name:"property" aliases:"prop" placeholder:"NAME=VALUE" mapsep:"none" help:"Set a property. May be given several times."`
	Label      string            `short:"l" placeholder:"LABEL" help:"Colour label."`
	Template   string            `short:"t" placeholder:"TEMPLATE" help:"Template (default: the system's)."`
	Pool       map[string]string `name:"pool" placeholder:"VOLUME=POOL" mapsep:"none" help:"Pool of a volume. May be given several times."`
	OnePool    string            `short:"P" name:"one-pool" placeholder:"POOL" help:"Pool of all volumes."`
	HelpClass  bool              `name:"help-classes" help:"Say which classes there are."`
	VMName     string            `arg:"" optional:"" name:"VMNAME" help:"Name of the new qube."`
	Standalone bool              `hidden:""`
}

func (c *create) run(ctx context.Context, e *env) error {
	if c.HelpClass {
		text, err := e.Call(ctx, "dom0", "admin.vmclass.List", "", nil)
		if err != nil {
			return err
		}
		classes := strings.Fields(text)
		slices.Sort(classes)
		fmt.Fprintln(e.Out, strings.Join(classes, "\n"))
		return nil
	}
	if l, ok := c.Property["label"]; ok {
		c.Label = l
	}
	if t, ok := c.Property["template"]; ok {
		c.Template = t
	}
	switch {
	case c.VMName == "":
		return usage("VMNAME is needed")
	case c.Label == "":
		return usage("--label option is mandatory")
	case c.OnePool != "" && len(c.Pool) > 0:
		return usage("-P and --pool exclude each other")
	}
	method, payload := "admin.vm.Create.", "name="+c.VMName+" label="+c.Label
	if c.OnePool != "" {
		method, payload = "admin.vm.CreateInPool.", payload+" pool="+c.OnePool
	}
	for v, p := range c.Pool {
		method = "admin.vm.CreateInPool."
		payload += " pool:" + v + "=" + p
	}
	if _, err := e.Call(ctx, "dom0", method+c.Class, c.Template, []byte(payload)); err != nil {
		return fmt.Errorf("error creating qube: %w", err)
	}
	for name, value := range c.Property {
		if name == "label" || name == "template" || name == "name" {
			continue
		}
		if err := e.SetProperty(ctx, c.VMName, name, value); err != nil {
			return fmt.Errorf("error setting property %s: %w (the qube was created)", name, err)
		}
	}
	return nil
}

type start struct {
	selection
	SkipIfRunning bool `name:"skip-if-running" help:"A qube that runs already is no error."`
}

func (s *start) run(ctx context.Context, e *env) error {
	list, err := s.pick(ctx, e)
	if err != nil {
		return err
	}
	return e.each(list, func(q client.Qube) error {
		if q.State != "Halted" && q.State != "NA" {
			if s.SkipIfRunning || s.All {
				return nil
			}
			return fmt.Errorf("domain %s is already running", q.Name)
		}
		_, err := e.Call(ctx, q.Name, "admin.vm.Start", "", nil)
		return err
	})
}

type shutdown struct {
	selection
	Force   bool `help:"Also when others depend on the qube."`
	Wait    bool `help:"Wait until the qubes are down; those that are not down in time are killed."`
	Timeout int  `default:"60" placeholder:"SECONDS" help:"With --wait: how long to wait (default ${default})."`
	DryRun  bool `name:"dry-run" help:"Do nothing."`
}

func (s *shutdown) run(ctx context.Context, e *env) error {
	list, err := s.pick(ctx, e)
	if err != nil || s.DryRun {
		return err
	}
	if s.All {
		list = slices.DeleteFunc(list, func(q client.Qube) bool { return q.State == "Halted" || q.State == "NA" })
	}
	args := []string{}
	if s.Force || s.All && len(s.Exclude) == 0 {
		args = append(args, "force")
	}
	if s.Wait {
		args = append(args, "wait")
	}
	errs := make([]error, len(list))
	var work sync.WaitGroup
	for i, q := range list {
		work.Go(func() {
			ctx, cancel := ctx, context.CancelFunc(func() {})
			if s.Wait {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(s.Timeout)*time.Second)
			}
			defer cancel()
			_, errs[i] = e.Call(ctx, q.Name, "admin.vm.Shutdown", strings.Join(args, "+"), nil)
		})
	}
	work.Wait()
	i := -1
	return e.each(list, func(q client.Qube) error {
		i++
		late := errs[i] == context.DeadlineExceeded || client.Is(errs[i], "QubesVMShutdownTimeoutError")
		if !s.Wait || !late || ctx.Err() != nil {
			return errs[i]
		}
		fmt.Fprintf(e.Err, "%s: %s did not shut down in time: killing it\n", e.prog, q.Name)
		_, err := e.Call(ctx, q.Name, "admin.vm.Kill", "", nil)
		if client.Is(err, "QubesVMNotStartedError") {
			return nil
		}
		return err
	})
}

// simple calls one method for each chosen qube.
func (s *selection) simple(ctx context.Context, e *env, method string) error {
	list, err := s.pick(ctx, e)
	if err != nil {
		return err
	}
	return e.each(list, func(q client.Qube) error {
		_, err := e.Call(ctx, q.Name, method, "", nil)
		return err
	})
}

type kill struct{ selection }

func (k *kill) run(ctx context.Context, e *env) error { return k.simple(ctx, e, "admin.vm.Kill") }

type pause struct{ selection }

func (p *pause) run(ctx context.Context, e *env) error { return p.simple(ctx, e, "admin.vm.Pause") }

type unpause struct{ selection }

func (u *unpause) run(ctx context.Context, e *env) error { return u.simple(ctx, e, "admin.vm.Unpause") }

type remove struct {
	selection
	Force bool `short:"f" help:"Do not ask."`
}

func (r *remove) run(ctx context.Context, e *env) error {
	list, err := r.pick(ctx, e)
	if err != nil {
		return err
	}
	if !r.Force {
		fmt.Fprintln(e.Err, "This will completely remove the selected VM(s)...")
		for _, q := range list {
			fmt.Fprintln(e.Err, " ", q.Name)
		}
		if !e.confirm("Are you sure?") {
			return &Failure{1, fmt.Errorf("nothing was removed")}
		}
	}
	return e.each(list, func(q client.Qube) error {
		_, err := e.Call(ctx, q.Name, "admin.vm.Remove", "", nil)
		return err
	})
}
