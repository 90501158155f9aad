package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"cubicle/daemon/calls"
	"cubicle/daemon/core"
	"cubicle/daemon/paths"
	"cubicle/daemon/policy"
	"cubicle/daemon/vchan"
)

// decider decides the calls between qubes.
func (f *flags) decider(root paths.Root, c *core.Core, log *slog.Logger) (*calls.Calls, error) {
	kept, runtime, legacy := root.PolicyFiles()
	return calls.New(calls.Options{
		Core: c, Dirs: policy.Dirs{Policy: []string{kept, runtime}, Legacy: legacy},
		Agent: root.PolicyAgent(), AgentUsers: f.UserUID, Caller: caller{root},
		Disposables: filepath.Join(root.RunQubes(), "disposables"),
		Broken:      c.PolicyBroken, Log: log,
	})
}

// serveDecider serves the sockets on which programs of dom0 ask what is
// allowed.
func serveDecider(d *calls.Calls, root paths.Root, group int, failed chan<- error) error {
	services := root.RPC()[0]
	if err := os.MkdirAll(services, 0o755); err != nil {
		return err
	}
	for path, answer := range map[string]func(net.Listener) error{
		root.Policyd(): d.ServePolicyd,
		filepath.Join(services, "policy.EvalSimple"): func(l net.Listener) error { return d.ServeEvaluation(l, false) },
		filepath.Join(services, "policy.EvalGUI"):    func(l net.Listener) error { return d.ServeEvaluation(l, true) },
	} {
		l, err := listen(path, 0o660, -1, group)
		if err != nil {
			return err
		}
		go func() {
			if err := answer(l); err != nil {
				failed <- fmt.Errorf("%s: %w", path, err)
			}
		}()
	}
	return nil
}

// running are the domains of the qubes that run already.
func running(v *core.View) []vchan.Domain {
	var domains []vchan.Domain
	for _, q := range v.Qubes() {
		if q.XID() > 0 {
			domains = append(domains, vchan.Domain(q.XID()))
		}
	}
	return domains
}
