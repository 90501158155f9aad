package admin

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// Properties: the same methods for a qube and for the system.

// propertySubject is what has properties.
type propertySubject struct {
	source qube.Source
	rows   []qube.Property
	set    func(name, text string) error
	reset  func(name string) error
}

func qubeProperties(c *call) propertySubject {
	id := c.dest.UUID()
	return propertySubject{c.dest, qube.Rows(c.dest.Class()),
		func(n, t string) error { return c.core.SetProperty(id, n, t) },
		func(n string) error { return c.core.ResetProperty(id, n) }}
}

func systemProperties(c *call) propertySubject {
	return propertySubject{c.view.System(), qube.SystemRows(), c.core.SetSystemProperty, c.core.ResetSystemProperty}
}

func (p propertySubject) row(c *call) (qube.Property, error) {
	for _, r := range p.rows {
		if r.Name == c.req.Arg {
			return r, nil
		}
	}
	return qube.Property{}, core.Failf(core.NoProperty, "%s has no property %q", c.dest.Name(), printable(c.req.Arg))
}

func addProperties(m map[string]method, prefix string, dest target, subject func(*call) propertySubject) {
	withRow := func(do func(*call, propertySubject, qube.Property) (string, error)) func(context.Context, *call) (string, error) {
		return func(_ context.Context, c *call) (string, error) {
			s := subject(c)
			row, err := s.row(c)
			if err != nil {
				return "", err
			}
			return do(c, s, row)
		}
	}
	m[prefix+"List"] = method{dest, absent, absent, func(_ context.Context, c *call) (string, error) {
		var names []string
		for _, r := range subject(c).rows {
			names = append(names, r.Name)
		}
		return lines(names), nil
	}}
	m[prefix+"GetAll"] = method{dest, absent, absent, func(_ context.Context, c *call) (string, error) {
		s := subject(c)
		var all []string
		for _, r := range s.rows {
			all = append(all, r.Name+" "+escape(describe(r, s.source)))
		}
		sort.Strings(all)
		return lines(all), nil
	}}
	m[prefix+"Get"] = method{dest, needed, absent, withRow(func(_ *call, s propertySubject, r qube.Property) (string, error) {
		return describe(r, s.source), nil
	})}
	m[prefix+"GetDefault"] = method{dest, needed, absent, withRow(func(_ *call, s propertySubject, r qube.Property) (string, error) {
		if r.Default == nil {
			return "", nil
		}
		v, ok := r.Default(s.source)
		if !ok {
			return "", nil
		}
		return fmt.Sprintf("type=%s %s", r.Type, v), nil
	})}
	m[prefix+"Help"] = method{dest, needed, absent, withRow(func(_ *call, _ propertySubject, r qube.Property) (string, error) {
		return r.Help, nil
	})}
	m[prefix+"Set"] = method{dest, needed, maybe, withRow(func(c *call, s propertySubject, r qube.Property) (string, error) {
		return "", s.set(r.Name, string(c.req.Payload))
	})}
	m[prefix+"Reset"] = method{dest, needed, absent, withRow(func(_ *call, s propertySubject, r qube.Property) (string, error) {
		return "", s.reset(r.Name)
	})}
}

func describe(r qube.Property, s qube.Source) string {
	v, isDefault := r.Value(s)
	return fmt.Sprintf("default=%s type=%s %s", boolean(isDefault), r.Type, v)
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(s)
}

func boolean(b bool) string {
	if b {
		return "True"
	}
	return "False"
}
