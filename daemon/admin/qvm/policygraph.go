package qvm

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"cubicle/daemon/policy"
)

type policyGraph struct {
	policyPlace
	SVG        bool     `name:"svg" help:"As SVG; so it is when FILE ends in .svg."`
	Ask        bool     `help:"Also what a person is asked about."`
	Source     []string `placeholder:"VMNAME" help:"Only calls of this qube. May be given several times." sep:"none" complete:"qube"`
	Target     []string `placeholder:"VMNAME" help:"Only calls to it. May be given several times." sep:"none" complete:"qube"`
	Service    []string `placeholder:"SERVICE" help:"Only this service, with all its arguments or with one. May be given several times." sep:"none"`
	SkipLabels bool     `name:"skip-labels" help:"One arrow without names of services where there is any."`
	Output     string   `short:"o" placeholder:"FILE" help:"Write to this file." complete:"file"`

	dirs []string // instead of policyPlace's
}

func (t *policyGraph) run(ctx context.Context, e *env) error {
	dirs, err := t.policyPlace.dirs(e)
	if err != nil {
		return err
	}
	if len(t.dirs) > 0 {
		dirs.Policy = t.dirs
	}
	for _, dir := range dirs.Policy {
		if _, err := os.Stat(dir); err != nil {
			return usage("%w", err)
		}
	}
	system, err := t.system(ctx, e)
	if err != nil {
		return err
	}
	p, err := policy.Load(dirs)
	if err != nil {
		return fmt.Errorf("no call is allowed, because the policy has faults:\n%s", printable(err.Error()))
	}
	edges := slices.DeleteFunc(p.Graph(system), func(edge policy.Edge) bool { return !t.wanted(edge) })
	if t.SkipLabels {
		for i := range edges {
			edges[i].Service = ""
		}
		edges = slices.Compact(edges)
	}
	return e.output(t.Output, func(w io.Writer) error {
		if t.SVG || strings.HasSuffix(t.Output, ".svg") {
			return policy.WriteSVG(w, system, edges)
		}
		return policy.WriteDOT(w, edges)
	})
}

// wanted tells whether the filters let an edge through.
func (t *policyGraph) wanted(edge policy.Edge) bool {
	name, _, _ := strings.Cut(edge.Service, "+")
	named := func(list []string, names ...string) bool {
		return len(list) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(list, n) })
	}
	return (t.Ask || !edge.Ask) && named(t.Source, edge.Source) && named(t.Target, edge.Target) && named(t.Service, edge.Service, name)
}
