package qvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cubicle/daemon/admin/client"
)

type start struct {
	selection
	drives
	SkipIfRunning bool `name:"skip-if-running" help:"A qube that runs already is no error."`
}

func (s *start) run(ctx context.Context, e *env) error {
	drive, with, err := s.chosen()
	if err != nil {
		return err
	}
	list, err := s.pick(ctx, e)
	if err != nil {
		return err
	}
	return e.working(ctx, qubeNames(list), func() error {
		return e.each(list, func(q client.Qube) error {
			if !q.IsDown() {
				if s.SkipIfRunning || s.All {
					return nil
				}
				return fmt.Errorf("domain %s is already running", q.Name)
			}
			if with {
				return e.startWith(ctx, q.Name, drive)
			}
			_, err := e.Call(ctx, q.Name, "admin.vm.Start", "", nil)
			return err
		})
	})
}

// offers tells completion which qubes the tool is for.
func (s *start) offers(q client.Qube) bool { return !q.IsAdmin() && q.IsDown() }

func (s *shutdown) offers(q client.Qube) bool { return runs(q) }
func (r *restart) offers(q client.Qube) bool  { return runs(q) }
func (k *kill) offers(q client.Qube) bool     { return runs(q) }
func (p *pause) offers(q client.Qube) bool    { return runs(q) && q.State != "Paused" }
func (s *suspend) offers(q client.Qube) bool  { return runs(q) && q.State != "Suspended" }
func (u *unpause) offers(q client.Qube) bool  { return q.State == "Paused" || q.State == "Suspended" }
func (r *remove) offers(q client.Qube) bool   { return !q.IsAdmin() && q.IsDown() }

func runs(q client.Qube) bool { return !q.IsAdmin() && !q.IsDown() }

func qubeNames(list []client.Qube) []string {
	var names []string
	for _, q := range list {
		names = append(names, q.Name)
	}
	return names
}

type shutdown struct {
	selection
	Force   bool `help:"Also when others depend on the qube."`
	Wait    bool `help:"Wait until the qubes are down; those that are not down in time are killed."`
	Timeout int  `placeholder:"SECONDS" help:"With --wait: how long to wait (default: each qube's shutdown_timeout)."`
	DryRun  bool `name:"dry-run" help:"Only say what would be shut down."`
}

func (s *shutdown) run(ctx context.Context, e *env) error {
	if s.Timeout < 0 {
		return usage("--timeout must not be negative")
	}
	list, err := s.pick(ctx, e)
	if err != nil {
		return err
	}
	if s.All {
		list = slices.DeleteFunc(list, client.Qube.IsDown)
	}
	if s.DryRun {
		for _, q := range list {
			fmt.Fprintln(e.Out, q.Name)
		}
		return nil
	}
	down := &downer{e: e, force: s.Force || s.All && len(s.Exclude) == 0, wait: s.Wait, timeout: time.Duration(s.Timeout) * time.Second}
	return e.working(ctx, qubeNames(list), func() error { return down.all(ctx, list) })
}

// downer shuts qubes down.
type downer struct {
	e           *env
	force, wait bool
	timeout     time.Duration // 0: each qube's own
}

// all asks all at once. Qubes that others use are asked again as long as
// others went down meanwhile. With wait, what is late is killed.
func (d *downer) all(ctx context.Context, list []client.Qube) error {
	failed := false
	for len(list) > 0 {
		errs := d.ask(ctx, list)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var again []client.Qube
		gone := 0
		for i, q := range list {
			switch err := errs[i]; {
			case err == nil:
				gone++
			case client.Is(err, "QubesVMInUseError"):
				again = append(again, q)
			case d.wait && (errors.Is(err, context.DeadlineExceeded) || client.Is(err, "QubesVMShutdownTimeoutError")):
				gone++
				d.e.say("%s: %s did not shut down in time: killing it", d.e.prog, q.Name)
				failed = !d.kill(ctx, q) || failed
			default:
				failed = true
				fmt.Fprintf(d.e.Err, "%s: error: %v\n", d.e.prog, err)
			}
		}
		if gone == 0 || !d.wait {
			for i, q := range list {
				if slices.Contains(again, q) {
					failed = true
					fmt.Fprintf(d.e.Err, "%s: error: %v\n", d.e.prog, errs[i])
				}
			}
			break
		}
		list = again
	}
	if failed {
		return &Failure{Status: 1}
	}
	return nil
}

func (d *downer) kill(ctx context.Context, q client.Qube) bool {
	_, err := d.e.Call(ctx, q.Name, "admin.vm.Kill", "", nil)
	if err != nil && !client.Is(err, "QubesVMNotStartedError") {
		fmt.Fprintf(d.e.Err, "%s: error: %v\n", d.e.prog, err)
		return false
	}
	return true
}

// ask asks all qubes at once to shut down.
func (d *downer) ask(ctx context.Context, list []client.Qube) []error {
	arg := ""
	switch {
	case d.force && d.wait:
		arg = "force+wait"
	case d.force:
		arg = "force"
	case d.wait:
		arg = "wait"
	}
	errs := make([]error, len(list))
	var work sync.WaitGroup
	for i, q := range list {
		work.Go(func() {
			ctx, cancel := ctx, context.CancelFunc(func() {})
			if d.wait && d.timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, d.timeout)
			}
			defer cancel()
			_, errs[i] = d.e.Call(ctx, q.Name, "admin.vm.Shutdown", arg, nil)
		})
	}
	work.Wait()
	return errs
}

type restart struct {
	selection
	Timeout int `placeholder:"SECONDS" help:"How long a qube may take to shut down before it is killed (default: its shutdown_timeout)."`
}

func (r *restart) run(ctx context.Context, e *env) error {
	list, err := r.pick(ctx, e)
	if err != nil {
		return err
	}
	if r.All {
		list = slices.DeleteFunc(list, func(q client.Qube) bool { return q.State != "Running" || q.Class == "DispVM" })
	}
	for _, q := range list {
		switch {
		case q.IsAdmin():
			return usage("%s cannot be restarted", q.Name)
		case q.State != "Running":
			return usage("%s is not running", q.Name)
		}
	}
	down := &downer{e: e, force: true, wait: true, timeout: time.Duration(r.Timeout) * time.Second}
	return e.working(ctx, qubeNames(list), func() error {
		if err := down.all(ctx, list); err != nil {
			return err
		}
		return e.each(list, func(q client.Qube) error {
			_, err := e.Call(ctx, q.Name, "admin.vm.Start", "", nil)
			return err
		})
	})
}

// simple calls one method for each chosen qube. With --all, qubes that are
// down are left out.
func (s *selection) simple(ctx context.Context, e *env, method string) error {
	list, err := s.pick(ctx, e)
	if err != nil {
		return err
	}
	if s.All {
		list = slices.DeleteFunc(list, client.Qube.IsDown)
	}
	return e.each(list, func(q client.Qube) error {
		_, err := e.Call(ctx, q.Name, method, "", nil)
		return err
	})
}

type kill struct{ selection }

func (k *kill) run(ctx context.Context, e *env) error { return k.simple(ctx, e, "admin.vm.Kill") }

type pause struct {
	selection
	Suspend bool `short:"S" help:"Put the qubes to sleep instead, with their own preparation for it."`
}

func (p *pause) run(ctx context.Context, e *env) error {
	if p.Suspend {
		return p.simple(ctx, e, "admin.vm.Suspend")
	}
	return p.simple(ctx, e, "admin.vm.Pause")
}

type suspend struct{ selection }

func (s *suspend) run(ctx context.Context, e *env) error { return s.simple(ctx, e, "admin.vm.Suspend") }

type unpause struct{ selection }

func (u *unpause) run(ctx context.Context, e *env) error {
	list, err := u.pick(ctx, e)
	if err != nil {
		return err
	}
	if u.All {
		list = slices.DeleteFunc(list, func(q client.Qube) bool { return q.State != "Paused" && q.State != "Suspended" })
	}
	return e.each(list, func(q client.Qube) error {
		method := "admin.vm.Unpause"
		if q.State == "Suspended" {
			method = "admin.vm.Resume"
		}
		_, err := e.Call(ctx, q.Name, method, "", nil)
		return err
	})
}

type remove struct {
	selection
	Force bool `short:"f" help:"Do not ask."`
}

func (r *remove) run(ctx context.Context, e *env) error {
	list, err := r.pick(ctx, e)
	if err != nil {
		return err
	}
	if !r.Force && len(list) > 0 {
		fmt.Fprintln(e.Err, "These qubes will be removed with all their data:")
		for _, q := range list {
			fmt.Fprintln(e.Err, " ", q.Name)
		}
		if !e.confirm("Are you sure?") {
			return &Failure{1, fmt.Errorf("nothing was removed")}
		}
	}
	return e.working(ctx, qubeNames(list), func() error {
		return e.each(list, func(q client.Qube) error {
			_, err := e.Call(ctx, q.Name, "admin.vm.Remove", "", nil)
			return err
		})
	})
}

type check struct {
	selection
	Running   bool `help:"They run."`
	Paused    bool `help:"They are paused."`
	Template  bool `help:"They are templates."`
	Networked bool `help:"They have network access."`
}

func (c *check) run(ctx context.Context, e *env) error {
	if err := c.selection.check(true); err != nil {
		return err
	}
	all, err := e.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range c.VMNames {
		if !slices.ContainsFunc(all, func(q client.Qube) bool { return q.Name == n }) {
			e.tell("%s: there is no such qube", n)
			return &Failure{Status: 1}
		}
	}
	list, err := c.from(all)
	if err != nil {
		return err
	}
	fit := 0
	for _, q := range list {
		ok, err := c.fits(ctx, e, q)
		if err != nil {
			return err
		}
		if ok {
			fit++
			e.tell("%s: yes", q.Name)
		} else {
			e.tell("%s: no", q.Name)
		}
	}
	switch {
	case fit == len(list):
		return nil
	case fit == 0:
		return &Failure{Status: 1}
	}
	return &Failure{Status: 3}
}

// tell tells a result that --quiet suppresses.
func (e *env) tell(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintf(e.Out, format+"\n", args...)
	}
}

func (c *check) fits(ctx context.Context, e *env, q client.Qube) (bool, error) {
	switch {
	case c.Running && q.IsDown(),
		c.Paused && q.State != "Paused",
		c.Template && q.Class != "TemplateVM":
		return false, nil
	case !c.Networked:
		return true, nil
	}
	// Along the netvms up to one that gives network by itself.
	seen := map[string]bool{}
	for name := q.Name; name != "" && !seen[name]; {
		seen[name] = true
		netvm, err := e.Property(ctx, name, "netvm")
		if client.Is(err, "QubesNoSuchPropertyError") {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if netvm.Value == "" {
			gives, err := e.Property(ctx, name, "provides_network")
			return gives.Value == "True", err
		}
		name = netvm.Value
	}
	return false, nil
}
