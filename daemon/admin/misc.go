package admin

import (
	"context"
	"maps"
	"slices"
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

// Bounds of what a qube says of itself.
const (
	maxRequests     = 1024 // features
	maxRequestValue = 1024 // bytes
)

// databaseTime is how long the database of a qube may take to answer.
const databaseTime = 10 * time.Second

const (
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
	nameBytes = letters + digits + "_.-"
)

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
	if len(raw) > maxRequests {
		return nil, core.Failf(core.ProtocolViolation, "%s asks for more than %d features", c.source.Name(), maxRequests)
	}
	asked := map[string]string{}
	for path, value := range raw {
		name, ok := strings.CutPrefix(path, prefix)
		if !ok || name == "" || strings.Trim(name, nameBytes) != "" {
			return nil, core.Failf(core.ProtocolViolation, "%s asks for a feature whose name is not allowed", c.source.Name())
		}
		if len(value) > maxRequestValue || strings.Trim(value, allowed) != "" {
			return nil, core.Failf(core.ProtocolViolation, "%s asks for the feature %s with a value that is not allowed", c.source.Name(), name)
		}
		asked[name] = value
	}
	return asked, nil
}

func featuresRequest(ctx context.Context, c *call) (string, error) {
	asked, err := c.requests(ctx, "/features-request/", letters+digits+".,_= -")
	if err != nil {
		return "", err
	}
	return "", c.grant(asked)
}

// notifyTools is what the tools of Windows say in their own words.
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
	if user := said["default-user"]; user != "" {
		if err := c.core.SetProperty(c.source.UUID(), "default_user", user); err != nil {
			return "", err
		}
	}
	return "", c.grant(asked)
}

// grant sets the features that a qube may ask for. Of a qube with a template
// only the calls that it supports are heard: the rest is the template's.
func (c *call) grant(asked map[string]string) error {
	q := c.source
	c.core.Announce(q.UUID(), "features-request", core.Arg{Key: "untrusted_features", Value: pythonDict(asked)})
	based := q.TemplateName() != ""
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		value, ok := requestable(q, name, asked[name])
		if !ok || based && !strings.HasPrefix(name, "supported-rpc.") {
			continue
		}
		if old, is := q.Feature(name); is && old == value {
			continue
		}
		if err := c.core.SetFeature(q.UUID(), name, value); err != nil {
			return err
		}
		if name == "qrexec" {
			c.core.Announce(q.UUID(), "template-postinstall")
		}
	}
	for _, kind := range []string{"supported-service.", "supported-feature.", "supported-rpc."} {
		if based && kind != "supported-rpc." || !slices.ContainsFunc(slices.Collect(maps.Keys(asked)), func(n string) bool { return strings.HasPrefix(n, kind) }) {
			continue
		}
		// A new list replaces the old one.
		for name := range q.Features() {
			if _, again := asked[name]; strings.HasPrefix(name, kind) && !again {
				if err := c.core.RemoveFeature(q.UUID(), name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// pythonDict is how upstream's events write a table of words.
func pythonDict(m map[string]string) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		words = append(words, "'"+key+"': '"+m[key]+"'")
	}
	return "{" + strings.Join(words, ", ") + "}"
}

// requestable is the value of a feature that a qube may ask for
// (spec/admin-api.md §5.4).
func requestable(q core.Qube, name, value string) (string, bool) {
	flag := map[string]string{"0": "", "1": "1"}
	only := func(bytes string) (string, bool) { return value, strings.Trim(value, bytes) == "" && value != "" }
	switch name {
	case "qrexec", "gui", "gui-emulated":
		_, set := q.Feature(name)
		v, ok := flag[value]
		return v, ok && !set
	case "qubes-firewall", "vmexec":
		v, ok := flag[value]
		return v, ok
	case "os", "os-distribution", "os-distribution-like":
		return only(letters + digits + ".,_= -")
	case "os-version":
		v, ok := only(digits + ".-")
		return v, ok && strings.IndexByte(digits, value[0]) >= 0
	case "os-eol":
		_, err := time.Parse(time.DateOnly, value)
		return value, err == nil
	case "qubes-agent-version":
		major, minor, ok := strings.Cut(value, ".")
		return value, ok && isShortNumber(major) && isShortNumber(minor)
	case "anon-timezone":
		return "1", value == "1"
	}
	for _, kind := range []string{"supported-service.", "supported-feature.", "supported-rpc."} {
		if rest, ok := strings.CutPrefix(name, kind); ok {
			return "1", value == "1" && rest != ""
		}
	}
	return "", false
}

func isShortNumber(s string) bool {
	return s != "" && len(s) <= 3 && strings.Trim(s, digits) == ""
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
	text := strings.TrimSpace(string(c.req.Payload))
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
	available := ""
	if count > 0 {
		available = "1"
	}
	if was, _ := q.Feature(updatesAvailable); was != "" && available == "" {
		if err := c.core.SetFeature(q.UUID(), lastUpdate, now); err != nil {
			return err
		}
	}
	if err := c.core.SetFeature(q.UUID(), updatesAvailable, available); err != nil {
		return err
	}
	return c.core.SetFeature(q.UUID(), lastCheck, now)
}
