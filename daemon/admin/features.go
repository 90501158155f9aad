package admin

import (
	"context"
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// featureMethods are the features and tags of spec/admin-api.md §2.4.
func featureMethods() map[string]method {
	return map[string]method{
		"admin.vm.feature.List":                        {onAny, absent, absent, listFeatures},
		"admin.vm.feature.Get":                         {onAny, needed, absent, feature(ownOnly)},
		"admin.vm.feature.CheckWithTemplate":           {onAny, needed, absent, feature(withTemplate)},
		"admin.vm.feature.CheckWithNetvm":              {onAny, needed, absent, feature(withNetVM)},
		"admin.vm.feature.CheckWithAdminVM":            {onAny, needed, absent, feature(withAdmin)},
		"admin.vm.feature.CheckWithTemplateAndAdminVM": {onAny, needed, absent, feature(withTemplateAndAdmin)},
		"admin.vm.feature.Set":                         {onAny, needed, maybe, setFeature},
		"admin.vm.feature.Remove":                      {onAny, needed, absent, removeFeature},
		"admin.vm.tag.List":                            {onAny, absent, absent, listTags},
		"admin.vm.tag.Get":                             {onAny, needed, absent, getTag},
		"admin.vm.tag.Set":                             {onAny, needed, absent, setTag},
		"admin.vm.tag.Remove":                          {onAny, needed, absent, removeTag},
	}
}

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

func withTemplateAndAdmin(c *call) []core.Qube {
	return append(withTemplate(c), withAdmin(c)[1:]...)
}

// chain follows a property from qube to qube, each at most once.
func (c *call) chain(property string) []core.Qube {
	list := []core.Qube{c.dest}
	seen := map[qube.UUID]bool{}
	for q := c.dest; !seen[q.UUID()]; {
		seen[q.UUID()] = true
		next, ok := q.Referent(property)
		if !ok {
			break
		}
		if q = next; !seen[q.UUID()] {
			list = append(list, q)
		}
	}
	return list
}

// guardFeature keeps the features that only the daemon may change.
func (c *call) guardFeature() error {
	switch c.req.Arg {
	case "deferred-netvm-original", "preload-dispvm", "preload-dispvm-completed", "preload-dispvm-in-progress":
		return core.Failf(core.PermissionDenied, "nobody may change the feature %s", c.req.Arg)
	}
	return nil
}

func setFeature(_ context.Context, c *call) (string, error) {
	if err := c.guardFeature(); err != nil {
		return "", err
	}
	return "", c.core.SetFeature(c.dest.UUID(), c.req.Arg, string(c.req.Payload))
}

func removeFeature(_ context.Context, c *call) (string, error) {
	if err := c.guardFeature(); err != nil {
		return "", err
	}
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
