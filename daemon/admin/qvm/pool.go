package qvm

import (
	"context"
	"slices"
	"strings"

	"cubicle/daemon/admin/client"
)

type pool struct {
	verbosity
	List    poolList    `cmd:"" aliases:"ls,l" default:"withargs" help:"List the pools."`
	Info    poolInfo    `cmd:"" aliases:"i" help:"Describe a pool."`
	Add     poolAdd     `cmd:"" aliases:"a" help:"Add a pool."`
	Remove  poolRemove  `cmd:"" aliases:"rm,r" help:"Forget pools; what lies in them stays."`
	Set     poolSet     `cmd:"" aliases:"s" help:"Change a pool's settings: revisions_to_keep, ephemeral_volatile."`
	Drivers poolDrivers `cmd:"" aliases:"d" help:"List the drivers with their options."`
}

type poolList struct{}

type poolInfo struct {
	Name string `arg:"" name:"POOL" help:"The pool." complete:"pool"`
}

type poolAdd struct {
	Option []string `short:"o" placeholder:"NAME=VALUE" sep:"none" help:"Option of the driver. May be given several times."`
	Name   string   `arg:"" name:"POOL" help:"Name of the new pool."`
	Driver string   `arg:"" name:"DRIVER" help:"Its driver." complete:"driver"`
}

type poolRemove struct {
	Names []string `arg:"" name:"POOL" help:"The pools." complete:"pool"`
}

type poolSet struct {
	Option []string `short:"o" placeholder:"NAME=VALUE" sep:"none" help:"The setting. May be given several times."`
	Name   string   `arg:"" name:"POOL" help:"The pool." complete:"pool"`
}

type poolDrivers struct{}

func (p *pool) run(ctx context.Context, e *env) error { return e.command.(tool).run(ctx, e) }

func (l *poolList) run(ctx context.Context, e *env) error {
	names, err := e.Words(ctx, "dom0", "admin.pool.List", "")
	if err != nil {
		return err
	}
	slices.Sort(names)
	t := table{head: []string{"NAME", "DRIVER"}}
	for _, n := range names {
		info, err := e.Pairs(ctx, "dom0", "admin.pool.Info", n)
		if err != nil {
			return err
		}
		t.rows = append(t.rows, []string{n, client.Lookup(info, "driver")})
	}
	return t.write(e.Out)
}

func (i *poolInfo) run(ctx context.Context, e *env) error {
	info, err := e.Pairs(ctx, "dom0", "admin.pool.Info", i.Name)
	if err != nil {
		return err
	}
	// The name comes first, for people.
	slices.SortStableFunc(info, func(a, b [2]string) int {
		switch {
		case a[0] == "name":
			return -1
		case b[0] == "name":
			return 1
		}
		return 0
	})
	return pairs(info).writeWhole(e.Out)
}

// options reads NAME=VALUE words.
func options(words []string) ([][2]string, error) {
	var list [][2]string
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" || strings.ContainsAny(w, "\n\x00") {
			return nil, usage("--option: %q is not NAME=VALUE", w)
		}
		list = append(list, [2]string{name, value})
	}
	return list, nil
}

func (a *poolAdd) run(ctx context.Context, e *env) error {
	list, err := options(a.Option)
	if err != nil {
		return err
	}
	payload := "name=" + a.Name + "\n"
	for _, o := range list {
		payload += o[0] + "=" + o[1] + "\n"
	}
	_, err = e.Call(ctx, "dom0", "admin.pool.Add", a.Driver, []byte(payload))
	return err
}

func (r *poolRemove) run(ctx context.Context, e *env) error {
	for _, n := range r.Names {
		if _, err := e.Call(ctx, "dom0", "admin.pool.Remove", n, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *poolSet) run(ctx context.Context, e *env) error {
	list, err := options(s.Option)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return usage("--option is needed")
	}
	for _, o := range list {
		if o[0] != "revisions_to_keep" && o[0] != "ephemeral_volatile" {
			return usage("a pool's settings are revisions_to_keep and ephemeral_volatile, not %q", o[0])
		}
	}
	for _, o := range list {
		if _, err := e.Call(ctx, "dom0", "admin.pool.Set."+o[0], s.Name, []byte(o[1])); err != nil {
			return err
		}
	}
	return nil
}

func (d *poolDrivers) run(ctx context.Context, e *env) error {
	text, err := e.Call(ctx, "dom0", "admin.pool.ListDrivers", "", nil)
	if err != nil {
		return err
	}
	t := table{head: []string{"DRIVER", "OPTIONS"}}
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			t.rows = append(t.rows, []string{words[0], strings.Join(words[1:], ", ")})
		}
	}
	slices.SortFunc(t.rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return t.write(e.Out)
}
