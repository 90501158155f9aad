package client

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Methods that return a number start a job: follow it by events or with Wait.

// CreateQube makes a qube. Properties are the rows of the property table in
// the Admin API's text form; "template" names its template.
func (c *Client) CreateQube(ctx context.Context, name, class, label string, props map[string]string) (uint64, error) {
	return c.CreateSized(ctx, name, class, label, props, nil)
}

// CreateSized is CreateQube with the bytes of volumes that are not to have
// their default size.
func (c *Client) CreateSized(ctx context.Context, name, class, label string, props map[string]string, sizes map[string]uint64) (uint64, error) {
	values := make(map[string]dbus.Variant, len(props)+len(sizes))
	for volume, size := range sizes {
		values[SizeOf+volume] = dbus.MakeVariant(size)
	}
	for k, v := range props {
		values[k] = dbus.MakeVariant(v)
	}
	return c.job(ctx, RootPath, ManagerInterface+".CreateQube", name, class, label, values)
}

// CreateTemplate builds the template of that name from a recipe.
func (c *Client) CreateTemplate(ctx context.Context, name, recipe string) (uint64, error) {
	return c.job(ctx, RootPath, ManagerInterface+".CreateTemplate", name, recipe)
}

// Start starts a halted qube.
func (c *Client) Start(ctx context.Context, uuid string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Start")
}

// Shutdown asks the qube to end, and waits for it at most its
// shutdown_timeout. Force skips the checks for others that depend on it.
func (c *Client) Shutdown(ctx context.Context, uuid string, force bool) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Shutdown", force)
}

// Kill ends the qube now.
func (c *Client) Kill(ctx context.Context, uuid string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Kill")
}

// Pause freezes the qube.
func (c *Client) Pause(ctx context.Context, uuid string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Pause")
}

// Unpause thaws the qube.
func (c *Client) Unpause(ctx context.Context, uuid string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Unpause")
}

// Remove deletes the halted qube with its volumes.
func (c *Client) Remove(ctx context.Context, uuid string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Remove")
}

// Clone copies the qube to a new one of that name.
func (c *Client) Clone(ctx context.Context, uuid, name string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Clone", name)
}

// StartApp launches a desktop entry, such as "xterm", or a terminal with
// "qubes-run-terminal"; a halted qube is started first.
func (c *Client) StartApp(ctx context.Context, uuid, app string) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".StartApp", app)
}

// Run runs a shell command in the qube; a halted qube is started first. An
// empty user is the qube's default user. With waitForSession it runs when the
// qube's desktop session is up.
func (c *Client) Run(ctx context.Context, uuid, command, user string, waitForSession bool) (uint64, error) {
	return c.job(ctx, QubePath(uuid), QubeInterface+".Run", command, user, waitForSession)
}

// SetProperty sets a row of the property table, in the Admin API's text form.
func (c *Client) SetProperty(ctx context.Context, uuid, name, value string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".SetProperty", nil, name, value)
}

// SetSystemProperty sets a row of the system's properties likewise.
func (c *Client) SetSystemProperty(ctx context.Context, name, value string) error {
	return c.call(ctx, RootPath, ManagerInterface+".SetProperty", nil, name, value)
}

// ResetProperty puts a row of the property table back to its default.
func (c *Client) ResetProperty(ctx context.Context, uuid, name string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".ResetProperty", nil, name)
}

// Volumes describes the qube's volumes: the keys of spec/admin-api.md §2.5,
// admin.vm.volume.Info, and "name".
func (c *Client) Volumes(ctx context.Context, uuid string) ([]map[string]any, error) {
	var list []properties
	if err := c.call(ctx, QubePath(uuid), QubeInterface+".Volumes", []any{&list}); err != nil {
		return nil, err
	}
	volumes := make([]map[string]any, len(list))
	for i, p := range list {
		volumes[i] = make(map[string]any, len(p))
		for k, v := range p {
			volumes[i][k] = v.Value()
		}
	}
	return volumes, nil
}

// Cancel asks a job to stop; it ends as cancelled when it could be undone.
func (c *Client) Cancel(ctx context.Context, job uint64) error {
	return c.call(ctx, JobPath(job), JobInterface+".Cancel", nil)
}

// Wait follows a job to its end. The error is the job's own (an *Error), or
// tells that qubesd went away before the end was known.
func (c *Client) Wait(ctx context.Context, job uint64) (Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var last Job
	for e := range c.Watch(ctx) {
		switch e := e.(type) {
		case Connected:
			j, ok := e.Snapshot.Jobs[job]
			if ok {
				last = j
				break
			}
			// A job that was just started may be missing in the mirror, whose
			// signals are on their way. Ask only whether it exists: its end
			// shall be told after what it did.
			var p properties
			if err := c.call(ctx, JobPath(job), "org.freedesktop.DBus.Properties.GetAll", []any{&p}, JobInterface); err != nil {
				return last, fmt.Errorf("follow job %d: %w", job, err)
			}
		case JobAdded:
			if e.Job.ID == job {
				last = e.Job
			}
		case JobChanged:
			if e.Job.ID == job {
				last = e.Job
			}
		case Lost:
			return last, &Error{communicationError, "qubesd went away during the job"}
		}
		if last.ID == job && last.State != JobRunning && last.State != "" {
			return last, last.Err()
		}
	}
	if ctx.Err() != nil {
		return last, ctx.Err()
	}
	return last, &Error{communicationError, "the connection to qubesd is closed"}
}

func (c *Client) job(ctx context.Context, path dbus.ObjectPath, method string, args ...any) (uint64, error) {
	var p dbus.ObjectPath
	if err := c.call(ctx, path, method, []any{&p}, args...); err != nil {
		return 0, err
	}
	id, ok := jobOf(p)
	if !ok {
		return 0, &Error{communicationError, "unexpected reply: " + string(p) + " is not a job"}
	}
	return id, nil
}
