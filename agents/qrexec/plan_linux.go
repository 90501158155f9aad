package qrexec

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"

	"cubicle/agents/session"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
)

// plan is what a command comes to, and whose it is.
type plan struct {
	service.Plan
	user session.User
}

// plan reads a command and finds what it runs, waiting for the session where
// the service wants that; gone ends the wait.
func (a *agent) plan(ctx context.Context, log *slog.Logger, command string, gone func() bool) (*plan, error) {
	c, err := wire.ParseCommand(command)
	if err != nil {
		return nil, err
	}
	if c.RPC == nil {
		p := &plan{Plan: service.Plan{Name: "command"}}
		if err := a.asUser(p, c.User, c.NoGUI); err != nil {
			return nil, err
		}
		p.Argv = []string{p.user.Shell, "-c", c.Line}
		return p, nil
	}
	return a.planService(ctx, log, c, gone)
}

func (a *agent) planService(ctx context.Context, log *slog.Logger, c wire.Command, gone func() bool) (*plan, error) {
	r := c.RPC
	log.Info("service", "service", r.FullName(), "source", r.Source, "user", c.User)
	found, err := service.Lookup{Path: a.ServicePath, ConfigPath: a.ConfigPath, Log: log}.Plan(r)
	if err != nil {
		return nil, err
	}
	p := &plan{Plan: *found}
	b, isBuiltin := builtins[r.Service]
	isBuiltin = isBuiltin && p.Empty()
	user := c.User
	switch {
	case p.Config.ForceUser != "":
		user = p.Config.ForceUser
	case isBuiltin && b.user != "":
		user = b.user
	}
	if !c.NoGUI && (p.Config.WaitForSession || isBuiltin && b.wait(r)) {
		if err := a.waitForSession(ctx, gone); err != nil {
			return nil, err
		}
	}
	if err := a.asUser(p, user, c.NoGUI); err != nil {
		return nil, err
	}
	if isBuiltin {
		err = b.plan(a, p, r)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// asUser puts user and environment into p.
func (a *agent) asUser(p *plan, name string, noGUI bool) error {
	u, err := session.LookupUser(name)
	if err != nil {
		return service.Fail(wire.StatusFault, "user %q: %w", name, err)
	}
	if os.Geteuid() != 0 && int(u.UID) != os.Geteuid() {
		return service.Fail(wire.StatusFault, "the agent does not run as root and cannot become %q", name)
	}
	p.user, p.Dir = u, u.Home
	if fi, err := os.Stat(p.Dir); err != nil || !fi.IsDir() {
		p.Dir = "/"
	}
	if os.Geteuid() == 0 {
		p.Credential = u.Credential()
	}
	p.Env = append(a.userEnv(u, noGUI), p.Env...)
	return nil
}

// userEnv is the environment of u's programs: that of the session for its
// user, and of the display alone for others.
func (a *agent) userEnv(u session.User, noGUI bool) []string {
	if a.env != nil {
		return slices.Clone(a.env)
	}
	env := []string{"HOME=" + u.Home, "LOGNAME=" + u.Name, "PATH=" + session.Path, "SHELL=" + u.Shell, "USER=" + u.Name}
	if lang := os.Getenv("LANG"); lang != "" {
		env = append(env, "LANG="+lang)
	}
	if path := os.Getenv("QREXEC_SERVICE_PATH"); path != "" {
		env = append(env, "QREXEC_SERVICE_PATH="+path)
	}
	if noGUI {
		return env
	}
	vars, err := session.ReadEnv(a.SessionEnv)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			a.Log.Warn("session environment", "err", err)
		}
		return env
	}
	own := getenv(vars, "USER") == u.Name
	for _, kv := range vars {
		key, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(key, "QREXEC") {
			continue
		}
		if own || key == "DISPLAY" || key == "XAUTHORITY" || key == "LANG" {
			env = setenv(env, kv)
		}
	}
	return env
}

func getenv(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

func setenv(env []string, kv string) []string {
	key, _, _ := strings.Cut(kv, "=")
	for i, old := range env {
		if strings.HasPrefix(old, key+"=") {
			env[i] = kv
			return env
		}
	}
	return append(env, kv)
}
