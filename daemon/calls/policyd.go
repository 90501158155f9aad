package calls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/core"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/query"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
)

const (
	// queryTime is what a program has for its question, and for taking the
	// answer.
	queryTime = 10 * time.Second
	// maxQueries is how many programs may wait for an answer.
	maxQueries = 512
)

// serve answers each connection with do, until Close.
func (c *Calls) serve(l net.Listener, do func(context.Context, net.Conn) error) error {
	stop := context.AfterFunc(c.life, func() { l.Close() })
	defer stop()
	places := make(chan struct{}, maxQueries)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case c.life.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			c.log.Warn("accept who asks for the policy", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-c.life.Done():
			}
			continue
		case err != nil:
			return fmt.Errorf("accept who asks for the policy: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-places }()
			defer conn.Close()
			ctx, cancel := context.WithCancel(c.life)
			defer cancel()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := conn.SetDeadline(time.Now().Add(queryTime)); err != nil {
				return
			}
			if err := do(ctx, conn); err != nil && ctx.Err() == nil {
				c.log.Warn("a question about the policy goes unanswered", "error", err)
			}
		})
	}
}

// ServePolicyd answers on upstream's socket whether calls may be made
// (spec/qrexec.md §10), and asks a person where the policy wants that, until
// Close or an error of Accept.
func (c *Calls) ServePolicyd(l net.Listener) error { return c.serve(l, c.answerQuery) }

func (c *Calls) answerQuery(ctx context.Context, conn net.Conn) error {
	q, err := query.ReadRequest(conn)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	// Who hangs up gives up. Nothing more is to come.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		var one [1]byte
		if n, err := conn.Read(one[:]); n == 0 && errors.Is(err, io.EOF) {
			awaitHangup(ctx, conn)
		}
	}()
	text := c.query(ctx, q).String()
	if ctx.Err() != nil {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(queryTime)); err != nil {
		return err
	}
	_, err = io.WriteString(conn, text)
	return err
}

// awaitHangup returns when the other side of a connection, which has said all
// it had to say, has closed it, or when the context ends.
func awaitHangup(ctx context.Context, conn net.Conn) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// Read waits for events after each false; a hang-up is one.
	_ = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		return err != nil && !errors.Is(err, unix.EINTR) || n == 1 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

// query answers one question.
func (c *Calls) query(ctx context.Context, q query.Request) query.Answer {
	source, r, err := c.named(q)
	if q.JustEvaluate {
		if err != nil {
			return query.Answer{}
		}
		d, _, err := c.judge(r.Request)
		if err != nil {
			return query.Answer{}
		}
		return query.Evaluated(d, q.AssumeYes)
	}
	e := c.book.begin(control.Call{Service: q.Service, Target: q.Target})
	e.Source = source
	if err == nil {
		e.from = r.source.UUID()
	}
	var d policy.Decision
	switch {
	case err != nil:
	case q.AssumeYes:
		if d, _, err = c.judge(r.Request); err == nil && d.Action == policy.Ask {
			d = d.Choose(d.Requested)
		}
		e.Allowed, e.Target, e.Reason = d.Action == policy.Allow, d.Target, d.Reason.Explain()
	default:
		d, err = c.settle(ctx, r, e)
	}
	if err != nil {
		e.Error = err.Error()
	}
	c.record(e)
	if err != nil || d.Action != policy.Allow {
		return query.Answer{}
	}
	if d.Notify {
		c.notify(r, d, allowed)
	}
	return query.Of(d)
}

// named looks the words of a question up.
func (c *Calls) named(q query.Request) (source string, r request, err error) {
	name, err := qube.ParseName(q.Source)
	if err != nil {
		return "", r, err
	}
	caller, ok := c.o.Core.View().Named(name)
	if !ok {
		return "", r, fmt.Errorf("there is no qube named %s", name)
	}
	r, err = newRequest(caller, q.Service, q.Target, q.RequestedSource)
	return string(name), r, err
}

// Bounds of what an evaluation service reads, in bytes (spec/qrexec.md §10).
const (
	maxEvaluation = 96
	maxDescriptor = 65000
	maxEvalSource = 31
	maxEvalTarget = 63
)

// evaluation is what policy.EvalSimple or policy.EvalGUI is asked.
type evaluation struct {
	service, argument string // what would be called
	caller            string // who asks
	source, target    string
}

// parseEvaluation reads the descriptor of a socket service without its NUL,
// and the caller's input.
func parseEvaluation(descriptor, input string) (evaluation, error) {
	words := strings.Split(descriptor, " ")
	if len(words) != 2 && len(words) != 4 {
		return evaluation{}, fmt.Errorf("%.80q is not the descriptor of a service", descriptor)
	}
	_, about, ok := strings.Cut(words[0], "+")
	if !ok || about == "" {
		return evaluation{}, fmt.Errorf("%.80q names no service to evaluate", words[0])
	}
	name, argument, _ := strings.Cut(about, "+")
	e := evaluation{service: name, argument: "+" + argument, caller: words[1]}
	if err := policy.CheckService(e.service, e.argument); err != nil {
		return evaluation{}, err
	}
	source, target, ok := strings.Cut(input, "\x00")
	switch {
	case !ok || len(input) > maxEvaluation:
		return evaluation{}, errors.New("a source and a target with a zero byte in between are needed")
	case source == "" || len(source) > maxEvalSource || !isEvalName(source):
		return evaluation{}, fmt.Errorf("%.80q is not a source", source)
	case target == "" || len(target) > maxEvalTarget || !isEvalName(target):
		return evaluation{}, fmt.Errorf("%.80q is not a target", target)
	}
	e.source, e.target = source, target
	return e, nil
}

func isEvalName(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("@_-.", r)
	}) < 0
}

// ServeEvaluation answers the socket services policy.EvalSimple, and with gui
// policy.EvalGUI, until Close or an error of Accept.
func (c *Calls) ServeEvaluation(l net.Listener, gui bool) error {
	return c.serve(l, func(_ context.Context, conn net.Conn) error {
		raw, err := io.ReadAll(io.LimitReader(conn, maxDescriptor+maxEvaluation+2))
		if err != nil {
			return err
		}
		descriptor, input, ok := bytes.Cut(raw, []byte{0})
		if !ok || len(descriptor) > maxDescriptor {
			return errors.New("there is no descriptor of a service")
		}
		e, err := parseEvaluation(string(descriptor), string(input))
		if err != nil {
			return err
		}
		answer := "result=deny\n"
		if c.evaluate(e, gui) {
			answer = "result=allow\n"
		}
		_, err = io.WriteString(conn, answer)
		return err
	})
}

// evaluate tells whether a call might be made; somebody who is asked says yes.
func (c *Calls) evaluate(e evaluation, gui bool) bool {
	if gui && !(c.shownBy(e.source, e.caller) && c.shownBy(e.target, e.caller)) {
		return false
	}
	d, _, err := c.judge(policy.Request{Service: e.service, Argument: e.argument, Source: e.source, Target: e.target})
	return err == nil && d.Permits(true)
}

// shownBy tells whether a qube's windows are shown by another.
func (c *Calls) shownBy(name, gui string) bool {
	var q core.Qube
	n, err := qube.ParseName(name)
	ok := err == nil
	if ok {
		q, ok = c.o.Core.View().Named(n)
	}
	if !ok {
		return false
	}
	for _, tag := range q.Tags() {
		if tag == "guivm-"+gui {
			return true
		}
	}
	return false
}
