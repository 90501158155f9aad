// Package calls decides the calls that qubes make: by the policy, and where
// the policy wants that, by asking a person. It starts the targets of allowed
// calls, makes and removes disposables for them, keeps a log of all calls,
// and answers other programs of dom0 that want to know what is allowed.
//
// The policy is that of the files at the moment of the call. While a file is
// wrong every call is denied. A question to a person is decided once more
// when the answer comes, because the policy and the qubes may have changed.
package calls

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/router"
	"cubicle/daemon/policy"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// Times within which things have to happen.
const (
	askTime    = 5 * time.Minute // a person answers; else no
	startTime  = 3 * time.Minute // a target is ready, from its making on
	notifyTime = 10 * time.Second
	watchTime  = 2 * time.Second // between looks at the policy while nobody calls
)

// Options are what Calls works with.
type Options struct {
	Core *core.Core
	Dirs policy.Dirs
	// Agent is the socket of dom0's policy agent, which one of these users, or
	// root, must serve.
	Agent      string
	AgentUsers []int
	// Caller reaches the policy agents of GUI domains that are not dom0.
	Caller core.Caller
	// Disposables is a folder that holds a file for each disposable that was
	// made for a call and is to be removed after it; gone after a reboot.
	Disposables string
	// Broken is told of each fault of the policy, once; nil: it is only logged.
	Broken func(error)
	Log    *slog.Logger

	// AskTime and StartTime are how long a person may take to answer, and a
	// target to be ready; 0: 5 and 3 minutes.
	AskTime, StartTime time.Duration
}

// Calls implements router.Decider and admin.Policy.
type Calls struct {
	o       Options
	log     *slog.Logger
	rules   rules
	systems systems
	book    book
	dialogs dialogs
	notices allowance
	telling chan struct{} // holds one for each notice on its way
	lines   allowance     // of the log
	views   views
	starts  starts
	rooms   disposables

	faults chan struct{} // capacity 1: the policy has a new fault

	life context.Context // ends with Close
	end  context.CancelFunc

	mu     sync.Mutex // guards what follows
	closed bool
	work   sync.WaitGroup // gets none once closed
}

var _ router.Decider = (*Calls)(nil)

// New returns a decider. Close ends it.
func New(o Options) (*Calls, error) {
	o.AskTime, o.StartTime = cmp.Or(o.AskTime, askTime), cmp.Or(o.StartTime, startTime)
	c := &Calls{o: o, log: o.Log, faults: make(chan struct{}, 1), telling: make(chan struct{}, maxNotices)}
	c.notices.every, c.notices.burst = noticeTime, noticeBurst
	c.lines.every, c.lines.burst = lineTime, lineBurst
	c.rules = rules{dirs: o.Dirs, broken: c.broken}
	c.life, c.end = context.WithCancel(context.Background())
	var err error
	if c.rooms.left, err = readMarks(o.Disposables); err != nil {
		return nil, fmt.Errorf("calls: %w", err)
	}
	c.spawn(c.watch)
	return c, nil
}

// Close ends what is under way: nothing is decided any more. Disposables of
// calls that go on are left to the next Calls.
func (c *Calls) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.work.Wait()
}

// spawn runs what Close waits for; after Close it does nothing.
func (c *Calls) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Go(f)
	}
}

// watch looks at the policy while nobody calls, so that people hear of a fault
// soon after it was made, or as soon as there is an agent to tell it.
func (c *Calls) watch() {
	told := ""
	for {
		switch _, _, err := c.rules.now(); {
		case err == nil:
			told = ""
		case err.Error() != told && c.notifyBroken(err) == nil:
			told = err.Error()
		}
		select {
		case <-c.faults:
		case <-time.After(watchTime):
		case <-c.life.Done():
			return
		}
	}
}

// broken tells the log, and whoever follows events, that every call is denied.
func (c *Calls) broken(err error) {
	where, why := firstFault(err)
	c.log.Error("the policy is wrong: every call is denied until it is mended", "file", where, "error", why)
	if c.o.Broken != nil {
		c.o.Broken(err)
	}
	select {
	case c.faults <- struct{}{}:
	default:
	}
}

// request is a call as it was asked for.
type request struct {
	policy.Request
	source core.Qube // the caller
}

// service is the full name of the service.
func (r request) service() string { return r.Service + r.Argument }

// reading is what a decision was made on.
type reading struct {
	rules, system uint64
}

// judge decides a request by the policy and the qubes of this moment.
func (c *Calls) judge(r policy.Request) (policy.Decision, reading, error) {
	rules, n, err := c.rules.now()
	if err != nil {
		_, why := firstFault(err)
		return policy.Decision{Action: policy.Deny}, reading{}, fmt.Errorf("the policy is wrong: %s", why)
	}
	system, m, err := c.systems.of(c.o.Core.View())
	if err != nil {
		return policy.Decision{Action: policy.Deny}, reading{}, err
	}
	return rules.Decide(system, r), reading{n, m}, nil
}

// newRequest checks the words of a call.
func newRequest(source core.Qube, service, target string, requested *string) (request, error) {
	name, argument, _ := strings.Cut(service, "+")
	r := request{source: source, Request: policy.Request{Service: name, Argument: "+" + argument, Source: string(source.Name()), Target: target}}
	if requested != nil {
		r.RequestedSource = *requested
	}
	return r, policy.CheckService(r.Service, r.Argument)
}

// Decide implements router.Decider.
func (c *Calls) Decide(ctx context.Context, asked control.Call) (control.Verdict, func(control.End)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(c.life, cancel)
	defer stop()
	e := c.book.begin(asked)
	v, over, err := c.decide(ctx, asked, e)
	if err != nil {
		e.Error = err.Error()
	}
	if !v.Allowed {
		v.Reason = cmp.Or(e.Error, e.Reason)
		c.record(e)
		return v, nil
	}
	e.Running = true
	c.book.put(e)
	return v, func(end control.End) {
		c.ended(e, end)
		if over != nil {
			over()
		}
	}
}

// decide is Decide without the log. An error is a denial.
func (c *Calls) decide(ctx context.Context, asked control.Call, e *Entry) (v control.Verdict, over func(), err error) {
	source, ok := c.at(asked.Source)
	if !ok {
		return v, nil, fmt.Errorf("there is no qube with the domain id %d", asked.Source)
	}
	e.Source, e.from = string(source.Name()), source.UUID()
	r, err := newRequest(source, asked.Service, asked.Target, asked.RequestedSource)
	if err != nil {
		return v, nil, err
	}
	d, err := c.settle(ctx, r, e)
	if err != nil || d.Action != policy.Allow {
		return v, nil, err
	}
	began := time.Now()
	to, over, err := c.open(ctx, asked.Number, r, d)
	e.Start = time.Since(began)
	if err == nil {
		e.Target = string(to.Name())
		if v.Command, err = command(r, d, to); err != nil && over != nil {
			over()
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			c.notify(r, d, failed)
		}
		return v, nil, err
	}
	if d.Notify {
		c.notify(r, d, allowed)
	}
	v.Allowed = true
	if !to.IsAdmin() {
		v.Target = vchan.Domain(to.XID())
	}
	return v, over, nil
}

// settle decides a request, with the person's help where that is wanted.
// The decision is Allow or Deny; of a denial people are told as the policy
// wants.
func (c *Calls) settle(ctx context.Context, r request, e *Entry) (policy.Decision, error) {
	began := time.Now()
	d, on, err := c.judge(r.Request)
	e.Policy = time.Since(began)
	if err == nil && d.Action == policy.Ask {
		began = time.Now()
		d, err = c.ask(ctx, r, d, on)
		e.Ask = time.Since(began)
	}
	if d.Rule != nil {
		e.Rule = d.Rule.Where()
	}
	if err != nil {
		return d, err
	}
	if d.Action != policy.Allow {
		e.Reason = d.Reason.Explain()
		if d.Notify {
			c.notify(r, d, denied)
		}
		return d, nil
	}
	e.Allowed, e.Target, e.User = true, d.Target, d.User
	return d, nil
}

// at finds the qube with a domain id.
func (c *Calls) at(d vchan.Domain) (core.Qube, bool) {
	for _, q := range c.o.Core.View().Qubes() {
		if q.XID() == int(d) {
			return q, true
		}
	}
	return core.Qube{}, false
}

// command is what the target's agent, or dom0's service runner, is told to run
// (spec/qrexec.md §6).
func command(r request, d policy.Decision, to core.Qube) (string, error) {
	rpc := "QUBESRPC " + cmp.Or(d.Service, r.service()) + " " + cmp.Or(d.PolicySource, r.Source)
	if to.IsAdmin() {
		kind, name := "name", d.Requested
		if keyword, ok := strings.CutPrefix(d.Requested, "@"); ok {
			kind, name = "keyword", keyword
		}
		return rpc + " " + kind + " " + name, nil
	}
	user := cmp.Or(d.User, to.Property("default_user"))
	if user == "" || strings.ContainsAny(user, ": \x00") {
		return "", fmt.Errorf("%q cannot be a user of %s", user, to.Name())
	}
	return user + ":" + rpc, nil
}

// lookup finds a decision's target: dom0, a qube, or the base of a disposable
// that is to be made.
func lookup(v *core.View, d policy.Decision) (q core.Qube, disposable bool, err error) {
	if d.TargetUUID == "" {
		q, _ = v.Lookup(qube.Dom0UUID)
		return q, false, nil
	}
	id, disposable := strings.CutPrefix(d.TargetUUID, "@dispvm:")
	q, ok := v.Lookup(qube.UUID(strings.TrimPrefix(id, "uuid:")))
	if !ok {
		return q, false, fmt.Errorf("%s was removed meanwhile", d.Target)
	}
	return q, disposable, nil
}
