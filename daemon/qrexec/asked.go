package qrexec

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Limits of calls that wait for a verdict.
const (
	maxWaiting      = 256     // of one qube (spec/qrexec.md §2)
	maxWaitingBytes = 1 << 20 // of one qube's service names
	maxQuestions    = 2048    // messages to qubesd, beyond which nothing is asked
)

// question is a call out of a qube that waits for qubesd's verdict, and
// afterwards the name by which qubesd knows the call.
type question struct {
	number  uint64
	q       *qube
	agent   *agentConn
	ident   wire.Ident
	service string
	target  vchan.Domain // once it is allowed
}

// tellEnd tells qubesd what became of a call that it was asked for; mu is held.
func (r *Router) tellEnd(ask *question, end control.End) {
	delete(r.running, ask.number)
	end.Number = ask.number
	r.tellLocked(control.Message{Kind: control.Ended, End: &end})
}

// ask puts a call to qubesd, with its names cleaned (spec/qrexec.md §9). An
// error means that the call is refused.
func (q *qube) ask(a *agentConn, t wire.Type, tr wire.Trigger) error {
	service, err := wire.CleanService(tr.Service)
	if err != nil {
		return err
	}
	call := control.Call{Source: q.Domain, Service: service, Target: wire.CleanTarget(tr.Target)}
	if t == wire.TriggerService4 {
		source := wire.CleanTarget(tr.Source)
		call.RequestedSource = &source
	}
	r := q.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := a.waiting[tr.Ident]; old != nil {
		// Upstream's agent names a call by the descriptor of the program that
		// waits for it. A name that comes again means that this one left.
		r.giveUp(old, "the caller gave up")
	}
	switch {
	case len(a.waiting) >= maxWaiting || a.waitingBytes+len(service) > maxWaitingBytes:
		return errors.New("too many calls wait for a verdict")
	case r.qubesd == nil:
		return errors.New("qubesd is not connected")
	}
	r.asks++
	call.Number = r.asks
	if !r.qubesd.putBelow(maxQuestions, control.Message{Kind: control.Asked, Call: &call}) {
		return errors.New("qubesd has too much to answer")
	}
	ask := &question{number: call.Number, q: q, agent: a, ident: tr.Ident, service: service}
	a.waiting[ask.ident] = ask
	a.waitingBytes += len(service)
	r.questions[ask.number] = ask
	return nil
}

// drop forgets that a question waits; mu is held.
func (r *Router) drop(ask *question) {
	delete(r.questions, ask.number)
	if ask.agent.waiting[ask.ident] == ask {
		delete(ask.agent.waiting, ask.ident)
		ask.agent.waitingBytes -= len(ask.service)
	}
}

// giveUp tells qubesd that nobody waits for the verdict any more; mu is held.
func (r *Router) giveUp(ask *question, why string) {
	r.drop(ask)
	r.tellEnd(ask, control.End{Error: why})
}

// refuse answers the caller with a refusal; mu is held.
func (r *Router) refuse(ask *question) {
	r.drop(ask)
	ask.agent.send(wire.RefusedMessage(ask.ident))
}

// refuseQuestions refuses what a qubesd was asked that is gone; mu is held.
func (r *Router) refuseQuestions() {
	for _, ask := range r.questions {
		r.refuse(ask)
	}
}

// decided carries a verdict out. One that comes too late changes nothing:
// qubesd was told that the caller gave up.
func (r *Router) decided(v control.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ask := r.questions[v.Number]
	if ask == nil {
		return
	}
	if !v.Allowed {
		ask.q.log.Debug("call refused", "service", cut(ask.service), "why", v.Reason) // qubesd logs it
		r.refuse(ask)
		return
	}
	var err error
	if v.Target == dom0 {
		err = r.connectService(ask, v.Command)
	} else {
		err = r.connectQubes(ask, v.Target, v.Command)
	}
	if err != nil {
		r.failQuestion(ask, err)
	}
}

// failQuestion refuses a call that was allowed but cannot be made; mu is held.
func (r *Router) failQuestion(ask *question, err error) {
	ask.q.log.Debug("allowed call cannot be made", "service", cut(ask.service), "err", err)
	r.refuse(ask)
	r.tellEnd(ask, control.End{Error: err.Error()})
}

// connectQubes makes an allowed call from qube to qube (spec/qrexec.md §7.4):
// the target's agent is told to run the service, the caller's where it is. mu
// is held.
func (r *Router) connectQubes(ask *question, target vchan.Domain, command string) error {
	to := r.qubes[target]
	switch {
	case to == nil || to.agent == nil:
		return fmt.Errorf("the agent of domain %d is not there", target)
	case to == ask.q:
		return errors.New("a qube cannot call itself")
	}
	if _, err := wire.ParseCommand(command); err != nil {
		return err
	}
	if len(command) > wire.MaxExecBody-9 {
		return errTooLong
	}
	c := r.newCall()
	service, err := c.join(to, serviceSide, ask.q.Domain, 0)
	if err == nil && !to.agent.send(wire.Exec{Domain: ask.q.Domain, Port: service.port, Command: command}.Message(wire.ExecCmdline)) {
		service.drop()
		err = errUnread
	}
	if err != nil {
		c.fail(err)
		return err
	}
	return c.joinCaller(ask, target, service.port)
}

// joinCaller tells the caller's agent where the service is; mu is held.
func (c *call) joinCaller(ask *question, target vchan.Domain, port vchan.Port) error {
	caller, err := c.join(ask.q, callerSide, target, port)
	if err != nil {
		c.fail(err)
		return err
	}
	c.r.drop(ask)
	c.ask = ask
	ask.target = target
	c.r.running[ask.number] = ask
	ask.agent.send(wire.Connect{Domain: target, Port: caller.port, Ident: ask.ident}.Message())
	c.start()
	return nil
}

// connectService makes an allowed call of a service of dom0's own
// (spec/qrexec.md §7.3). The service runner is reached first, so that a caller
// hears at once when it is not there. mu is held.
func (r *Router) connectService(ask *question, command string) error {
	if _, err := wire.ParseLocalCommand(command); err != nil {
		return err
	}
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ask.q.ctx, runnerWait)
		runner, err := vchan.DialPath(ctx, r.root.Services())
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.questions[ask.number] != ask { // it gave up
			if err == nil {
				runner.Close()
			}
			return
		}
		if err != nil {
			r.failQuestion(ask, fmt.Errorf("dom0's services: %w", err))
			return
		}
		c := r.newCall()
		c.host = &hostRunner{conn: runner, handover: control.Handover{Command: command, Source: ask.q.Name}}
		if err := c.joinCaller(ask, dom0, 0); err != nil {
			runner.Close()
			r.failQuestion(ask, err)
		}
	})
	return nil
}

// runnerWait is how long the service runner may be away: it is started again
// when it ends.
const runnerWait = 3 * time.Second

var errTooLong = errors.New("the command is too long")

// cut shortens a cleaned name for the log.
func cut(s string) string { return s[:min(len(s), 80)] }
