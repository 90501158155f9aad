package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cubicle/daemon/policy"
)

// policyRules is how many rules of one service a decision is measured with;
// only the last one fits.
const policyRules = 106

// decisions measures what one decision of the policy takes among so many
// qubes.
func decisions(qubes int) (time.Duration, error) {
	dir, err := os.MkdirTemp("", "cubicle-bench-policy-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var text strings.Builder
	for i := range policyRules - 1 {
		fmt.Fprintf(&text, "bench.Service * qube-%d @tag:work deny\n", i+20)
	}
	fmt.Fprintln(&text, "bench.Service * @anyvm @anyvm allow")
	if err := os.WriteFile(filepath.Join(dir, "30-bench"+policy.Suffix), []byte(text.String()), 0o644); err != nil {
		return 0, err
	}
	p, err := policy.Load(policy.Dirs{Policy: []string{dir}})
	if err != nil {
		return 0, err
	}
	domains := []*policy.Domain{{Name: "dom0", UUID: "00000000-0000-0000-0000-000000000000", Class: "AdminVM", State: "Running"}}
	for i := range qubes {
		domains = append(domains, &policy.Domain{Name: fmt.Sprintf("qube-%d", i), UUID: newUUID(), Class: "AppVM", State: "Running", GUIVM: "dom0",
			Tags: []string{"work", "created-by-dom0"}})
	}
	system, err := policy.NewSystem(domains)
	if err != nil {
		return 0, err
	}
	request := policy.Request{Service: "bench.Service", Argument: "+", Source: "qube-7", Target: "qube-8"}
	if d := p.Decide(system, request); d.Action != policy.Allow || d.Rule == nil || d.Rule.Line != policyRules {
		return 0, errors.New("another rule decides than the last one")
	}
	const batch, batches = 1000, 200
	var all samples // of a batch: the clock is coarser than a decision
	for range batches {
		began := time.Now()
		for range batch {
			p.Decide(system, request)
		}
		all = append(all, time.Since(began)/batch)
	}
	return all.median(), nil
}
