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

	user := setUp(log)

	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's program: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := newReaper()
	var reaping, keeping sync.WaitGroup
	reapCtx, stopReaping := context.WithCancel(context.Background())
	defer stopReaping()
	reaping.Go(func() { r.run(reapCtx) })

	s := newSupervisor(r, log)
	services, ready := plan(log, self, user)
	for _, v := range services {
		keeping.Go(func() { s.keep(ctx, v) })
	}
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

// setUp does what comes before the first service. What fails is logged: a
// qube in which something is wrong is more use than one that does not start.
func setUp(log *slog.Logger) session.User {
	mountMissing(log)
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
	} {
		if step.err != nil {
			log.Error("set-up failed", "what", step.what, "err", step.err)
		}
	}
	return user
}

// plan lists the services of a qube, and the condition that the session is
// ready, which agents see as session.ReadyFile.
func plan(log *slog.Logger, self string, user session.User) ([]service, *condition) {
	const readyFD = 3
	system := []string{"PATH=" + session.Path, "LANG=" + session.Locale, "HOME=/root"}
	if v, ok := os.LookupEnv(DebugEnv); ok {
		system = append(system, DebugEnv+"="+v)
	}
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

	agent := func(name string, after ...*condition) service {
		return service{name: name, argv: []string{self, name}, after: after,
			env: append([]string{"DISPLAY=" + session.Display, "XAUTHORITY=" + session.XAuthFile}, system...)}
	}
	services := []service{
		agent("link"),
		agent("qrexec"),
		{
			name:    "session bus",
			argv:    []string{"/usr/bin/dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=" + user.BusAddress(), fmt.Sprintf("--print-address=%d", readyFD)},
			env:     user.Env(),
			cred:    user.Credential(),
			readyFD: readyFD,
			ready:   bus,

			activates: true,
		},
	}
	server, err := session.XServer()
	if err != nil {
		log.Error("the image has no X server: the qube shows no windows", "err", err)
		return services, ready
	}
	return append(services,
		service{
			name:    "x server",
			argv:    append([]string{server}, session.XArgs(readyFD)...),
			env:     system,
			readyFD: readyFD,
			ready:   x,
		},
		agent("gui", x),
	), ready
}
