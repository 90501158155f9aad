// Package runner runs dom0's own services for the qubes that may call them. It
// is the service's end of a call's data channel, as the agent is in a qube
// (spec/qrexec.md §7.3, §13): qrexecd, which is jailed and starts nothing,
// hands it each call over the socket paths.Root.Services.
//
// It runs as the desktop user. Services are files in paths.Root.RPC, and
// without one those that are built in (builtin.go): the Admin API and its like
// are sockets of qubesd.
//
// What a qube sends goes unread to the service, which must not believe it. A
// service knows the caller's name, from qrexecd.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"slices"
	"sync"
	"time"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
	"cubicle/daemon/vchan"
)

// Options are a runner's parameters.
type Options struct {
	Root paths.Root
	// AllowUIDs may hand calls over, beside root.
	AllowUIDs []uint32
	Env       []string // of the services
	Log       *slog.Logger
}

// Limits of the calls that run at once: qrexecd lets a qube have more, but a
// service costs dom0 a process.
const (
	maxCalls     = 512
	maxPerSource = 128

	handoverTimeout = 5 * time.Second
)

// Runner is the runner. Use New.
type Runner struct {
	allowed map[uint32]bool
	env     []string
	dir     string // where services start
	log     *slog.Logger
	lookup  service.Lookup
	calls   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	total   int
	sources map[string]int // calls that run, by their caller's name
}

// New returns a runner that does nothing yet.
func New(opts Options) *Runner {
	r := &Runner{
		allowed: map[uint32]bool{0: true},
		env:     service.Inherit(opts.Env),
		dir:     "/",
		log:     opts.Log,
		sources: make(map[string]int),
	}
	for _, uid := range opts.AllowUIDs {
		r.allowed[uid] = true
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if u, err := user.Current(); err == nil {
		if fi, err := os.Stat(u.HomeDir); err == nil && fi.IsDir() {
			r.dir = u.HomeDir
		}
	}
	r.lookup = service.Lookup{Path: opts.Root.RPC(), ConfigPath: opts.Root.RPCConfig(), Log: r.log, Builtin: builtins(opts.Root)}
	return r
}

// Serve takes calls over from l, which it closes, until ctx ends; that is no
// error. Services that run then are left alone by their callers' ends.
func (r *Runner) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer r.calls.Wait()
	defer l.Close()
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // out of descriptors, most likely
			r.log.Warn("services' socket", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		r.calls.Go(func() {
			defer conn.Close()
			if err := r.serve(ctx, conn); err != nil && ctx.Err() == nil {
				r.log.Warn("call failed", "err", err)
			}
		})
	}
}

// serve runs one call. The end of conn tells qrexecd that it is over.
func (r *Runner) serve(ctx context.Context, conn *net.UnixConn) error {
	if err := r.checkPeer(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return err
	}
	h, file, err := control.ReceiveHandover(conn)
	if err != nil {
		return err
	}
	data, err := net.FileConn(file) // duplicates
	file.Close()
	if err != nil {
		return err
	}
	defer data.Close()
	stop := context.AfterFunc(ctx, func() { data.Close() })
	defer stop()
	if !r.enter(h.Source) {
		return fmt.Errorf("too many calls of %q run", h.Source)
	}
	defer r.leave(h.Source)

	return r.Run(ctx, data, h)
}

// Run is the service's end of a call on a fresh data channel, which it leaves
// open.
func (r *Runner) Run(ctx context.Context, data net.Conn, h control.Handover) error {
	caller, err := service.Open(data)
	if err != nil {
		return fmt.Errorf("call of %q: %w", h.Source, err)
	}
	caller.ErrFirst = true
	plan, err := r.Plan(h.Command)
	if err != nil {
		r.log.Warn("cannot run the service", "source", h.Source, "err", err)
		return caller.Finish(service.Status(err))
	}
	log := r.log.With("service", plan.Name)
	log.Debug("service")
	if err := caller.Run(ctx, log, plan); err != nil && !errors.Is(err, service.ErrCallerGone) {
		return fmt.Errorf("%s: %w", plan.Name, err)
	}
	return nil
}

// Plan finds what a command (QUBESRPC …, spec/qrexec.md §6) runs. A service
// that is nowhere is an Empty plan.
func (r *Runner) Plan(command string) (*service.Plan, error) {
	c, err := wire.ParseLocalCommand(command)
	if err != nil {
		return nil, err
	}
	if c.RPC == nil {
		return nil, errors.New("dom0 runs no command lines for qubes")
	}
	p, err := r.lookup.Plan(c.RPC)
	if err != nil {
		return nil, err
	}
	if u := p.Config.ForceUser; u != "" {
		if err := checkUser(u); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	p.Env = append(slices.Clone(r.env), p.Env...)
	p.Dir = r.dir
	return p, nil
}

// checkUser fails unless name is who we are: we can become nobody else.
func checkUser(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	if u.Uid != fmt.Sprint(os.Geteuid()) {
		return fmt.Errorf("it is to run as %q, which dom0's services cannot", name)
	}
	return nil
}

func (r *Runner) enter(source string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total >= maxCalls || r.sources[source] >= maxPerSource {
		return false
	}
	r.total++
	r.sources[source]++
	return true
}

func (r *Runner) leave(source string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	if r.sources[source]--; r.sources[source] == 0 {
		delete(r.sources, source)
	}
}

func (r *Runner) checkPeer(conn *net.UnixConn) error {
	cred, err := vchan.Peer(conn)
	if err != nil {
		return err
	}
	if !r.allowed[cred.Uid] {
		return fmt.Errorf("user %d may not hand calls over", cred.Uid)
	}
	return nil
}
