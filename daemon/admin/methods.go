package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
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

func publicMethods() map[string]method {
	m := map[string]method{
		"admin.vmclass.List": {onDom0, absent, absent, listClasses},
		"admin.vm.List":      {onAny, absent, absent, listQubes},
		"admin.label.List":   {onDom0, absent, absent, listLabels},
		"admin.label.Get":    {onDom0, needed, absent, labelColor},
		"admin.label.Index":  {onDom0, needed, absent, labelIndex},
		"admin.Events":       {onAny, absent, absent, func(ctx context.Context, c *call) (string, error) { return "", c.events(ctx) }},

		"cubicle.job.Events": {onAny, absent, absent, func(ctx context.Context, c *call) (string, error) { return "", c.jobEvents(ctx) }},
		"cubicle.vm.List":    {onDom0, absent, needed, listTable},

		"admin.vm.Remove":       {onAny, absent, absent, remove},
		"admin.vm.Start":        {onAny, absent, absent, start},
		"admin.vm.Shutdown":     {onAny, maybe, absent, shutdown},
		"admin.vm.Kill":         {onAny, absent, absent, kill},
		"admin.vm.Pause":        {onAny, absent, absent, pause},
		"admin.vm.Unpause":      {onAny, absent, absent, unpause},
		"admin.vm.CurrentState": {onAny, absent, absent, currentState},
		"admin.vm.notes.Get":    {onQube, absent, absent, getNotes},
		"admin.vm.notes.Set":    {onQube, absent, needed, setNotes},

		"admin.vm.feature.List":              {onAny, absent, absent, listFeatures},
		"admin.vm.feature.Get":               {onAny, needed, absent, feature(ownOnly)},
		"admin.vm.feature.CheckWithTemplate": {onAny, needed, absent, feature(withTemplate)},
		"admin.vm.feature.CheckWithNetvm":    {onAny, needed, absent, feature(withNetVM)},
		"admin.vm.feature.CheckWithAdminVM":  {onAny, needed, absent, feature(withAdmin)},
		"admin.vm.feature.CheckWithTemplateAndAdminVM": {onAny, needed, absent, feature(func(c *call) []core.Qube {
			return append(withTemplate(c), withAdmin(c)[1:]...)
		})},
		"admin.vm.feature.Set":    {onAny, needed, maybe, setFeature},
		"admin.vm.feature.Remove": {onAny, needed, absent, removeFeature},
		"admin.vm.tag.List":       {onAny, absent, absent, listTags},
		"admin.vm.tag.Get":        {onAny, needed, absent, getTag},
		"admin.vm.tag.Set":        {onAny, needed, absent, setTag},
		"admin.vm.tag.Remove":     {onAny, needed, absent, removeTag},

		"admin.vm.volume.List":   {onAny, absent, absent, listVolumes},
		"admin.vm.volume.Info":   {onAny, needed, absent, volumeInfo},
		"admin.vm.volume.Resize": {onAny, needed, needed, resizeVolume},
		"admin.pool.List":        {onDom0, absent, absent, listPools},
		"admin.pool.Info":        {onDom0, needed, absent, poolInfo},
	}
	for _, class := range []qube.Class{qube.AppVM, qube.TemplateVM} {
		m["admin.vm.Create."+string(class)] = method{onDom0, maybe, needed, create(class, false)}
		m["admin.vm.CreateInPool."+string(class)] = method{onDom0, maybe, needed, create(class, true)}
	}
	addProperties(m, "admin.property.", onDom0, systemProperties)
	addProperties(m, "admin.vm.property.", onAny, qubeProperties)
	return m
}

func internalMethods() map[string]method {
	return map[string]method{
		"internal.GetSystemInfo": {onDom0, absent, absent, systemInfo},
	}
}

// System, classes, labels.

func lines(items []string) string {
	var b strings.Builder
	for _, i := range items {
		b.WriteString(i + "\n")
	}
	return b.String()
}

func listClasses(context.Context, *call) (string, error) {
	return lines([]string{string(qube.AppVM), string(qube.TemplateVM), string(qube.AdminVM)}), nil
}

func listQubes(_ context.Context, c *call) (string, error) {
	list := []core.Qube{c.dest}
	if c.dest.IsAdmin() {
		list = append(list, c.view.Qubes()...)
	}
	var b strings.Builder
	for _, q := range list {
		fmt.Fprintf(&b, "%s class=%s state=%s uuid=%s\n", q.Name(), q.Class(), q.State(), q.UUID())
	}
	return b.String(), nil
}

func listLabels(context.Context, *call) (string, error) {
	var names []string
	for _, l := range qube.Labels {
		names = append(names, l.Name)
	}
	return lines(names), nil
}

func (c *call) label() (qube.Label, error) {
	l, err := qube.ParseLabel(c.req.Arg)
	if err != nil {
		return qube.Label{}, core.Failf(core.LabelNotFound, "there is no label %s", printable(c.req.Arg))
	}
	return l, nil
}

func labelColor(_ context.Context, c *call) (string, error) {
	l, err := c.label()
	if err != nil {
		return "", err
	}
	return l.Hex(), nil
}

func labelIndex(_ context.Context, c *call) (string, error) {
	l, err := c.label()
	if err != nil {
		return "", err
	}
	return strconv.Itoa(l.Index), nil
}

// Life cycle.

func create(class qube.Class, inPool bool) func(context.Context, *call) (string, error) {
	return func(ctx context.Context, c *call) (string, error) {
		n := core.NewQube{Class: string(class), Template: c.req.Arg, Creator: c.source.Name(), Pools: map[string]string{}}
		if c.req.Arg != "" {
			if class != qube.AppVM {
				return "", core.Failf(core.ProtocolViolation, "a %s has no template", class)
			}
			if t, err := c.lookup(c.req.Arg); err != nil {
				return "", err
			} else {
				n.Template = string(t.Name())
			}
		}
		seen := map[string]bool{}
		everywhere := ""
		for _, word := range strings.Split(string(c.req.Payload), " ") {
			key, value, ok := strings.Cut(word, "=")
			if !ok || seen[key] {
				return "", core.Failf(core.ProtocolViolation, "bad parameter %q", printable(word))
			}
			seen[key] = true
			volume, isVolume := strings.CutPrefix(key, "pool:")
			switch {
			case key == "name":
				n.Name = value
			case key == "label":
				n.Label = value
			case inPool && key == "pool":
				everywhere = value
			case inPool && isVolume:
				n.Pools[volume] = value
			default:
				return "", core.Failf(core.ProtocolViolation, "unknown parameter %q", printable(key))
			}
		}
		switch {
		case !seen["name"] || !seen["label"]:
			return "", core.Failf(core.ProtocolViolation, "name and label are needed")
		case everywhere != "" && len(n.Pools) > 0:
			return "", core.Failf(core.ProtocolViolation, "pool and pool:VOLUME exclude each other")
		case everywhere != "":
			n.Pools["private"], n.Pools["volatile"] = everywhere, everywhere
			if class == qube.TemplateVM {
				n.Pools["root"] = everywhere
			}
		}
		job, err := c.core.Create(n)
		return c.finish(ctx, job, err)
	}
}

func remove(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Remove(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func start(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Start(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func shutdown(ctx context.Context, c *call) (string, error) {
	force, wait := false, false
	switch c.req.Arg {
	case "":
	case "force":
		force = true
	case "wait":
		wait = true
	case "force+wait":
		force, wait = true, true
	default:
		return "", core.Failf(core.ProtocolViolation, "unknown argument %q", printable(c.req.Arg))
	}
	job, err := c.core.Shutdown(ctx, c.dest.UUID(), force)
	if err != nil || !wait {
		return "", err
	}
	return c.finish(ctx, job, nil)
}

func kill(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Kill(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func pause(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Pause(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func unpause(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Unpause(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func currentState(ctx context.Context, c *call) (string, error) {
	mem, limit, cpu, err := c.core.Measure(ctx, c.dest.UUID())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("mem=%d mem_static_max=%d cputime=%d power_state=%s", mem>>10, limit>>10, cpu.Nanoseconds(), c.dest.State()), nil
}

func getNotes(_ context.Context, c *call) (string, error) { return c.core.Notes(c.dest.UUID()) }

// maxNotes is the size limit of notes in bytes.
const maxNotes = 256000

func setNotes(_ context.Context, c *call) (string, error) {
	if !utf8.Valid(c.req.Payload) || len(c.req.Payload) > maxNotes {
		return "", core.Failf(core.BadValue, "notes are UTF-8 of at most %d bytes", maxNotes)
	}
	text := strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '_'
	}, string(c.req.Payload))
	return "", c.core.SetNotes(c.dest.UUID(), text)
}

// Features and tags.

func listFeatures(_ context.Context, c *call) (string, error) {
	return lines(slices.Sorted(maps.Keys(c.dest.Features()))), nil
}

// feature looks a feature up along a chain of qubes.
func feature(chain func(*call) []core.Qube) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		for _, q := range chain(c) {
			if v, ok := q.Feature(c.req.Arg); ok {
				return v, nil
			}
		}
		return "", core.Failf(core.FeatureNotFound, "%s has no feature %q", c.dest.Name(), printable(c.req.Arg))
	}
}

func ownOnly(c *call) []core.Qube { return []core.Qube{c.dest} }

func withTemplate(c *call) []core.Qube { return c.chain("template") }

func withNetVM(c *call) []core.Qube { return c.chain("netvm") }

func withAdmin(c *call) []core.Qube {
	admin, _ := c.view.Lookup(qube.Dom0UUID)
	return []core.Qube{c.dest, admin}
}

// chain follows a property from qube to qube, each at most once.
func (c *call) chain(property string) []core.Qube {
	list := []core.Qube{c.dest}
	seen := map[qube.UUID]bool{}
	for q := c.dest; !seen[q.UUID()]; {
		seen[q.UUID()] = true
		next, ok := c.view.Named(qube.Name(q.Property(property)))
		if !ok {
			break
		}
		if q = next; !seen[q.UUID()] {
			list = append(list, q)
		}
	}
	return list
}

func setFeature(_ context.Context, c *call) (string, error) {
	return "", c.core.SetFeature(c.dest.UUID(), c.req.Arg, string(c.req.Payload))
}

func removeFeature(_ context.Context, c *call) (string, error) {
	return "", c.core.RemoveFeature(c.dest.UUID(), c.req.Arg)
}

func listTags(_ context.Context, c *call) (string, error) { return lines(c.dest.Tags()), nil }

func getTag(_ context.Context, c *call) (string, error) {
	if slices.Contains(c.dest.Tags(), c.req.Arg) {
		return "1", nil
	}
	return "0", nil
}

func setTag(_ context.Context, c *call) (string, error) {
	if err := c.guardTag(); err != nil {
		return "", err
	}
	return "", c.core.SetTag(c.dest.UUID(), c.req.Arg)
}

func removeTag(_ context.Context, c *call) (string, error) {
	if err := c.guardTag(); err != nil {
		return "", err
	}
	return "", c.core.RemoveTag(c.dest.UUID(), c.req.Arg)
}

// guardTag keeps the tags that say who made a qube to dom0.
func (c *call) guardTag() error {
	if strings.HasPrefix(c.req.Arg, "created-by-") && !c.source.IsAdmin() {
		return core.Failf(core.PermissionDenied, "only dom0 may change the tag %s", printable(c.req.Arg))
	}
	return nil
}

// internal.*

// domainInfo is what the policy engine knows of a qube (spec/admin-api.md §2.7).
type domainInfo struct {
	Internal           bool     `json:"internal"`
	Tags               []string `json:"tags"`
	Type               string   `json:"type"`
	TemplateForDispVMs bool     `json:"template_for_dispvms"`
	DefaultDispVM      *string  `json:"default_dispvm"`
	Icon               string   `json:"icon"`
	Label              string   `json:"label"`
	GuiVM              *string  `json:"guivm"`
	RelayVM            *string  `json:"relayvm"`
	TransportRPC       *string  `json:"transport_rpc"`
	PowerState         string   `json:"power_state"`
	UUID               string   `json:"uuid"`
}

func systemInfo(_ context.Context, c *call) (string, error) {
	admin, _ := c.view.Lookup(qube.Dom0UUID)
	domains := map[string]domainInfo{}
	for _, q := range append([]core.Qube{admin}, c.view.Qubes()...) {
		hidden, _ := q.Feature("internal")
		d := domainInfo{
			Internal: hidden != "", Tags: append([]string{}, q.Tags()...), Type: string(q.Class()),
			Icon: q.Property("icon"), Label: q.Label().Hex(), PowerState: string(q.State()), UUID: string(q.UUID()),
		}
		if !q.IsAdmin() {
			dom0 := string(qube.Dom0)
			d.GuiVM = &dom0
		}
		domains[string(q.Name())] = d
	}
	raw, err := json.Marshal(map[string]any{"domains": domains})
	return string(raw), err
}
