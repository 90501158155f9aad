package admin

import (
	"context"
	"strconv"
	"strings"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// miscMethods are what qubes tell of themselves: the source is the qube that
// they are about (spec/admin-api.md §2.7, §5.4).
func miscMethods() map[string]method {
	return map[string]method{
		"qubes.FeaturesRequest": {onDom0, absent, absent, featuresRequest},
		"qubes.NotifyTools":     {onDom0, absent, absent, notifyTools},
		"qubes.NotifyUpdates":   {onDom0, absent, needed, notifyUpdates},
	}
}

// databaseTime is how long the database of a qube may take to answer.
const databaseTime = 10 * time.Second

// requests reads what the calling qube has written below a path of its
// database, by name. Values have these bytes only.
func (c *call) requests(ctx context.Context, prefix, allowed string) (map[string]string, error) {
	switch {
	case c.source.IsAdmin():
		return nil, core.Failf(core.ProtocolViolation, "dom0 tells nothing of itself")
	case c.source.XID() < 0:
		return nil, core.Failf(core.NotRunning, "%s is not running", c.source.Name())
	case c.Database == nil:
		return nil, core.Failf(core.NotImplemented, "qubes have no database here")
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	raw, err := c.Database(ctx, c.source, prefix)
	if err != nil {
		return nil, err
	}
	asked, err := requested(raw, prefix, allowed)
	if err != nil {
		return nil, core.Failf(core.ProtocolViolation, "%s asks for %s", c.source.Name(), err)
	}
	return asked, nil
}

func featuresRequest(ctx context.Context, c *call) (string, error) {
	asked, err := c.requests(ctx, "/features-request/", requestBytes)
	if err != nil {
		return "", err
	}
	return "", c.grant(asked)
}

// notifyTools is what the tools of Windows say in their own words. The user
// that they name is checked and not heard, as upstream does since R4.0.
func notifyTools(ctx context.Context, c *call) (string, error) {
	said, err := c.requests(ctx, "/qubes-tools/", letters+digits)
	if err != nil {
		return "", err
	}
	asked := map[string]string{}
	for _, name := range []string{"qrexec", "gui", "gui-emulated", "os"} {
		if v, ok := said[name]; ok {
			asked[name] = v
		}
	}
	return "", c.grant(asked)
}

// grant sets the features that the calling qube may ask for.
func (c *call) grant(asked map[string]string) error {
	q := c.source
	c.core.Announce(q.UUID(), "features-request", core.Arg{Key: "untrusted_features", Value: pythonDict(asked)})
	was := q.Features()
	set, unset := granted(was, q.TemplateName() != "", asked)
	if err := c.core.ChangeFeatures(q.UUID(), set, unset); err != nil {
		return err
	}
	if set[qrexecFeature] == "" {
		return nil
	}
	if set["os"] == windows {
		if err := c.suitWindows(); err != nil {
			return err
		}
	}
	if was[qrexecFeature] == "" {
		c.core.Announce(q.UUID(), "template-postinstall")
	}
	return nil
}

// suitWindows gives a qube with Windows the properties that it needs, unless
// somebody chose others (spec/admin-api.md §5.4).
func (c *call) suitWindows() error {
	for name, value := range map[string]string{"maxmem": "0", "qrexec_timeout": "6000"} {
		if _, chosen := c.source.Explicit(name); chosen {
			continue
		}
		if err := c.core.SetProperty(c.source.UUID(), name, value); err != nil {
			return err
		}
	}
	return nil
}

// Features about updates (spec/admin-api.md §5.2).
const (
	updatesAvailable = "updates-available"
	lastCheck        = "last-updates-check"
	lastUpdate       = "last-update"
)

// notifyUpdates takes the number of updates that wait for the caller, or for
// the template that it is based on.
func notifyUpdates(_ context.Context, c *call) (string, error) {
	text := strings.TrimSuffix(string(c.req.Payload), "\n")
	if text == "" || len(text) > 9 || strings.Trim(text, digits) != "" {
		return "", core.Failf(core.ProtocolViolation, "%q is not a number of updates", printable(text))
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		return "", core.Failf(core.ProtocolViolation, "%q is not a number of updates", printable(text))
	}
	if c.source.Property("updateable") == "True" {
		return "", c.noteUpdates(c.source, count)
	}
	t, ok := updateableTemplate(c.source)
	if !ok || t.State() != qube.Halted || count == 0 || c.source.Outdated() {
		return "", nil // what it sees says nothing of the template
	}
	return "", c.noteUpdates(t, count)
}

// updateableTemplate is the nearest template that updates are installed in.
func updateableTemplate(q core.Qube) (core.Qube, bool) {
	for range 16 { // more than any chain of templates is long
		t, ok := q.Referent("template")
		if !ok || t.Property("updateable") == "True" {
			return t, ok
		}
		q = t
	}
	return core.Qube{}, false
}

func (c *call) noteUpdates(q core.Qube, count int) error {
	now := time.Now().Format(time.DateTime)
	set := map[string]string{updatesAvailable: "", lastCheck: now}
	if count > 0 {
		set[updatesAvailable] = "1"
	} else if was, _ := q.Feature(updatesAvailable); was != "" {
		set[lastUpdate] = now
	}
	return c.core.ChangeFeatures(q.UUID(), set, nil)
}
