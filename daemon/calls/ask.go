package calls

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"cubicle/daemon/core"
	"cubicle/daemon/policy"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

const (
	// maxDialogs is how many calls of one qube may wait for its one dialog.
	maxDialogs = 8
	// maxAnswer bounds the answer of a policy agent in bytes.
	maxAnswer = 256
)

// dialogs lets each qube have one dialog at a time.
type dialogs struct {
	mu   sync.Mutex // guards what follows
	open map[qube.UUID]*line
}

// line are the calls of one qube about which somebody is to be asked.
type line struct {
	turn    chan struct{} // capacity 1: full while a dialog is open
	members int           // with the one whose dialog is open
}

var errTooManyDialogs = fmt.Errorf("%d calls of the qube wait for an answer already", maxDialogs)

// enter waits for a qube's turn. leave gives it back.
func (d *dialogs) enter(ctx context.Context, id qube.UUID) (leave func(), err error) {
	d.mu.Lock()
	if d.open == nil {
		d.open = map[qube.UUID]*line{}
	}
	l := d.open[id]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
		d.open[id] = l
	}
	if l.members > maxDialogs {
		d.mu.Unlock()
		return nil, errTooManyDialogs
	}
	l.members++
	d.mu.Unlock()
	left := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l.members--; l.members == 0 {
			delete(d.open, id)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; left() }, nil
	case <-ctx.Done():
		left()
		return nil, context.Cause(ctx)
	}
}

// ask asks a person about a call and returns what becomes of it. An error is
// a denial without anybody's word.
func (c *Calls) ask(ctx context.Context, r request, d policy.Decision, on reading) (policy.Decision, error) {
	leave, err := c.dialogs.enter(ctx, r.source.UUID())
	if err != nil {
		return d, fmt.Errorf("ask: %w", err)
	}
	defer leave()
	// While it waited for its turn, things may have changed.
	if d, on, err = c.again(r, d, on, ""); err != nil || d.Action != policy.Ask {
		return d, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.AskTime, fmt.Errorf("nobody answered within %s", c.o.AskTime))
	defer cancel()
	text, err := c.converse(ctx, d.GUIVM, "policy.Ask", c.question(r, d))
	if err != nil {
		return d, fmt.Errorf("ask: %w", err)
	}
	choice, chosen := strings.CutPrefix(text, "allow:")
	switch {
	case text == "deny":
		return d.Refuse(), nil
	case !chosen || !slices.Contains(d.Targets, choice):
		return d, fmt.Errorf("ask: the policy agent answered %.80q, which is none of the answers", text)
	}
	d, _, err = c.again(r, d, on, choice)
	return d, err
}

// again is a decision that waited, on the policy and the qubes of this moment;
// with a choice also what the choice makes of it. A call that has meanwhile
// become an allowed one goes where the person was told, or nowhere.
func (c *Calls) again(r request, d policy.Decision, on reading, choice string) (policy.Decision, reading, error) {
	now, at, err := c.judge(r.Request)
	if err != nil {
		return now, at, err
	}
	if at != on {
		d = now
	}
	switch {
	case choice == "":
	case d.Action == policy.Ask:
		d = d.Choose(choice)
	case d.Action == policy.Allow && d.Target != choice:
		return d, at, errors.New("ask: the policy has changed meanwhile, and does not allow what was chosen")
	}
	return d, at, nil
}

// question is the JSON of policy.Ask (spec/qrexec.md §11).
func (c *Calls) question(r request, d policy.Decision) any {
	icons := map[string]string{}
	v := c.o.Core.View()
	put := func(name string) {
		if q, ok := v.Named(qube.Name(strings.TrimPrefix(name, "@dispvm:"))); ok {
			icons[name] = q.Property("icon")
		}
	}
	source := r.Source
	if d.PolicySource != "" {
		source = d.PolicySource
	}
	put(source)
	for _, t := range d.Targets {
		put(t)
	}
	return struct {
		Source   string            `json:"source"`
		Service  string            `json:"service"`
		Argument string            `json:"argument"`
		Targets  []string          `json:"targets"`
		Default  string            `json:"default_target"`
		Icons    map[string]string `json:"icons"`
		Rule     string            `json:"rule"`
	}{source, r.Service, r.Argument, d.Targets, d.DefaultTarget, icons, d.Rule.Where() + ": " + d.Rule.Text}
}

// converse calls a service of the policy agent in a GUI domain and returns its
// answer. When the context ends the connection is closed, and with it the
// dialog.
func (c *Calls) converse(ctx context.Context, gui, service string, body any) (string, error) {
	input, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	if gui == string(qube.Dom0) {
		return c.converseHere(ctx, append([]byte(service+" dom0 name dom0\x00"), input...))
	}
	q, ok := c.o.Core.View().Named(qube.Name(gui))
	if !ok || q.State() != qube.Running || c.o.Caller == nil {
		return "", fmt.Errorf("the GUI domain %s does not run", gui)
	}
	var out answer
	exit, err := c.o.Caller.Call(ctx, core.Service{To: vchan.Domain(q.XID()), Name: service, Input: string(input), Output: &out})
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("%s in %s: %w", service, gui, err)
	case exit != 0:
		return "", fmt.Errorf("%s in %s ended with status %d", service, gui, exit)
	}
	return string(out), nil
}

// answer takes as much as an answer may have.
type answer []byte

func (a *answer) Write(p []byte) (int, error) {
	if len(*a)+len(p) > maxAnswer {
		return 0, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	*a = append(*a, p...)
	return len(p), nil
}

// converseHere speaks to dom0's own agent on its socket.
func (c *Calls) converseHere(ctx context.Context, input []byte) (string, error) {
	conn, err := c.dialAgent()
	if err != nil {
		return "", fmt.Errorf("there is no policy agent: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	text, err := exchange(conn, input)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return text, err
}

func exchange(conn *net.UnixConn, input []byte) (string, error) {
	_, err := io.Copy(conn, bytes.NewReader(input))
	if err == nil {
		err = conn.CloseWrite()
	}
	if err != nil {
		return "", fmt.Errorf("speak to the policy agent: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(conn, maxAnswer+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("hear the policy agent: %w", err)
	case len(text) > maxAnswer:
		return "", fmt.Errorf("the policy agent's answer has more than %d bytes", maxAnswer)
	}
	return string(text), nil
}

// dialAgent reaches dom0's agent, which must be one of the agent's users'.
func (c *Calls) dialAgent() (*net.UnixConn, error) {
	path, err := filepath.EvalSymlinks(c.o.Agent)
	if err != nil {
		return nil, err
	}
	u, err := vchan.DialOnce(path)
	if err != nil {
		return nil, err
	}
	peer, err := vchan.Peer(u)
	if err == nil && peer.Uid != 0 && !slices.Contains(c.o.AgentUsers, int(peer.Uid)) {
		err = fmt.Errorf("user %d serves %s", peer.Uid, c.o.Agent)
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}
