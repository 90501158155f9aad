package qvm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cubicle/daemon/qube"
)

// propertyOptions are those of qvm-prefs and qubes-prefs.
type propertyOptions struct {
	verbosity
	HelpProperties bool `name:"help-properties" help:"Say what the properties mean."`
	HideDefault    bool `name:"hide-default" help:"Only what was set explicitly."`
	Get            bool `short:"g" hidden:""`
	Set            bool `short:"s" hidden:""`
	Default        bool `short:"D" aliases:"delete,unset" help:"Put the property back to its default." xor:"act"`
}

type prefs struct {
	propertyOptions
	VMName   string  `arg:"" optional:"" name:"VMNAME" help:"Name of the qube." complete:"qube"`
	Property string  `arg:"" optional:"" name:"PROPERTY" help:"The property; none: all." complete:"property"`
	Value    *string `arg:"" optional:"" name:"VALUE" help:"Its new value." complete:"value"`
}

func (p *prefs) run(ctx context.Context, e *env) error {
	if p.HelpProperties {
		return p.helpQube(ctx, e)
	}
	if p.VMName == "" {
		return usage("VMNAME is needed")
	}
	if _, err := e.one(ctx, p.VMName); err != nil {
		return err
	}
	return p.act(ctx, e, p.VMName, p.Property, p.Value)
}

type systemPrefs struct {
	propertyOptions
	Property string  `arg:"" optional:"" name:"PROPERTY" help:"The property; none: all." complete:"globalproperty"`
	Value    *string `arg:"" optional:"" name:"VALUE" help:"Its new value."`
}

func (p *systemPrefs) run(ctx context.Context, e *env) error {
	if p.HelpProperties {
		return helpRows(e, qube.SystemRows())
	}
	return p.act(ctx, e, "", p.Property, p.Value)
}

func (o *propertyOptions) act(ctx context.Context, e *env, dest, name string, value *string) error {
	switch {
	case name == "":
		return o.list(ctx, e, dest)
	case o.Default && value != nil:
		return usage("a VALUE cannot be given together with --default")
	case o.Default:
		return e.ResetProperty(ctx, dest, name)
	case value != nil:
		return e.setProperty(ctx, dest, name, *value)
	}
	p, err := e.Property(ctx, dest, name)
	if err != nil {
		return err
	}
	if p.Type != "vm" || p.Value != "" {
		fmt.Fprintln(e.Out, printable(p.Value))
	}
	return nil
}

// setProperty sets a property; "none" means no qube.
func (e *env) setProperty(ctx context.Context, dest, name, value string) error {
	if strings.EqualFold(value, "none") {
		p, err := e.Property(ctx, dest, name)
		if err != nil {
			return err
		}
		if p.Type == "vm" {
			value = ""
		}
	}
	return e.SetProperty(ctx, dest, name, value)
}

func (o *propertyOptions) list(ctx context.Context, e *env, dest string) error {
	props, err := e.Properties(ctx, dest)
	if err != nil {
		return err
	}
	width := 0
	for name := range props {
		width = max(width, len(name))
	}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		p := props[name]
		if o.HideDefault && p.Default {
			continue
		}
		mark, value := "-", oneLine(p.Value)
		if p.Default {
			mark = "D"
		}
		if p.Type == "vm" && value == "" {
			value = "None"
		}
		if _, err := fmt.Fprintf(e.Out, "%-*s  %s  %s\n", width, name, mark, value); err != nil {
			return err
		}
	}
	return nil
}

// helpQube tells of the properties of one qube's class, or of all classes.
func (p *prefs) helpQube(ctx context.Context, e *env) error {
	if p.VMName == "" {
		return helpRows(e, allRows())
	}
	q, err := e.one(ctx, p.VMName)
	if err != nil {
		return err
	}
	return helpRows(e, qube.Rows(qube.Class(q.Class)))
}

// classes are the classes of qubes.
func classes() []qube.Class {
	return []qube.Class{"AdminVM", "AppVM", "DispVM", "RemoteVM", "StandaloneVM", "TemplateVM"}
}

// allRows are the properties of all classes, by name.
func allRows() []qube.Property {
	seen := map[string]bool{}
	var rows []qube.Property
	for _, c := range classes() {
		for _, r := range qube.Rows(c) {
			if !seen[r.Name] {
				seen[r.Name] = true
				rows = append(rows, r)
			}
		}
	}
	slices.SortFunc(rows, func(a, b qube.Property) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// moment says when a property can be set; empty: always.
func moment(r qube.Property) string {
	switch r.Set {
	case qube.Never:
		return "read-only"
	case qube.AtCreation:
		return "set at creation"
	case qube.WhileHalted:
		return "set while halted"
	}
	return ""
}

// helpRows tells of the rows of the property table.
func helpRows(e *env, rows []qube.Property) error {
	t := table{head: []string{"PROPERTY", "TYPE", "MEANING"}}
	for _, r := range rows {
		text := r.Help
		if when := moment(r); when != "" {
			text += " (" + when + ")"
		}
		t.rows = append(t.rows, []string{r.Name, string(r.Type), text})
	}
	return t.writeWhole(e.Out)
}
