package qvm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
)

// manual is "qvm man DIR".
type manual struct {
	verbosity
	Dir string `arg:"" name:"DIR" help:"Folder for the pages, such as share/man/man1." complete:"file"`
}

func (m *manual) run(_ context.Context, e *env) error {
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return err
	}
	for _, r := range tools() {
		if r.hidden {
			continue
		}
		page, err := manPage(r)
		if err != nil {
			return fmt.Errorf("the page of %s: %w", r.name, err)
		}
		if err := os.WriteFile(filepath.Join(m.Dir, r.name+".1"), []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// roff is a page being written.
type roff struct{ strings.Builder }

// text escapes what roff would take for itself.
func roffText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "…", `\&...`, "█", "#").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

func (p *roff) section(name string)    { fmt.Fprintf(p, ".SH %s\n", roffText(strings.ToUpper(name))) }
func (p *roff) subsection(name string) { fmt.Fprintf(p, ".SS %s\n", roffText(name)) }
func (p *roff) paragraph(text string)  { fmt.Fprintf(p, ".PP\n%s\n", roffText(text)) }

// item is a tagged paragraph; head is roff already.
func (p *roff) item(head, text string) { fmt.Fprintf(p, ".TP\n%s\n%s\n", head, roffText(text)) }

func bold(s string) string   { return `\fB` + roffText(s) + `\fR` }
func italic(s string) string { return `\fI` + roffText(s) + `\fR` }

// manPage is the manual page of a tool.
func manPage(r row) (string, error) {
	parser, err := grammar(Streams{}, &r, r.new())
	if err != nil {
		return "", err
	}
	node := parser.Model.Node
	prog := r.name
	if prog == "qvm-device" {
		prog += " CLASS"
	}
	p := &roff{}
	fmt.Fprintf(p, ".TH %s 1 \"\" Cubicle \"Qubes tools\"\n", strings.ToUpper(roffText(r.name)))
	p.section("Name")
	fmt.Fprintf(p, "%s \\- %s\n", roffText(r.name), roffText(strings.ToLower(r.summary[:1])+strings.TrimSuffix(r.summary[1:], ".")))
	p.section("Synopsis")
	synopsis(p, prog, node)
	if len(r.text) > 0 {
		p.section("Description")
		for _, t := range r.text {
			p.paragraph(t)
		}
	}
	arguments(p, node)
	p.section("Options")
	optionItems(p, node.Flags)
	if len(node.Children) > 0 {
		p.section("Commands")
		for _, c := range node.Children {
			command(p, c)
		}
	}
	appendix(p, r.name)
	p.section("Exit status")
	p.paragraph("0 on success; 1 on a failure, with a message on standard error; 2 for wrong usage." + ownStatus(r.name))
	p.section("Environment")
	p.item(bold(paths.Env), "Folder below which the system lives (default: /).")
	if r.name == "qvm-ls" {
		p.item(bold("NO_COLOR"), "When it is set, the table has no colours on a terminal either.")
	}
	p.section("See also")
	var others []string
	for _, o := range tools() {
		if !o.hidden && o.name != r.name {
			others = append(others, bold(o.name)+"(1)")
		}
	}
	p.WriteString(strings.Join(others, ",\n") + "\n")
	return p.String(), nil
}

func ownStatus(name string) string {
	switch name {
	case "qvm-check":
		return " When only some qubes fit, it is 3."
	case "qvm-run":
		return " Otherwise it is the status of the command in the qube."
	case "qvm-tags", "qvm-features", "qvm-service":
		return " It is also 1, without a message, when what was asked for is not set."
	}
	return ""
}

// positional is a positional argument as usage shows it.
func positional(a *kong.Positional) string {
	text := italic(a.Name)
	if a.IsCumulative() || a.IsSlice() {
		text += " ..."
	}
	if !a.Required {
		text = "[" + text + "]"
	}
	return text
}

func synopsis(p *roff, prog string, node *kong.Node) {
	line := func(words ...string) { fmt.Fprintf(p, ".br\n%s\n", strings.Join(words, " ")) }
	if len(node.Children) == 0 {
		words := []string{bold(prog), "[" + italic("options") + "]"}
		for _, a := range node.Positional {
			words = append(words, positional(a))
		}
		line(words...)
		return
	}
	for _, c := range node.Children {
		words := []string{bold(prog), bold(c.Name), "[" + italic("options") + "]"}
		for _, a := range c.Positional {
			words = append(words, positional(a))
		}
		line(words...)
	}
}

func arguments(p *roff, node *kong.Node) {
	if len(node.Positional) == 0 {
		return
	}
	p.section("Arguments")
	for _, a := range node.Positional {
		p.item(italic(a.Name), a.Help)
	}
}

func command(p *roff, c *kong.Node) {
	name := c.Name
	if len(c.Aliases) > 0 {
		name += " (" + strings.Join(c.Aliases, ", ") + ")"
	}
	p.subsection(name)
	p.paragraph(c.Help)
	for _, a := range c.Positional {
		p.item(italic(a.Name), a.Help)
	}
	optionItems(p, c.Flags)
}

// optionItems describes options, in their groups.
func optionItems(p *roff, list []*kong.Flag) {
	group := ""
	for _, f := range list {
		if f.Hidden {
			continue
		}
		if f.Group != nil && f.Group.Title != group {
			group = f.Group.Title
			p.subsection(strings.TrimSuffix(group, ":"))
		}
		var forms []string
		value := ""
		if !takesNone(f) {
			value = "=" + italic(strings.Trim(f.FormatPlaceHolder(), `"`))
			if f.Tag.Has("maybe") {
				value = "[" + value + "]"
			}
			if f.Tag.Has("greedy") {
				value = " " + value[1:] + " ..."
			}
		}
		if f.Short != 0 {
			forms = append(forms, bold("-"+string(f.Short)))
		}
		for _, name := range append([]string{f.Name}, f.Aliases...) {
			forms = append(forms, bold("--"+name)+value)
		}
		p.item(strings.Join(forms, ", "), f.Help)
	}
}

// appendix is what only some pages have: the properties, the columns.
func appendix(p *roff, name string) {
	switch name {
	case "qvm-prefs":
		p.section("Properties")
		properties(p, allRows())
	case "qubes-prefs":
		p.section("Properties")
		properties(p, qube.SystemRows())
	case "qvm-ls":
		p.section("Columns")
		p.paragraph("Besides these, every property is a column; see qvm-prefs(1).")
		all := computedColumns()
		for _, head := range sortedNames(all) {
			p.item(bold(head), all[head].help)
		}
		p.section("Formats")
		sets := formats()
		for _, set := range sortedNames(sets) {
			p.item(bold(set), strings.ToUpper(strings.ReplaceAll(strings.Join(sets[set], ", "), "_", "-")))
		}
	}
}

func properties(p *roff, rows []qube.Property) {
	for _, r := range rows {
		kind := string(r.Type)
		if when := moment(r); when != "" {
			kind += ", " + when
		}
		text := r.Help
		if r.Classes != nil && len(r.Classes) < len(classes()) {
			var names []string
			for _, c := range r.Classes {
				names = append(names, string(c))
			}
			slices.Sort(names)
			text += " (" + strings.Join(names, ", ") + ")"
		}
		p.item(bold(r.Name)+" ("+italic(kind)+")", text)
	}
}
