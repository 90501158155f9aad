// Package qrexec is the agent in a qube: it owns the qube's end of the
// control channel, starts the commands and services that dom0 asks for, and
// is the service's end of their data channels (spec/qrexec.md §7, §8, §13).
//
// Run does all of it. A template needs no files of ours: the services that
// dom0 itself calls are built in (builtin_linux.go), and a service file of
// the template wins over a built-in one.
//
// The agent believes dom0, which may run anything here anyway, but not its
// fellow programs in the qube.
package qrexec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"cubicle/agents/session"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Options are where the agent finds things. Zero values are upstream's own
// places, and those of package session.
type Options struct {
	Log *slog.Logger

	ServicePath []string // folders of service files, in order
	ConfigPath  []string // folders of rpc-config files, in order
	SessionEnv  string   // file of the session's environment
	ReadyFile   string   // exists while the session is up
	DataDirs    []string // XDG data folders, each with applications/ in it; empty: those of the session
	Trigger     string   // socket for qrexec-client-vm; "-" for none
	Program     string   // our own, which runs services in processes of their own
	// ForkServer is the socket of a user's fork server, %s being the user:
	// calls go there if somebody listens. Empty: we start all programs.
	ForkServer string

	// Settled is closed once commands may run; nil: they may.
	Settled <-chan struct{}
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ServicePath == nil {
		o.ServicePath = service.Path()
	}
	if o.ConfigPath == nil {
		o.ConfigPath = service.ConfigPath()
	}
	if o.SessionEnv == "" {
		o.SessionEnv = session.EnvFile
	}
	if o.ReadyFile == "" {
		o.ReadyFile = session.ReadyFile
	}
	if o.Trigger == "" {
		o.Trigger = TriggerSocket
	}
	if o.Program == "" {
		if self, err := os.Executable(); err == nil {
			o.Program = self
		} else {
			o.Program = "/proc/self/exe"
		}
	}
	return o
}

const (
	dom0 vchan.Domain = 0

	dialTimeout  = 120 * time.Second // for the caller to open the data channel
	helloTimeout = 60 * time.Second  // for a program, or dom0, to say what it wants
	maxCalls     = 256               // upstream's table size

	firstPause = 20 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// agent serves one transport.
type agent struct {
	Options
	transport vchan.Transport
	calls     sync.WaitGroup
	slots     chan struct{} // one token a running call
	env       []string      // of all programs, in a fork server; nil: that of the session
}

// Run serves dom0's control channel over t until ctx ends, opening it again
// whenever it is lost. Calls live on without it. It must run in a process
// that reaps no children but its own. The error is ctx's, or tells why the
// trigger socket cannot be offered.
func Run(ctx context.Context, t vchan.Transport, opts Options) error {
	a := &agent{Options: opts.withDefaults(), transport: t, slots: make(chan struct{}, maxCalls)}
	ctx, cancel := context.WithCancel(ctx)
	defer a.calls.Wait()
	defer cancel()

	triggers, err := a.listenTriggers(ctx)
	if errors.Is(err, fs.ErrPermission) { // started by hand by a plain user
		a.Log.Warn("programs of this qube cannot ask for services elsewhere", "err", err)
		a.Trigger = "-"
		triggers, err = a.listenTriggers(ctx)
	}
	if err != nil {
		return err
	}
	defer triggers.Close()

	pause := firstPause
	for {
		ch, err := t.Listen(ctx, dom0, vchan.PortQrexec)
		if err == nil {
			begun := time.Now()
			err = a.serve(ctx, ch, triggers)
			if time.Since(begun) > time.Second {
				pause = firstPause
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.Log.Info("control channel lost", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// controlChannel is one life of the control channel.
type controlChannel struct {
	version wire.Version
	mu      sync.Mutex // keeps messages whole
	ch      *vchan.Channel
}

func (c *controlChannel) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.ch.Write(b)
	return err
}

// terminated tells dom0 that the call on port is over. When the channel is
// gone, dom0 has noticed that by itself.
func (c *controlChannel) terminated(domain vchan.Domain, port vchan.Port) {
	_ = c.send(wire.Exec{Domain: domain, Port: port}.Message(wire.ConnectionTerminated))
}

func (a *agent) serve(ctx context.Context, ch *vchan.Channel, triggers *triggers) error {
	stop := context.AfterFunc(ctx, func() { ch.Close() })
	defer stop()
	defer ch.Close()
	c := &controlChannel{ch: ch}
	if err := c.hello(); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	a.Log.Info("control channel up", "version", c.version)
	triggers.attach(c)
	defer triggers.detach(c)
	for {
		t, body, err := wire.ReadMessage(ch, wire.Daemon, c.version)
		if err != nil {
			return err
		}
		if err := a.handle(ctx, c, triggers, t, body); err != nil {
			return err
		}
	}
}

// hello sends ours first, as the agent does, and uses the smaller version.
func (c *controlChannel) hello() error {
	if err := c.ch.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	if err := c.send(wire.HelloMessage(wire.OwnVersion)); err != nil {
		return err
	}
	peer, err := wire.ReadHello(c.ch)
	if err != nil {
		return err
	}
	if c.version, err = wire.Negotiate(wire.OwnVersion, peer, wire.MinVersion); err != nil {
		return err
	}
	return c.ch.SetDeadline(time.Time{})
}

func (a *agent) handle(ctx context.Context, c *controlChannel, triggers *triggers, t wire.Type, body []byte) error {
	switch t {
	case wire.ExecCmdline, wire.JustExec:
		e, err := wire.ParseExec(body)
		if err != nil {
			return err
		}
		a.begin(ctx, c, e, t == wire.JustExec)
	case wire.ServiceConnect:
		conn, err := wire.ParseConnect(body)
		if err != nil {
			return err
		}
		triggers.connect(c, conn)
	case wire.ServiceRefused:
		id, err := wire.ParseRefused(body)
		if err != nil {
			return err
		}
		triggers.refuse(id)
	}
	return nil
}

// begin runs a call beside the control channel.
func (a *agent) begin(ctx context.Context, c *controlChannel, e wire.Exec, justExec bool) {
	select {
	case a.slots <- struct{}{}:
	default:
		a.Log.Warn("too many calls", "limit", maxCalls)
		go c.terminated(e.Domain, e.Port)
		return
	}
	a.calls.Go(func() {
		defer func() { <-a.slots }()
		defer c.terminated(e.Domain, e.Port)
		log := a.Log.With("domain", e.Domain, "port", e.Port)
		taken, err := a.handOver(ctx, log, e, justExec)
		if err == nil && !taken {
			err = a.call(ctx, log, e, justExec)
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("call failed", "err", err)
		}
	})
}

// call opens the data channel and runs the command on it.
func (a *agent) call(ctx context.Context, log *slog.Logger, e wire.Exec, justExec bool) error {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	ch, err := a.transport.Dial(dialCtx, e.Domain, e.Port)
	cancel()
	if err != nil {
		return err
	}
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { ch.Close() })
	defer stop()
	caller, err := service.Greet(ch.Conn)
	if err != nil {
		return err
	}
	if a.Settled != nil {
		select {
		case <-a.Settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	plan, err := a.plan(ctx, log, e.Command, caller.Gone)
	if err := caller.Meet(); err != nil { // by now it has said hello, most likely
		return err
	}
	if err != nil {
		log.Warn("cannot run the command", "err", err)
		return caller.Finish(service.Status(err))
	}
	if justExec {
		return caller.Finish(plan.JustExec(log))
	}
	return caller.Run(ctx, log, &plan.Plan)
}
