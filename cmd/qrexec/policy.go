package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/query"
)

// policyNames are the names by which this program tells whether a call may be
// made, the second being upstream's older one.
func policyNames() []string { return []string{"qrexec-policy-exec", "qrexec-policy"} }

type policyFlags struct {
	AssumeYes    bool   `name:"assume-yes-for-ask" help:"Whoever is asked says yes."`
	JustEvaluate bool   `name:"just-evaluate" help:"Tell only whether the call would be allowed. Nobody is asked: that counts as no."`
	Path         string `help:"With the policy in this folder, instead of the running system's." placeholder:"DIR"`
	Source       string `arg:"" help:"Who calls."`
	Target       string `arg:"" help:"Who is called; may be empty."`
	Service      string `arg:"" help:"SERVICE or SERVICE+ARGUMENT."`
}

// decide asks the policy daemon about a call, writes its answer and exits with
// 0 for an allowed call and 1 for any other (spec/qrexec.md §10, §15).
func decide(name string, args []string) int {
	var f policyFlags
	parse(&f, args, name, "Tells whether a qube may call a service of another.")
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	answer, err := f.answer(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	fmt.Print(answer)
	if !answer.Allowed {
		return 1
	}
	return 0
}

func (f policyFlags) answer(ctx context.Context) (query.Answer, error) {
	root, err := paths.FromEnv()
	if err != nil {
		return query.Answer{}, err
	}
	if f.Path == "" {
		return query.Ask(ctx, root.Policyd(), query.Request{Source: f.Source, Target: f.Target, Service: f.Service, AssumeYes: f.AssumeYes, JustEvaluate: f.JustEvaluate})
	}
	service, argument, _ := strings.Cut(f.Service, "+")
	argument = "+" + argument
	if err := policy.CheckService(service, argument); err != nil {
		return query.Answer{}, err
	}
	dirs, err := policy.DirsIn(f.Path)
	if err != nil {
		return query.Answer{}, err
	}
	p, err := policy.Load(dirs)
	if err != nil {
		return query.Answer{}, err
	}
	text, err := client.New(root).SystemInfo(ctx)
	if err != nil {
		return query.Answer{}, err
	}
	system, err := policy.ParseSystem([]byte(text))
	if err != nil {
		return query.Answer{}, err
	}
	d := p.Decide(system, policy.Request{Service: service, Argument: argument, Source: f.Source, Target: f.Target})
	if f.JustEvaluate {
		return query.Evaluated(d, f.AssumeYes), nil
	}
	if f.AssumeYes {
		d = d.Assumed()
	}
	if d.Action == policy.Ask {
		return query.Answer{}, errors.New("a person is asked by the running system alone: leave out --path, or give --just-evaluate or --assume-yes-for-ask")
	}
	if d.Action == policy.Deny {
		fmt.Fprintln(os.Stderr, d.Reason.Explain())
	}
	return query.Of(d), nil
}

func isPolicyName(name string) bool { return slices.Contains(policyNames(), name) }
