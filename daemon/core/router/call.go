package router

import (
	"context"
	"errors"

	"cubicle/daemon/qrexec/control"
)

// Decider decides the calls that qubes make.
type Decider interface {
	// Decide says what becomes of a call. The context ends when the caller
	// gives up or qrexecd is gone. Of an allowed call, over is called once,
	// when the call has ended or could not even begin; it may be nil and must
	// not block. The verdict's number is filled in.
	Decide(ctx context.Context, c control.Call) (v control.Verdict, over func(control.End))
	// Resume is told, each time that qrexecd comes, which calls go on that
	// an earlier qubesd allowed. It returns for each what Decide returns as
	// over.
	Resume(running []control.Running) []func(control.End)
}

// Errors that end the context of a decision.
var (
	errGaveUp = errors.New("the caller gave up")
	errLost   = errors.New("qrexecd is gone")
	errEnding = errors.New("qubesd is ending")
)

// call is a call that is being decided, or goes on. What it holds is guarded
// by Router.mu.
type call struct {
	cancel  context.CancelCauseFunc // nil for one that was allowed before
	decided bool
	over    func(control.End) // once decided; may be nil
	end     *control.End      // that came before it was decided
}

// OnCall has calls decided, once and for all. Those that come before it wait.
func (r *Router) OnCall(d Decider) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.decide == nil {
		r.decide = d
		close(r.deciding)
	}
}

// heardCall has a call decided.
func (r *Router) heardCall(conn *control.Conn, asked control.Call) {
	ctx, cancel := context.WithCancelCause(r.life)
	c := &call{cancel: cancel}
	r.mu.Lock()
	if r.conn != conn {
		r.mu.Unlock()
		cancel(nil)
		return // another qrexecd has come meanwhile
	}
	if _, known := r.calls[asked.Number]; known {
		r.mu.Unlock()
		cancel(nil)
		r.log.Error("qrexecd asks about two calls with one number", "number", asked.Number)
		r.tell(conn, refusal(asked.Number, "its number is in use"))
		return
	}
	r.calls[asked.Number] = c
	r.mu.Unlock()
	r.work.Go(func() {
		defer cancel(nil)
		select {
		case <-r.deciding:
		case <-ctx.Done():
			return // whoever ended it has dropped it
		}
		v, over := r.decide.Decide(ctx, asked)
		v.Number = asked.Number
		r.conclude(ctx, conn, c, v, over)
	})
}

func refusal(number uint64, why string) control.Message {
	return control.Message{Kind: control.Decided, Verdict: &control.Verdict{Number: number, Reason: why}}
}

// conclude sends a verdict, unless nobody waits for it any more.
func (r *Router) conclude(ctx context.Context, conn *control.Conn, c *call, v control.Verdict, over func(control.End)) {
	r.mu.Lock()
	c.decided, c.over = true, over
	end := c.end
	if end == nil && ctx.Err() != nil { // we are ending
		end = &control.End{Number: v.Number, Error: context.Cause(ctx).Error()}
		delete(r.calls, v.Number)
	}
	if end == nil && !v.Allowed {
		delete(r.calls, v.Number)
	}
	r.mu.Unlock()
	if end == nil {
		r.tell(conn, control.Message{Kind: control.Decided, Verdict: &v})
	} else if over != nil {
		over(*end)
	}
}

// heardEnd deals with the end of a call. That of a refused one says nothing
// new.
func (r *Router) heardEnd(end control.End) {
	r.mu.Lock()
	c := r.calls[end.Number]
	delete(r.calls, end.Number)
	tell := c.finish(end, errGaveUp)
	r.mu.Unlock()
	tell()
}

// finish ends a call. What it returns is to be called without mu, which is
// held.
func (c *call) finish(end control.End, cause error) func() {
	if c == nil {
		return func() {}
	}
	if !c.decided {
		c.end = &end
		if c.cancel != nil {
			c.cancel(cause)
		}
		return func() {}
	}
	over := c.over
	return func() {
		if over != nil {
			over(end)
		}
	}
}

// loseCalls drops the questions of a connection that is lost: qrexecd refuses
// them. mu is held.
func (r *Router) loseCalls() {
	for number, c := range r.calls {
		if !c.decided {
			delete(r.calls, number)
			c.finish(control.End{Number: number, Error: errLost.Error()}, errLost)()
		}
	}
}

// resume compares the calls that we know of with those that go on: the others
// ended with the qrexecd that carried them. mu is held; what it returns is to
// be called without it.
func (r *Router) resume(running []control.Running) func() {
	old := r.calls
	r.calls = map[uint64]*call{}
	var foreign []control.Running
	var adopted []*call
	for _, one := range running {
		c, known := old[one.Number]
		if !known {
			c = &call{}
			foreign, adopted = append(foreign, one), append(adopted, c)
		}
		delete(old, one.Number)
		r.calls[one.Number] = c
	}
	var tell []func()
	for number, c := range old {
		tell = append(tell, c.finish(control.End{Number: number, Error: "qrexecd ended, and the call with it"}, errLost))
	}
	return func() {
		for _, f := range tell {
			f()
		}
		r.work.Go(func() {
			select {
			case <-r.deciding:
				r.adopt(adopted, r.decide.Resume(foreign))
			case <-r.done:
			}
		})
	}
}

// adopt takes up calls that an earlier qubesd allowed.
func (r *Router) adopt(calls []*call, over []func(control.End)) {
	for i, c := range calls {
		r.mu.Lock()
		c.decided, c.over = true, over[i]
		end := c.end
		r.mu.Unlock()
		if end != nil && over[i] != nil {
			over[i](*end)
		}
	}
}
