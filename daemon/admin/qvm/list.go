package qvm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"cubicle/daemon/admin/client"
)

// formats are the columns of qvm-ls --format.
var formats = map[string][]string{
	"simple":  {"name", "state", "class", "label", "template", "netvm"},
	"full":    {"name", "state", "class", "label", "qid", "xid", "uuid"},
	"network": {"name", "state", "netvm", "ip"},
	"prefs":   {"name", "label", "template", "netvm", "vcpus", "memory", "maxmem", "engine"},
}

type ls struct {
	verbosity
	Format  string   `short:"o" placeholder:"FORMAT" help:"Columns by the name of a set (see --help-formats)." xor:"columns"`
	Fields  string   `short:"O" placeholder:"FIELD,…" help:"Columns by name: name, state, class, or any property." xor:"columns"`
	RawData bool     `name:"raw-data" help:"Values between | signs, without a header." xor:"raw"`
	RawList bool     `name:"raw-list" help:"Names only." xor:"raw"`
	Tags    []string `placeholder:"TAG" help:"Only qubes with one of these tags."`
	Running bool     `help:"Only running qubes."`
	Paused  bool     `help:"Only paused qubes."`
	Halted  bool     `help:"Only halted qubes."`
	All     bool     `help:"All qubes; so it is anyway."`
	Exclude []string `placeholder:"VMNAME" help:"Not this one. May be given several times." sep:"none"`
	Spinner bool     `hidden:"" negatable:""`
	VMNames []string `arg:"" optional:"" name:"VMNAME" help:"Only these."`
	HelpFmt bool     `name:"help-formats" help:"Say which sets of columns there are."`
}

func (l *ls) run(ctx context.Context, e *env) error {
	if l.HelpFmt {
		for _, n := range slices.Sorted(maps.Keys(formats)) {
			fmt.Fprintf(e.Out, "%s: %s\n", n, strings.Join(formats[n], ","))
		}
		return nil
	}
	columns, ok := formats["simple"], true
	if l.Format != "" {
		if columns, ok = formats[l.Format]; !ok {
			return usage("no such format: %s", l.Format)
		}
	}
	if l.Fields != "" {
		columns = strings.Split(strings.ToLower(l.Fields), ",")
	}
	list, err := l.choose(ctx, e)
	if err != nil {
		return err
	}
	if l.RawList {
		for _, q := range list {
			fmt.Fprintln(e.Out, q.Name)
		}
		return nil
	}
	return l.show(ctx, e, list, columns)
}

func (l *ls) choose(ctx context.Context, e *env) ([]client.Qube, error) {
	list, err := e.List(ctx)
	if err == nil && len(l.VMNames) > 0 {
		list, err = named(list, l.VMNames)
	}
	if err != nil {
		return nil, err
	}
	var chosen []client.Qube
	for _, q := range list {
		byState := !l.Running && !l.Paused && !l.Halted ||
			l.Running && (q.State == "Running" || q.State == "Transient") || l.Paused && q.State == "Paused" || l.Halted && q.State == "Halted"
		if !byState || slices.Contains(l.Exclude, q.Name) {
			continue
		}
		if len(l.Tags) > 0 {
			text, err := e.Call(ctx, q.Name, "admin.vm.tag.List", "", nil)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(strings.Fields(text), func(t string) bool { return slices.Contains(l.Tags, t) }) {
				continue
			}
		}
		chosen = append(chosen, q)
	}
	return chosen, nil
}

func (l *ls) show(ctx context.Context, e *env, list []client.Qube, columns []string) error {
	known := map[string]bool{}
	for _, set := range formats { // dom0 alone has few properties
		for _, c := range set {
			known[c] = true
		}
	}
	rows := [][]string{}
	for _, q := range list {
		props, err := e.Properties(ctx, q.Name)
		if err != nil {
			return err
		}
		var row []string
		for _, c := range columns {
			p, ok := props[c]
			known[c] = known[c] || ok
			value := p.Value
			switch c {
			case "name":
				value = q.Name
			case "state":
				value = q.State
			case "class":
				value = q.Class
			}
			if value == "" {
				value = "-"
			}
			row = append(row, value)
		}
		rows = append(rows, row)
	}
	for _, c := range columns {
		if !known[c] && len(rows) > 0 {
			return usage("no such column: %s", strings.ToUpper(c))
		}
	}
	if l.RawData {
		for _, row := range rows {
			fmt.Fprintln(e.Out, strings.Join(row, "|"))
		}
		return nil
	}
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = strings.ToUpper(c)
	}
	writeTable(e, append([][]string{head}, rows...))
	for _, q := range list {
		if q.State != "NA" {
			continue
		}
		props, err := e.Properties(ctx, q.Name)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.Err, "%s cannot be used: %s\n", q.Name, props["trouble"].Value)
	}
	return nil
}

// writeTable pads all columns but the last, two spaces apart.
func writeTable(e *env, rows [][]string) {
	widths := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if i == len(row)-1 {
				b.WriteString(cell)
				continue
			}
			fmt.Fprintf(&b, "%-*s  ", widths[i], cell)
		}
		fmt.Fprintln(e.Out, b.String())
	}
}
