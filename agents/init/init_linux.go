// Package pid1 is the first process of a sandbox qube. It completes what the
// engine left (mounts, the private volume, names), keeps the X server, the
// session bus and the agents running, collects every process that ends, and
// takes the qube down in order when dom0 sends SIGTERM.
//
// It holds no protocol: whatever reads foreign bytes is a process of its own
// (the same binary, started again), so that no crash of it ends the qube.
package pid1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/agents/actions"
	"cubicle/agents/session"
)

// DebugEnv is the variable that makes all agents log details.
const DebugEnv = "CUBICLE_DEBUG"

// ErrNotInit is returned to a process that is not the first of its PID
// namespace: it would collect and kill what is not its own.
var ErrNotInit = errors.New("not the first process (PID 1) of a qube")

// The halt signal of systemd's containers, which OCI runtimes send as well.
const sigHalt = unix.Signal(34 + 3) // SIGRTMIN+3

// Run sets up the qube and serves until dom0 asks for its end. The caller
// exits right after.
func Run(log *slog.Logger) error {
	if os.Getpid() != 1 {
		return ErrNotInit
	}
	began := time.Now()
	stopSignal := make(chan os.Signal, 1)
	signal.Notify(stopSignal, unix.SIGTERM, unix.SIGINT, unix.SIGPWR, sigHalt)
	unix.Umask(0o022)

	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's program: %w", err)
	}
	// What the agents need to tell dom0 that the qube is up.
	mountMissing(log)
	if err := os.MkdirAll(session.Dir, 0o755); err != nil {
		log.Error("set-up failed", "what", "the agents' folder", "err", err)
	}
	settled, settle, err := os.Pipe()
	if err != nil {
		return err
	}
	defer settled.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := newReaper()
	var reaping, keeping sync.WaitGroup
	reapCtx, stopReaping := context.WithCancel(context.Background())
	defer stopReaping()
	reaping.Go(func() { r.run(reapCtx) })

	s := newSupervisor(r, log)
	keep := func(services []service) {
		for _, v := range services {
			keeping.Go(func() { s.keep(ctx, v) })
		}
	}
	keep([]service{planLink(self, settled)})
	user := setUp(log, self)
	settle.Close()
	services, ready := planSession(log, self, user)
	keep(services)
	keeping.Go(func() {
		if ready.wait(ctx) == nil {
			log.Info("session is ready", "after", time.Since(began).Round(time.Millisecond))
		}
	})

	log.Info("stopping", "signal", (<-stopSignal).String())
	running := s.running()
	cancel()
	keeping.Wait()
	os.Remove(session.ReadyFile)
	err = s.stop(running)
	stopReaping()
	reaping.Wait()
	unmountAll(log)
	log.Info("stopped")
	return err
}

// setUp does what comes before any program of the user. What fails is logged:
// a qube in which something is wrong is more use than one that does not start.
func setUp(log *slog.Logger, self string) session.User {
	user, err := session.LookupUser(session.DefaultUser)
	if err != nil {
		log.Error("the image has no desktop user", "err", err)
		user = session.User{Name: session.DefaultUser, UID: 1000, GID: 1000, Home: "/home/" + session.DefaultUser, Shell: "/bin/sh"}
	}
	freeSpaceWarning(log)
	for _, step := range []struct {
		what string
		err  error
	}{
		{"private volume", setUpPrivate(user)},
		{"host", setUpHost(log, user)},
		{"network", raiseLoopback()},
		{"session", session.WriteEnv(session.EnvFile, user.Env())},
		{"x server", session.WriteXFiles(user.UID)},
		{"tools", linkTools("/", self)},
		{"entries of file managers", actions.LayDown(actions.Dir)},
	} {
		if step.err != nil {
			log.Error("set-up failed", "what", step.what, "err", step.err)
		}
	}
	return user
}

// systemEnv is the environment of services that are not the user's.
func systemEnv() []string {
	env := []string{"PATH=" + session.Path, "LANG=" + session.Locale, "HOME=/root"}
	if v, ok := os.LookupEnv(DebugEnv); ok {
		env = append(env, DebugEnv+"="+v)
	}
	return env
}

// agent is one of our own services.
func agent(self, name string, args ...string) service {
	return service{name: name, argv: append([]string{self, name}, args...),
		env: append([]string{"DISPLAY=" + session.Display, "XAUTHORITY=" + session.XAuthFile}, systemEnv()...)}
}

// planLink is the service that connects the qube to dom0. It starts beside the
// set-up: it says hello at once, and runs what dom0 asks for when settled has
// ended.
func planLink(self string, settled *os.File) service {
	qrexec := agent(self, "qrexec", "--share", fmt.Sprintf("--settled-fd=%d", firstFD))
	qrexec.inherits = settled
	return qrexec
}

// planSession lists the services of the user's session, and the condition that
// it is ready, which agents see as session.ReadyFile.
func planSession(log *slog.Logger, self string, user session.User) ([]service, *condition) {
	x, bus, ready := newCondition(), newCondition(), newCondition()
	var mu sync.Mutex // one judgement at a time
	judge := func() {
		mu.Lock()
		defer mu.Unlock()
		holds := x.get() && bus.get()
		var err error
		if holds {
			err = os.WriteFile(session.ReadyFile, nil, 0o644)
		} else if err = os.Remove(session.ReadyFile); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err != nil {
			log.Error("cannot tell whether the session is ready", "err", err)
		}
		ready.set(holds)
	}
	x.notify, bus.notify = judge, judge

	services := []service{
		agent(self, "qubesdb"),
		{
			name:    "session bus",
			argv:    []string{"/usr/bin/dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=" + user.BusAddress(), fmt.Sprintf("--print-address=%d", firstFD)},
			env:     user.Env(),
			cred:    user.Credential(),
			readyFD: firstFD,
			ready:   bus,

			activates: true,
		},
	}
	server, err := session.XServer()
	if err != nil {
		log.Error("the image has no X server: the qube shows no windows", "err", err)
		return services, ready
	}
	gui := agent(self, "gui")
	gui.after = []*condition{x}
	// It passes things on and computes nothing: with one thread at work, a
	// picture is handed from goroutine to goroutine without waking another
	// processor.
	gui.env = append(gui.env, "GOMAXPROCS=1")
	return append(services,
		service{
			name:    "x server",
			argv:    append([]string{server}, session.XArgs(firstFD)...),
			env:     systemEnv(),
			readyFD: firstFD,
			ready:   x,
		},
		gui,
	), ready
}
