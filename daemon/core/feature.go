package core

import (
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/qube"
)

const (
	tagBytes     = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	featureBytes = tagBytes + "."
)

const (
	// servicePrefix begins the features that switch a service in the qube
	// (spec/admin-api.md §5.5).
	servicePrefix = "service."
	// maxService bounds the name of a service in bytes: it becomes part of a
	// QubesDB path.
	maxService = 48
	// balloonService follows maxmem; setting it sets that.
	balloonService = servicePrefix + "meminfo-writer"
)

// checkFeature tells what is wrong with a feature's name or value.
func checkFeature(name, value string) error {
	if name == "" || strings.Trim(name, featureBytes) != "" {
		return Failf(BadValue, "%q is not a feature's name", name)
	}
	if service, ok := strings.CutPrefix(name, servicePrefix); ok && (service == "" || service == "." || service == ".." || len(service) > maxService) {
		return Failf(BadValue, "%q is not a service's name: it has 1 to %d characters", service, maxService)
	}
	for i := 0; i < len(value); i++ {
		if value[i] < ' ' || value[i] > '~' {
			return Failf(BadValue, "the value of feature %s must be printable ASCII", name)
		}
	}
	return nil
}

// SetFeature sets a feature; the value is printable ASCII. The service
// meminfo-writer is not kept: it sets maxmem (spec/admin-api.md §5.5).
func (c *Core) SetFeature(id qube.UUID, name, value string) error {
	if err := checkFeature(name, value); err != nil {
		return err
	}
	return c.change(id, func(e *entry, t *tx) error {
		row, ok := qube.Lookup(e.rec.Class, "maxmem")
		if name != balloonService || !ok || row.Set == qube.Never {
			t.setFeature(e, name, value)
			return nil
		}
		switch now, _ := row.Value(Qube{t.v, e}); {
		case value == "" && now != "0":
			t.setProperty(id, row, "0")
		case value != "" && now == "0":
			t.resetProperty(id, row)
		}
		return nil
	})
}

// ChangeFeatures sets and unsets several features at once, but for those that
// are so already.
func (c *Core) ChangeFeatures(id qube.UUID, set map[string]string, unset []string) error {
	for name, value := range set {
		if err := checkFeature(name, value); err != nil {
			return err
		}
	}
	q, ok := c.View().Lookup(id)
	if !ok {
		return Failf(NotFound, "the qube %s does not exist", id)
	}
	differs := func(now map[string]string, name string) bool {
		old, is := now[name]
		return !is || old != set[name]
	}
	is := func(now map[string]string, name string) bool { _, ok := now[name]; return ok }
	now := q.e.rec.Features
	if !slices.ContainsFunc(slices.Collect(maps.Keys(set)), func(n string) bool { return differs(now, n) }) &&
		!slices.ContainsFunc(unset, func(n string) bool { return is(now, n) }) {
		return nil // nothing to write to the disk
	}
	return c.change(id, func(e *entry, t *tx) error {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if differs(e.rec.Features, name) {
				t.setFeature(e, name, set[name])
			}
		}
		for _, name := range unset {
			if is(e.rec.Features, name) {
				t.removeFeature(e, name)
			}
		}
		return nil
	})
}

// setFeature sets a feature of an amended entry.
func (t *tx) setFeature(e *entry, name, value string) {
	args := []Arg{{"feature", name}, {"value", value}}
	if old, ok := e.rec.Features[name]; ok {
		args = append(args, Arg{"oldvalue", old})
	}
	e.rec.Features[name] = value
	t.emit(e, "domain-feature-pre-set:"+name, args...)
	t.emit(e, "domain-feature-set:"+name, args...)
	t.touch(e.rec.UUID, qube.FeatureKey(name))
}

// removeFeature unsets a feature of an amended entry.
func (t *tx) removeFeature(e *entry, name string) {
	delete(e.rec.Features, name)
	t.emit(e, "domain-feature-pre-delete:"+name, Arg{"feature", name})
	t.emit(e, "domain-feature-delete:"+name, Arg{"feature", name})
	t.touch(e.rec.UUID, qube.FeatureKey(name))
}

// RemoveFeature unsets a feature.
func (c *Core) RemoveFeature(id qube.UUID, name string) error {
	return c.change(id, func(e *entry, t *tx) error {
		if _, ok := e.rec.Features[name]; !ok {
			return Failf(FeatureNotFound, "%s has no feature %q", e.rec.Name, name)
		}
		t.removeFeature(e, name)
		return nil
	})
}

// FeatureWithTemplate is a feature of the qube, else of its template, and so
// on (spec/admin-api.md §2.4).
func (q Qube) FeatureWithTemplate(name string) (string, bool) {
	return qube.FeatureWithTemplate(q, name)
}

// FeatureWithNetVM is a feature of the qube, else of its netvm, and so on.
func (q Qube) FeatureWithNetVM(name string) (string, bool) { return qube.FeatureWithNetVM(q, name) }

// FeatureWithAdmin is a feature of the qube, else of dom0.
func (q Qube) FeatureWithAdmin(name string) (string, bool) {
	if v, ok := q.Feature(name); ok {
		return v, true
	}
	return Qube{q.v, q.v.dom0}.Feature(name)
}

// FeatureWithTemplateAndAdmin is a feature of the qube, its templates, or
// dom0.
func (q Qube) FeatureWithTemplateAndAdmin(name string) (string, bool) {
	if v, ok := q.FeatureWithTemplate(name); ok {
		return v, true
	}
	return Qube{q.v, q.v.dom0}.Feature(name)
}

// SetTag adds a tag. Those that follow a property are set by that alone.
func (c *Core) SetTag(id qube.UUID, tag string) error {
	if tag == "" || strings.Trim(tag, tagBytes) != "" {
		return Failf(InvalidTag, "%q is not a tag", tag)
	}
	return c.change(id, func(e *entry, t *tx) error {
		if slices.Contains((Qube{t.v, e}).Tags(), tag) {
			return nil
		}
		if isMirror(tag) {
			return Failf(PermissionDenied, "the tag %s of %s follows a property: set that", tag, e.rec.Name)
		}
		t.addTag(e, tag)
		return nil
	})
}

// addTag adds a tag to an amended entry, unless it is there.
func (t *tx) addTag(e *entry, tag string) {
	if i, found := slices.BinarySearch(e.rec.Tags, tag); !found {
		e.rec.Tags = slices.Insert(e.rec.Tags, i, tag)
		t.emit(e, "domain-tag-add:"+tag, Arg{"tag", tag})
	}
}

// RemoveTag takes a tag away.
func (c *Core) RemoveTag(id qube.UUID, tag string) error {
	return c.change(id, func(e *entry, t *tx) error {
		i, found := slices.BinarySearch(e.rec.Tags, tag)
		switch {
		case slices.Contains((Qube{t.v, e}).Tags(), tag) && isMirror(tag):
			return Failf(PermissionDenied, "the tag %s of %s follows a property: change that", tag, e.rec.Name)
		case !found:
			return Failf(TagNotFound, "%s has no tag %q", e.rec.Name, tag)
		}
		e.rec.Tags = slices.Delete(e.rec.Tags, i, i+1)
		t.emit(e, "domain-tag-delete:"+tag, Arg{"tag", tag})
		return nil
	})
}

// change edits a qube's record and saves it.
func (c *Core) change(id qube.UUID, edit func(*entry, *tx) error) error {
	return c.update(func(t *tx) error {
		q, ok := t.v.Lookup(id)
		if !ok {
			return Failf(NotFound, "the qube %s does not exist", id)
		}
		if q.e.broken != "" {
			return Failf(VMError, "%s cannot be changed: %s", q.Name(), q.Trouble())
		}
		return edit(t.amend(id), t)
	})
}
