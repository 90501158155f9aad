package core

import (
	"context"
	"strings"

	"cubicle/daemon/qube"
)

// maxApp bounds the name of a desktop entry: a service's argument.
const maxApp = 128

// StartApp launches a desktop entry in a qube, which is started first if it
// is halted. The job ends when the program was launched.
func (c *Core) StartApp(id qube.UUID, app string) (uint64, error) {
	if app == "" || len(app) > maxApp || strings.Trim(app, tagBytes+".+") != "" {
		return 0, Failf(BadValue, "%q is not the name of a desktop entry", app)
	}
	return c.service(id, "app", "Opening "+app+" in ", Service{Name: "qubes.StartApp+" + app, NoInput: true})
}

// maxCommand bounds a command line.
const maxCommand = 32 << 10

// Run runs a shell command in a qube, which is started first if it is halted.
// The job ends with the command. An empty user is the qube's default user.
func (c *Core) Run(id qube.UUID, command, user string, waitForSession bool) (uint64, error) {
	if command == "" || len(command) > maxCommand || strings.ContainsRune(command, 0) {
		return 0, Failf(BadValue, "a command of 1 to %d bytes is needed", maxCommand)
	}
	if user != "" {
		if row, ok := qube.Lookup(qube.AppVM, "default_user"); ok {
			if _, err := row.Parse(user); err != nil {
				return 0, &Error{Kind: BadValue, Text: err.Error()}
			}
		}
	}
	s := Service{User: user, Name: "qubes.VMShell", Input: command + "; exit\n"}
	if waitForSession {
		s.Name += "+WaitForSession"
	}
	return c.service(id, "run", "Running a command in ", s)
}

func (c *Core) service(id qube.UUID, kind, text string, s Service) (uint64, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return 0, err
	}
	return c.begin(kind, q.Name(), text+string(q.Name()), func(ctx context.Context, p *progress) error {
		if err := c.bring(ctx, id, p); err != nil {
			return err
		}
		now, err := c.find(id)
		if err != nil {
			return err
		}
		if now.State() != qube.Running {
			return Failf(NotRunning, "%s is not running but %s", now.Name(), strings.ToLower(string(now.State())))
		}
		r, err := c.current(now)
		if err != nil {
			return err
		}
		p.report(0.9, text+string(q.Name()))
		s.To = r.facts.Domain
		exit, err := c.cfg.Caller.Call(ctx, s)
		if err != nil {
			return wrap(err, "%s in %s", s.Name, q.Name())
		}
		if exit != 0 {
			return Failf(VMError, "%s in %s ended with status %d", s.Name, q.Name(), exit)
		}
		return nil
	}), nil
}
