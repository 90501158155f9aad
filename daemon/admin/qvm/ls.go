package qvm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/qube"
)

// formats are the columns of qvm-ls --format.
func formats() map[string][]string {
	return map[string][]string{
		"simple":  {"name", "state", "class", "label", "template", "netvm"},
		"full":    {"name", "state", "class", "label", "qid", "xid", "uuid"},
		"network": {"name", "state", "netvm", "ip", "ipback", "gateway"},
		"kernel":  {"name", "state", "class", "template", "kernel", "kernelopts"},
		"prefs":   {"name", "label", "template", "netvm", "vcpus", "initialmem", "maxmem", "virt_mode"},
		"disk":    {"name", "state", "disk", "priv-curr", "priv-max", "priv-used", "root-curr", "root-max", "root-used"},
		"perf":    {"name", "state", "cpu", "memory"},
		"engine":  {"name", "state", "class", "label", "engine", "memory"},
	}
}

type ls struct {
	verbosity
	Format   string `short:"o" placeholder:"FORMAT" default:"simple" help:"Columns by the name of a set (see --help-formats; default: ${default})." complete:"format" group:"Format:"`
	Fields   string `short:"O" placeholder:"FIELD,…" help:"Columns by name (see --help-columns), or any property." complete:"field" group:"Format:"`
	Tree     bool   `short:"t" help:"Show who is connected to whom: a qube below its netvm." group:"Format:"`
	RawData  bool   `name:"raw-data" help:"Values between | signs, without a header." xor:"raw" group:"Format:"`
	RawList  bool   `name:"raw-list" help:"Names only." xor:"raw" group:"Format:"`
	HelpFmt  bool   `name:"help-formats" help:"Say which sets of columns there are." group:"Format:"`
	HelpCols bool   `name:"help-columns" help:"Say which columns there are." group:"Format:"`
	Spinner  bool   `hidden:"" negatable:""`

	All         bool     `help:"All qubes; so it is anyway." group:"Filters:"`
	Exclude     []string `placeholder:"VMNAME" help:"With --all: not this one. May be given several times." sep:"none" complete:"qube" group:"Filters:"`
	Running     bool     `help:"Only running qubes." group:"Filters:"`
	Paused      bool     `help:"Only paused qubes." group:"Filters:"`
	Halted      bool     `help:"Only halted qubes." group:"Filters:"`
	Class       []string `placeholder:"CLASS" help:"Only qubes of these classes." sep:"none" greedy:"" complete:"class" group:"Filters:"`
	Label       []string `placeholder:"LABEL" help:"Only qubes with these labels." sep:"none" greedy:"" complete:"label" group:"Filters:"`
	Tags        []string `placeholder:"TAG" help:"Only qubes with one of these tags." sep:"none" greedy:"" complete:"tag" group:"Filters:"`
	ExcludeTags []string `name:"exclude-tags" placeholder:"TAG" help:"Only qubes with none of these tags." sep:"none" greedy:"" complete:"tag" group:"Filters:"`
	Template    []string `name:"template-source" placeholder:"TEMPLATE" help:"Only qubes based on these templates." sep:"none" greedy:"" complete:"template" group:"Filters:"`
	NetVM       []string `name:"netvm-is" placeholder:"NETVM" help:"Only qubes connected to these." sep:"none" greedy:"" complete:"qube" group:"Filters:"`
	Internal    string   `placeholder:"y|n" enum:",y,n" default:"" help:"Only internal qubes, or only others." group:"Filters:"`
	ServiceVM   string   `name:"servicevm" placeholder:"y|n" enum:",y,n" default:"" help:"Only service qubes, or only others." group:"Filters:"`
	Pending     bool     `name:"pending-update" help:"Only qubes that updates are available for." group:"Filters:"`
	Features    []string `placeholder:"FEATURE=VALUE" help:"Only qubes with these features; FEATURE= for unset, with two quotes behind it for empty." sep:"none" greedy:"" group:"Filters:"`
	Prefs       []string `placeholder:"PROPERTY=VALUE" help:"Only qubes with these properties; PROPERTY= for none, with two quotes behind it for empty." sep:"none" greedy:"" group:"Filters:"`

	Sort       string   `placeholder:"COLUMN" default:"name" help:"Sort by this column (default: ${default})." complete:"field" group:"Order:"`
	Reverse    bool     `help:"Sort the other way round." group:"Order:"`
	IgnoreCase bool     `name:"ignore-case" help:"Capital letters count as small ones." group:"Order:"`
	VMNames    []string `arg:"" optional:"" name:"VMNAME" help:"Only these." complete:"qube"`
}

func (l *ls) run(ctx context.Context, e *env) error {
	switch {
	case l.HelpFmt:
		return l.helpFormats(e)
	case l.HelpCols:
		return l.helpColumns(e)
	case l.All && len(l.VMNames) > 0:
		return usage("--all and VMNAME exclude each other")
	case !l.All && len(l.Exclude) > 0:
		return usage("--exclude can only be used with --all")
	}
	heads, ok := formats()[l.Format]
	if !ok {
		return usage("no such format: %s", l.Format)
	}
	if l.Fields != "" {
		heads = strings.Split(l.Fields, ",")
	}
	if l.RawList {
		heads = []string{"name"}
	}
	for i, h := range heads {
		heads[i] = strings.ToUpper(strings.ReplaceAll(h, "_", "-"))
	}
	columns := make([]lsColumn, len(heads))
	for i, h := range heads {
		columns[i] = columnOf(h)
	}
	sheet, err := e.sheet(ctx, l.needs(columns))
	if err != nil {
		return err
	}
	for _, c := range columns {
		if c.property != "" && !sheet.has[client.PropertyColumn(c.property)] && !isProperty(c.property) {
			return usage("no such column: %s", c.head)
		}
	}
	chosen, err := l.choose(sheet)
	if err != nil {
		return err
	}
	if err := sheet.addVolumes(ctx, e, columns, chosen); err != nil {
		return err
	}
	cells := make([][]string, len(chosen))
	for i, q := range chosen {
		for _, c := range columns {
			text := oneLine(c.cell(q))
			if text == "" {
				text = "-"
			}
			cells[i] = append(cells[i], text)
		}
	}
	if err := l.sort(heads, chosen, cells); err != nil {
		return err
	}
	return l.show(ctx, e, heads, chosen, cells)
}

// isProperty tells a property that no qube has, or that nobody may tell us in a
// qube, from a word that is none.
func isProperty(name string) bool {
	return slices.ContainsFunc(qube.Classes(), func(c qube.Class) bool {
		_, ok := qube.Lookup(c, name)
		return ok
	})
}

// needs are the columns to ask for: those to show and those to filter by.
func (l *ls) needs(columns []lsColumn) []string {
	var needs []string
	add := func(list ...string) {
		for _, n := range list {
			if !slices.Contains(needs, n) {
				needs = append(needs, n)
			}
		}
	}
	for _, c := range columns {
		add(c.needs...)
	}
	property, feature := client.PropertyColumn, client.FeatureColumn
	if len(l.Label) > 0 {
		add(property("label"))
	}
	if len(l.Tags)+len(l.ExcludeTags) > 0 {
		add(client.TagsColumn)
	}
	if len(l.Template) > 0 {
		add(property("template"))
	}
	if len(l.NetVM) > 0 || l.Tree {
		add(property("netvm"))
	}
	if l.Internal != "" {
		add(feature("internal"))
	}
	if l.ServiceVM != "" {
		add(feature("servicevm"))
	}
	if l.Pending {
		add(feature("updates-available"))
	}
	for _, f := range l.Features {
		name, _, _ := strings.Cut(f, "=")
		add(feature(name))
	}
	for _, p := range l.Prefs {
		name, _, _ := strings.Cut(p, "=")
		add(property(name))
	}
	return needs
}

// choose returns the qubes that the filters leave.
func (l *ls) choose(s *sheet) ([]lsQube, error) {
	for _, n := range l.VMNames {
		if !slices.ContainsFunc(s.qubes, func(q lsQube) bool { return q.Name == n }) {
			return nil, usage("no such domain: %q", n)
		}
	}
	for _, wish := range slices.Concat(l.Features, l.Prefs) {
		if !strings.Contains(wish, "=") {
			return nil, usage("%q is not NAME=VALUE", wish)
		}
	}
	var chosen []lsQube
	for _, q := range s.qubes {
		if l.fits(q) {
			chosen = append(chosen, q)
		}
	}
	return chosen, nil
}

func (l *ls) fits(q lsQube) bool {
	among := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	tagged := func(list []string) bool {
		return slices.ContainsFunc(strings.Fields(q.value(client.TagsColumn)), func(t string) bool { return slices.Contains(list, t) })
	}
	byState := !l.Running && !l.Paused && !l.Halted ||
		l.Running && (q.State == "Running" || q.State == "Transient") || l.Paused && q.State == "Paused" || l.Halted && q.State == "Halted"
	yes := func(wish, feature string) bool {
		return wish == "" || (wish == "y") == (q.value(client.FeatureColumn(feature)) != "")
	}
	return among(l.VMNames, q.Name) && !slices.Contains(l.Exclude, q.Name) && byState &&
		among(l.Class, q.Class) && (len(l.Label) == 0 || slices.Contains(l.Label, q.property("label"))) &&
		(len(l.Tags) == 0 || tagged(l.Tags)) && !(len(l.ExcludeTags) > 0 && tagged(l.ExcludeTags)) &&
		(len(l.Template) == 0 || slices.Contains(l.Template, q.property("template"))) &&
		(len(l.NetVM) == 0 || slices.Contains(l.NetVM, q.property("netvm"))) &&
		yes(l.Internal, "internal") && yes(l.ServiceVM, "servicevm") &&
		(!l.Pending || q.value(client.FeatureColumn("updates-available")) != "") &&
		q.matches(l.Features, client.FeatureColumn) && q.matches(l.Prefs, client.PropertyColumn)
}

// matches reports whether all wishes NAME=VALUE are so.
func (q lsQube) matches(wishes []string, column func(string) string) bool {
	for _, wish := range wishes {
		name, want, _ := strings.Cut(wish, "=")
		v := q.values[column(name)]
		switch want {
		case "":
			if v.Known && v.Text != "" || v.Known && column(name) == client.FeatureColumn(name) {
				return false
			}
		case "''", `""`:
			if !v.Known || v.Text != "" {
				return false
			}
		default:
			if !v.Known || v.Text != want {
				return false
			}
		}
	}
	return true
}

// sort sorts by a column; dom0 comes first where it is the name.
func (l *ls) sort(heads []string, qubes []lsQube, cells [][]string) error {
	at := slices.Index(heads, strings.ToUpper(strings.ReplaceAll(l.Sort, "_", "-")))
	if at < 0 && !strings.EqualFold(l.Sort, "name") {
		return usage("--sort: %s is not among the columns", strings.ToUpper(l.Sort))
	}
	order := make([]int, len(qubes))
	for i := range order {
		order[i] = i
	}
	key := func(i int) string {
		text := qubes[i].Name
		if at >= 0 && heads[at] != "NAME" {
			text = cells[i][at]
		}
		if l.IgnoreCase {
			text = strings.ToLower(text)
		}
		return text
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if at < 0 || heads[at] == "NAME" {
			if qubes[a].IsAdmin() != qubes[b].IsAdmin() {
				if qubes[a].IsAdmin() {
					return -1
				}
				return 1
			}
		}
		return compareNumbers(key(a), key(b))
	})
	if l.Reverse {
		slices.Reverse(order)
	}
	if l.Tree {
		order = tree(qubes, order, cells, slices.Index(heads, "NAME"))
	}
	oldQubes, oldCells := slices.Clone(qubes), slices.Clone(cells)
	for i, from := range order {
		qubes[i], cells[i] = oldQubes[from], oldCells[from]
	}
	return nil
}

// compareNumbers compares numbers as such and other texts as texts.
func compareNumbers(a, b string) int {
	digits := func(s string) bool {
		return s != "" && len(s) < 19 && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsDigit(r) }) < 0
	}
	if digits(a) && digits(b) {
		return cmp.Or(cmp.Compare(len(strings.TrimLeft(a, "0")), len(strings.TrimLeft(b, "0"))), cmp.Compare(strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")))
	}
	return cmp.Compare(a, b)
}

// tree orders qubes below their netvm and indents their names. One whose
// netvm is not shown stands at the top.
func tree(qubes []lsQube, order []int, cells [][]string, name int) []int {
	below := map[string][]int{}
	shown := map[string]bool{}
	for _, q := range qubes {
		shown[q.Name] = true
	}
	for _, i := range order {
		parent := qubes[i].property("netvm")
		if !shown[parent] || parent == qubes[i].Name {
			parent = ""
		}
		below[parent] = append(below[parent], i)
	}
	var sorted []int
	seen := map[int]bool{}
	var add func(parent string, depth int)
	add = func(parent string, depth int) {
		for _, i := range below[parent] {
			if seen[i] {
				continue
			}
			seen[i] = true
			sorted = append(sorted, i)
			if depth > 0 && name >= 0 {
				cells[i][name] = strings.Repeat("  ", depth-1) + "└─" + cells[i][name]
			}
			add(qubes[i].Name, depth+1)
		}
	}
	add("", 0)
	for _, i := range order { // netvms that go round in a circle
		if !seen[i] {
			sorted = append(sorted, i)
		}
	}
	return sorted
}

func (l *ls) show(ctx context.Context, e *env, heads []string, qubes []lsQube, cells [][]string) error {
	if l.RawData || l.RawList {
		var b strings.Builder
		for _, row := range cells {
			b.WriteString(strings.Join(row, "|") + "\n")
		}
		_, err := fmt.Fprint(e.Out, b.String())
		return err
	}
	t := table{head: heads, rows: cells, paint: func(row, column int) string {
		switch heads[column] {
		case "STATE":
			return stateStyle(qubes[row].State)
		case "LABEL":
			return labelStyle(qubes[row].property("label"))
		}
		return ""
	}}
	if err := t.write(e.Out); err != nil {
		return err
	}
	for _, q := range qubes {
		if q.State != "NA" {
			continue
		}
		// Another qubesd has no such property, and nothing to say.
		if why, err := e.Property(ctx, q.Name, "trouble"); err == nil && why.Value != "" {
			e.say("%s cannot be used: %s", q.Name, why.Value)
		}
	}
	return nil
}

func (l *ls) helpFormats(e *env) error {
	fmt.Fprintln(e.Out, "Available formats:")
	all := formats()
	for _, n := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(e.Out, "  %-7s  %s\n", n, strings.ToUpper(strings.ReplaceAll(strings.Join(all[n], ","), "_", "-")))
	}
	return nil
}

func (l *ls) helpColumns(e *env) error {
	fmt.Fprintln(e.Out, "Available columns:")
	all := computedColumns()
	for _, head := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(e.Out, "  %-10s  %s\n", head, all[head].help)
	}
	fmt.Fprintln(e.Out, "\nEvery property of qubes is a column, too: see qvm-prefs --help-properties.")
	return nil
}
