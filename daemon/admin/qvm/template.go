package qvm

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/admin/client"
)

type template struct {
	verbosity
	List templateList `cmd:"" default:"withargs" help:"List the installed templates."`
	Info templateInfo `cmd:"" help:"Describe installed templates."`
}

// machine are the forms for programs.
type machine struct {
	Installed bool     `help:"Installed templates; only those are known here."`
	All       bool     `help:"All that are known."`
	Lines     bool     `name:"machine-readable" help:"A line for each template, with | between the fields." xor:"form"`
	JSON      bool     `name:"machine-readable-json" help:"As JSON." xor:"form"`
	Specs     []string `arg:"" optional:"" name:"TEMPLATE" help:"Names or patterns (* ? [])." complete:"template"`
}

type templateList struct{ machine }

type templateInfo struct{ machine }

func (t *template) run(ctx context.Context, e *env) error { return e.command.(tool).run(ctx, e) }

// templateFields are what a template's features template-… say, in the order
// of the form for programs; the first three make its version.
func templateFields() []string {
	return []string{"epoch", "version", "release", "reponame", "size", "buildtime", "installtime", "license", "url", "summary", "description"}
}

// installed is a template of this system.
type installed struct {
	name   string
	fields map[string]string
}

// version is EPOCH:VERSION-RELEASE, or "-" for a template that no package
// brought.
func (t installed) version() string {
	if t.fields["version"] == "" {
		return "-"
	}
	return t.fields["epoch"] + ":" + t.fields["version"] + "-" + t.fields["release"]
}

func (t installed) origin() string {
	if t.fields["reponame"] == "" {
		return "@local"
	}
	return t.fields["reponame"]
}

// templates are the installed templates that the patterns name, by name.
func (m machine) templates(ctx context.Context, e *env) ([]installed, error) {
	for _, s := range m.Specs {
		if _, err := path.Match(s, ""); err != nil {
			return nil, usage("%q is not a pattern", s)
		}
	}
	var columns []string
	for _, f := range templateFields() {
		columns = append(columns, client.FeatureColumn("template-"+f))
	}
	rows, err := e.Table(ctx, columns...)
	if err != nil {
		return nil, err
	}
	var list []installed
	for _, r := range rows {
		if r.Class != "TemplateVM" {
			continue
		}
		t := installed{r.Name, map[string]string{}}
		for i, f := range templateFields() {
			t.fields[f] = r.Values[i].Text
		}
		fits := func(spec string) bool {
			for _, form := range []string{t.name, t.name + "-" + t.fields["version"], t.name + "-" + t.fields["version"] + "-" + t.fields["release"], t.name + "-" + t.version()} {
				if ok, _ := path.Match(spec, form); ok {
					return true
				}
			}
			return false
		}
		if len(m.Specs) == 0 || slices.ContainsFunc(m.Specs, fits) {
			list = append(list, t)
		}
	}
	if len(list) == 0 && len(m.Specs) > 0 {
		return nil, fmt.Errorf("no matching templates")
	}
	return list, nil
}

func (l *templateList) run(ctx context.Context, e *env) error {
	list, err := l.templates(ctx, e)
	if err != nil {
		return err
	}
	switch {
	case l.JSON:
		var all []map[string]any
		for _, t := range list {
			all = append(all, map[string]any{"name": t.name, "evr": t.version(), "reponame": t.origin()})
		}
		return writeJSON(e, all)
	case l.Lines:
		for _, t := range list {
			fmt.Fprintln(e.Out, oneLine(strings.Join([]string{"installed", t.name, t.version(), t.origin()}, "|")))
		}
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(e.Out, "Installed Templates")
	var t table
	for _, i := range list {
		t.rows = append(t.rows, []string{i.name, oneLine(i.version()), oneLine(i.origin())})
	}
	return t.write(e.Out)
}

func (i *templateInfo) run(ctx context.Context, e *env) error {
	list, err := i.templates(ctx, e)
	if err != nil {
		return err
	}
	switch {
	case i.JSON:
		var all []map[string]any
		for _, t := range list {
			entry := map[string]any{"name": t.name}
			for _, f := range templateFields() {
				entry[f] = t.fields[f]
			}
			size, _ := strconv.ParseInt(t.fields["size"], 10, 64)
			entry["size"], entry["reponame"] = size, t.origin()
			entry["description"] = strings.ReplaceAll(t.fields["description"], "|", "\n")
			all = append(all, entry)
		}
		return writeJSON(e, all)
	case i.Lines:
		for _, t := range list {
			cells := []string{"installed", t.name}
			for _, f := range templateFields() {
				if f == "reponame" {
					cells = append(cells, t.origin())
				} else {
					cells = append(cells, t.fields[f])
				}
			}
			fmt.Fprintln(e.Out, oneLine(strings.Join(cells, "|")))
		}
		return nil
	}
	for n, t := range list {
		if n > 0 {
			fmt.Fprintln(e.Out)
		}
		rows := [][2]string{{"Name", t.name}}
		for _, f := range templateFields() {
			value := t.fields[f]
			switch {
			case f == "reponame":
				value = t.origin()
			case f == "size" && value != "":
				if bytes, err := strconv.ParseInt(value, 10, 64); err == nil {
					value = sizeText(bytes)
				}
			}
			if value != "" {
				rows = append(rows, [2]string{strings.ToUpper(f[:1]) + f[1:], oneLine(strings.ReplaceAll(value, "|", " "))})
			}
		}
		if err := pairs(rows).writeWhole(e.Out); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(e *env, list []map[string]any) error {
	encoder := json.NewEncoder(e.Out)
	encoder.SetEscapeHTML(false)
	all := map[string]any{}
	if len(list) > 0 {
		all["installed"] = list
	}
	return encoder.Encode(all)
}
