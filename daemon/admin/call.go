package admin

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// call is one request being answered.
type call struct {
	*Server
	req      Request
	conn     net.Conn
	body     *pieces // the payload of a method that takes contents
	view     *core.View
	source   core.Qube
	dest     core.Qube
	streamed bool // the answer was a stream of events
}

// serve makes the checks of spec/admin-api.md §1.1 and runs the method.
func (c *call) serve(methods map[string]method) (string, error) {
	c.view = c.core.View()
	var err error
	if c.source, err = c.lookup(c.req.Source); err != nil {
		return "", err
	}
	m, known := methods[c.req.Method]
	if !known {
		return "", core.Failf(core.ProtocolViolation, "unknown method %s", printable(c.req.Method))
	}
	// Whoever may not call it learns nothing of what there is.
	var missing error
	c.dest, missing = c.lookup(c.req.Dest)
	question := Question{Source: c.source, Dest: c.dest, Known: missing == nil, Method: publicName(c.req), Arg: c.req.Arg}
	if !c.Policy.Allows(question) {
		return "", core.Failf(core.PermissionDenied, "%s may not call %s", c.source.Name(), c.req.Method)
	}
	if missing != nil {
		return "", missing
	}
	switch {
	case m.dest == onDom0 && !c.dest.IsAdmin():
		return "", core.Failf(core.ProtocolViolation, "%s is for dom0 only", c.req.Method)
	case m.dest == onQube && c.dest.IsAdmin():
		return "", core.Failf(core.ProtocolViolation, "%s is not for dom0", c.req.Method)
	}
	if err := m.arg.check(c.req.Arg != "", c.req.Method, "an argument"); err != nil {
		return "", err
	}
	if err := m.payload.check(len(c.req.Payload) > 0, c.req.Method, "a payload"); err != nil {
		return "", err
	}
	return m.do(c.life, c)
}

// lookup finds the qube that a request names.
func (c *call) lookup(text string) (core.Qube, error) {
	if id, ok := strings.CutPrefix(text, "uuid:"); ok {
		u, err := qube.ParseUUID(id)
		if err != nil {
			return core.Qube{}, core.Failf(core.InvalidUUID, "%q is not a uuid in lower case", printable(id))
		}
		q, ok := c.view.Lookup(u)
		if !ok {
			return core.Qube{}, core.Failf(core.NotFound, "there is no qube with the uuid %s", u)
		}
		return q, nil
	}
	n, err := qube.ParseName(text)
	if err != nil {
		return core.Qube{}, core.Failf(core.BadValue, "%s", err)
	}
	q, ok := c.view.Named(n)
	if !ok {
		return core.Qube{}, core.Failf(core.NotFound, "there is no qube named %s", n)
	}
	return q, nil
}

// allows asks the policy for one thing that a reply would show.
func (c *call) allows(method, arg string, dest core.Qube) bool {
	return c.Policy.Allows(Question{Source: c.source, Dest: dest, Known: true, Method: method, Arg: arg, Shown: true})
}

// printable shows unchecked text in a message.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}

// payload reads the payload of a method that reads its own, and one byte more
// than limit where it is longer. It has to come within the time of a request.
func (c *call) payload(limit int64) ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.RequestTime)); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(c.body.in, limit+1))
	if err != nil {
		return nil, core.Failf(core.ProtocolViolation, "the payload does not end")
	}
	return raw, nil
}

// finish waits for a job that the request started.
func (c *call) finish(ctx context.Context, job uint64, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return "", c.core.Wait(ctx, job)
}
