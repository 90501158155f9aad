package admin

import (
	"context"
	"maps"
	"strings"

	"cubicle/daemon/core"
)

// target is the destination that a method takes.
type target int

const (
	onAny target = iota
	onDom0
	onQube
)

// presence says whether something must, may or must not be there.
type presence int

const (
	absent presence = iota
	maybe
	needed
	// contents is a payload that is read by the method itself, and may be
	// larger than MaxRequest.
	contents
)

func (p presence) check(there bool, method, what string) error {
	switch {
	case p == absent && there:
		return core.Failf(core.ProtocolViolation, "%s does not take %s", method, what)
	case p == needed && !there:
		return core.Failf(core.ProtocolViolation, "%s needs %s", method, what)
	}
	return nil
}

// method is a row of the table of spec/admin-api.md §2.
type method struct {
	dest    target
	arg     presence
	payload presence
	do      func(context.Context, *call) (string, error)
}

// table are the methods of a surface.
func table(s Surface) map[string]method {
	switch s {
	case Internal:
		return internalMethods()
	case Misc:
		return miscMethods()
	}
	m := map[string]method{}
	for _, theme := range []map[string]method{
		systemMethods(), lifeMethods(), featureMethods(), firewallMethods(),
		volumeMethods(), poolMethods(), deviceMethods(), missingMethods(), policyMethods(), ownMethods(),
	} {
		maps.Copy(m, theme)
	}
	addProperties(m, "admin.property.", onDom0, systemProperties)
	addProperties(m, "admin.vm.property.", onAny, qubeProperties)
	return m
}

// ownMethods are those that upstream has not; its tools do without them.
func ownMethods() map[string]method {
	return map[string]method{
		"cubicle.SystemInfo": {onDom0, absent, absent, systemInfo}, // as internal.GetSystemInfo, for the desktop user
		"cubicle.job.Events": {onAny, absent, absent, func(ctx context.Context, c *call) (string, error) { return "", c.jobEvents(ctx) }},
		"cubicle.vm.Clone":   {onQube, needed, absent, cloneWhole},
		"cubicle.vm.List":    {onDom0, absent, needed, listTable},
	}
}

// lines writes one item a line.
func lines(items []string) string {
	var b strings.Builder
	for _, i := range items {
		b.WriteString(i + "\n")
	}
	return b.String()
}
