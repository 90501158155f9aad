package qvm

import (
	"context"
	"io"
	"os"
)

// Upstream's names and command lines of what qvm-policy does
// (spec/policy.md §11).

// upstreamPolicy is qubes-policy.
type upstreamPolicy struct {
	verbosity
	List    bool   `short:"l" help:"List the files; so it is without a FILE." xor:"act"`
	Get     bool   `short:"g" help:"Print the file; so it is with a FILE." xor:"act"`
	Replace bool   `short:"r" help:"Replace the file by standard input." xor:"act"`
	Remove  bool   `short:"d" aliases:"delete" help:"Remove the file." xor:"act"`
	File    string `arg:"" optional:"" name:"FILE" help:"Name without .policy, or include/NAME." complete:"policyfile"`
}

func (t *upstreamPolicy) run(ctx context.Context, e *env) error {
	file := policyFile{t.File}
	switch {
	case t.File == "" && (t.Get || t.Replace || t.Remove):
		return usage("a FILE is needed")
	case t.File != "" && t.List:
		return usage("--list takes no FILE")
	case t.File == "":
		return (&policyList{}).run(ctx, e)
	case t.Replace:
		return (&policyReplace{Token: "any", policyFile: file}).run(ctx, e)
	case t.Remove:
		return (&policyRemove{Token: "any", policyFile: file}).run(ctx, e)
	}
	return (&policyGet{file}).run(ctx, e)
}

// upstreamEditor is qubes-policy-editor.
type upstreamEditor struct {
	verbosity
	policyEdit
}

// upstreamLint is qubes-policy-lint.
type upstreamLint struct {
	verbosity
	policyLint
}

// upstreamGraph is qrexec-policy-graph.
type upstreamGraph struct {
	verbosity
	PolicyDir  []string `name:"policy-dir" placeholder:"DIR" help:"Read the policy from this folder. May be given several times." sep:"none" complete:"file"`
	SystemInfo string   `name:"system-info" placeholder:"FILE" help:"What internal.GetSystemInfo answered (default: ask qubesd)." complete:"file"`
	IncludeAsk bool     `name:"include-ask" help:"Also what a person is asked about."`
	Source     []string `greedy:"" placeholder:"VMNAME" help:"Only calls of these qubes." complete:"qube" sep:"none"`
	Target     []string `greedy:"" placeholder:"VMNAME" help:"Only calls to these." complete:"qube" sep:"none"`
	Service    []string `greedy:"" placeholder:"SERVICE" help:"Only these services." sep:"none"`
	SkipLabels bool     `name:"skip-labels" help:"One arrow without names of services where there is any."`
	Output     string   `short:"o" placeholder:"FILE" help:"Write to this file." complete:"file"`
}

func (t *upstreamGraph) run(ctx context.Context, e *env) error {
	g := policyGraph{policyPlace: policyPlace{SystemInfo: t.SystemInfo}, Ask: t.IncludeAsk, Source: t.Source, Target: t.Target, Service: t.Service,
		SkipLabels: t.SkipLabels, Output: t.Output, dirs: t.PolicyDir}
	return g.run(ctx, e)
}

// output opens the file that a tool writes to; standard output where none is
// named.
func (e *env) output(name string, write func(io.Writer) error) error {
	if name == "" || name == "-" {
		return write(e.Out)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
