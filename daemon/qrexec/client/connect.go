package client

import (
	"context"
	"fmt"
	"net"
	"time"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Waiting names a call out of a qube that waits for dom0's decision.
type Waiting struct {
	Root   paths.Root
	Ident  wire.Ident   // the agent's name of it
	Source string       // the qube: name, domain id or uuid:UUID
	Domain vchan.Domain // its domain id
}

// Connect lets the waiting call happen: command (USER:QUBESRPC …) runs in
// target, whose end of the data channel is the caller itself (spec/qrexec.md
// §7.4). It returns as soon as both are told. The connection that it returns
// ends when the call is over.
func Connect(ctx context.Context, w Waiting, target, command string) (net.Conn, error) {
	call := Call{Root: w.Root, Target: target, Command: command, caller: w.Domain}
	service, err := dial(ctx, call)
	if err != nil {
		return nil, fmt.Errorf("call %q in %s: %w", cut(command), target, err)
	}
	to, err := begin(ctx, service, func() (wire.Exec, error) { return ask(service, call) })
	if err == nil {
		err = w.accept(ctx, wire.Connect{Domain: to.Domain, Port: to.Port, Ident: w.Ident})
	}
	if err != nil {
		service.Close()
		return nil, fmt.Errorf("connect %s to %s: %w", w.Source, target, err)
	}
	return service, nil
}

// Serve takes the waiting call for a service of dom0 (spec/qrexec.md §7.3) and
// returns its data channel, and the connection that ends when the call is
// over.
func Serve(ctx context.Context, w Waiting) (data, call net.Conn, err error) {
	local, err := dialDaemon(ctx, w.Root, w.Source)
	if err != nil {
		return nil, nil, fmt.Errorf("serve a call of %s: %w", w.Source, err)
	}
	to, err := begin(ctx, local, func() (wire.Exec, error) {
		if err := tell(local, wire.Connect{Ident: w.Ident}.Message()); err != nil {
			return wire.Exec{}, err
		}
		return answer(local, wire.ServiceConnect)
	})
	if err == nil {
		wait, cancel := context.WithTimeout(ctx, DefaultConnectTimeout)
		defer cancel()
		own := vchan.Unix{Dir: w.Root.Vchan(), Self: 0}
		var ch *vchan.Channel
		if ch, err = own.Dial(wait, to.Domain, to.Port); err == nil {
			return ch.Conn, local, nil
		}
	}
	local.Close()
	return nil, nil, fmt.Errorf("serve a call of %s: %w", w.Source, err)
}

// accept tells the caller's daemon where its service is, which gets no answer.
func (w Waiting) accept(ctx context.Context, to wire.Connect) error {
	local, err := dialDaemon(ctx, w.Root, w.Source)
	if err != nil {
		return err
	}
	defer local.Close()
	_, err = begin(ctx, local, func() (wire.Exec, error) { return wire.Exec{}, tell(local, to.Message()) })
	return err
}

// begin does the opening of the local protocol in bounded time.
func begin(ctx context.Context, local net.Conn, open func() (wire.Exec, error)) (wire.Exec, error) {
	stop := context.AfterFunc(ctx, func() { local.Close() })
	defer stop()
	if err := local.SetDeadline(time.Now().Add(DefaultConnectTimeout)); err != nil {
		return wire.Exec{}, err
	}
	e, err := open()
	if err != nil {
		return e, refusal(err)
	}
	return e, local.SetDeadline(time.Time{})
}
