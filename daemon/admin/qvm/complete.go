package qvm

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"cubicle/daemon/admin/client"
	nouns "cubicle/daemon/device"
	"cubicle/daemon/qube"
)

//go:embed completion/bash
var bashScript string

//go:embed completion/zsh
var zshScript string

//go:embed completion/fish
var fishScript string

// completion is "qvm completion SHELL". The scripts ask "qvm complete" each
// time, so that qubes are those of the moment.
type completion struct {
	verbosity
	Shell string `arg:"" name:"SHELL" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (c *completion) run(_ context.Context, e *env) error {
	script := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell]
	names := []string{"qvm"}
	for _, r := range tools() {
		if !r.hidden {
			names = append(names, r.name)
		}
	}
	_, err := fmt.Fprint(e.Out, strings.ReplaceAll(script, "@NAMES@", strings.Join(names, " ")))
	return err
}

// complete is "qvm complete": it prints how a command line can go on, a
// proposal on each line, with a tab and a description behind it. The line
// ":file" alone asks the shell for names of files.
type complete struct {
	verbosity
	Line   *string  `help:"The command line, for bash, which splits words at more than spaces."`
	Point  int      `help:"Where the cursor is in it."`
	Breaks string   `help:"What bash splits words at."`
	Words  []string `arg:"" optional:"" passthrough:"" name:"WORD" help:"The words; the last is the one being written."`
}

// completeTime is how long qubesd may take to answer: a person waits.
const completeTime = 2 * time.Second

// proposal is a way in which a word can go on.
type proposal struct{ text, about string }

// files asks the shell for names of files.
var files = []proposal{{":file", ""}}

func (c *complete) run(ctx context.Context, e *env) error {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if c.Line != nil {
		line := *c.Line
		if c.Point >= 0 && c.Point < len(line) {
			line = line[:c.Point]
		}
		words = splitLine(line)
	}
	if len(words) < 2 {
		return nil
	}
	now := words[len(words)-1]
	list, err := propose(ctx, e, words)
	if err != nil {
		return err
	}
	cut := 0
	if c.Line != nil {
		// bash replaces only what stands behind the last such sign.
		cut = strings.LastIndexAny(now, strings.Trim(c.Breaks, " \t\n\"'><;|&(")) + 1
	}
	var b strings.Builder
	for _, p := range list {
		switch {
		case p == files[0]:
			b.WriteString(p.text + "\n")
		case strings.HasPrefix(p.text, now):
			b.WriteString(p.text[cut:] + "\t" + oneLine(p.about) + "\n")
		}
	}
	_, err = fmt.Fprint(e.Out, b.String())
	return err
}

// splitLine splits a command line into words as a shell does, as far as that
// matters here. The last word is the one being written.
func splitLine(line string) []string {
	words := []string{""}
	last := func() *string { return &words[len(words)-1] }
	quote, open := rune(0), false
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			*last() += string(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, open = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			*last() += string(r)
		case r == '"' || r == '\'':
			quote, open = r, true
		case r == ' ' || r == '\t':
			if open {
				words = append(words, "")
			}
			open = false
			continue
		default:
			*last() += string(r)
			open = true
		}
	}
	return words
}

// propose returns how the last word can go on.
func propose(ctx context.Context, e *env, words []string) ([]proposal, error) {
	prog := words[0][strings.LastIndexByte(words[0], '/')+1:]
	rest := words[1:]
	if lookup(tools(), prog) == nil {
		if len(rest) == 1 {
			return toolNames(), nil
		}
		r, _, _, err := find([]string{prog, rest[0]})
		if err != nil || r == nil {
			return nil, nil
		}
		prog, rest = r.name, rest[1:]
	}
	if prog == "qvm-device" {
		if len(rest) == 1 {
			return deviceClassNames(ctx, e)
		}
	}
	r, _, rest, err := find(append([]string{prog}, rest...))
	if err != nil || r == nil || len(rest) == 0 {
		return nil, nil
	}
	t := r.new()
	parser, err := grammar(e.Streams, r, t)
	if err != nil {
		return nil, err
	}
	w := &walker{expander: expander{node: parser.Model.Node, given: map[string]bool{}}, tool: t}
	for _, word := range rest[:len(rest)-1] {
		w.step(word)
	}
	return w.propose(ctx, e, rest[len(rest)-1])
}

func toolNames() []proposal {
	var list []proposal
	for _, r := range tools() {
		if !r.hidden {
			list = append(list, proposal{strings.TrimPrefix(r.name, "qvm-"), r.summary})
		}
	}
	return list
}

// walker follows a command line up to the word being written.
type walker struct {
	expander
	tool   any
	asking *kong.Flag // whose value comes next
	plain  bool       // after --
	passed bool       // in somebody else's command line
	done   []string   // positional arguments
}

func (w *walker) step(word string) {
	option := len(word) > 1 && word[0] == '-' && !w.plain
	if w.asking != nil && !option {
		if !w.asking.Tag.Has("greedy") {
			w.asking = nil
		}
		return
	}
	w.asking = nil
	switch {
	case w.passed:
	case option && word == "--":
		w.plain = true
	case option && strings.HasPrefix(word, "--"):
		name, _, attached := strings.Cut(word[2:], "=")
		if f, _, err := w.resolve(name); err == nil && f != nil {
			w.given[f.Name] = true
			if !attached && !takesNone(f) {
				w.asking = f
			}
		}
	case option:
		for i, letter := range word[1:] {
			at := slices.IndexFunc(w.flags(), func(f *kong.Flag) bool { return f.Short == letter })
			if at < 0 {
				return
			}
			f := w.flags()[at]
			w.given[f.Name] = true
			if takesNone(f) {
				continue
			}
			if word[1+i+1:] == "" {
				w.asking = f
			}
			return
		}
	default:
		before := w.node
		w.word(word)
		if w.node == before || w.positional > len(w.done) {
			w.done = append(w.done, word)
		}
		if p, ok := w.tool.(passer); ok && w.positional > p.passFrom(w.given) {
			w.passed = true
		}
	}
}

func (w *walker) propose(ctx context.Context, e *env, now string) ([]proposal, error) {
	s := &source{ctx, e, w}
	if w.passed {
		return files, nil
	}
	if w.asking != nil && !strings.HasPrefix(now, "-") {
		return s.value(w.asking.Value)
	}
	if name, _, ok := strings.Cut(now, "="); ok && strings.HasPrefix(now, "--") && !w.plain {
		f, _, err := w.resolve(name[2:])
		if err != nil || f == nil || takesNone(f) {
			return nil, nil
		}
		list, err := s.value(f.Value)
		for i := range list {
			if list[i] != files[0] {
				list[i].text = name + "=" + list[i].text
			}
		}
		return list, err
	}
	if strings.HasPrefix(now, "-") && !w.plain {
		return w.options(), nil
	}
	var list []proposal
	if w.positional == 0 {
		for _, c := range w.node.Children {
			list = append(list, proposal{c.Name, c.Help})
		}
		if len(list) > 0 && !slices.ContainsFunc(list, func(p proposal) bool { return strings.HasPrefix(p.text, now) }) && w.node.DefaultCmd != nil {
			w.node = w.node.DefaultCmd
		}
	}
	if args := w.node.Positional; len(args) > 0 && len(w.node.Children) == 0 {
		at := min(len(w.done), len(args)-1)
		if at == len(w.done) || args[at].IsCumulative() || args[at].IsSlice() {
			more, err := s.value(args[at])
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
	}
	return list, nil
}

// options are those that can still be given.
func (w *walker) options() []proposal {
	var list []proposal
	for _, f := range w.flags() {
		if f.Hidden || w.given[f.Name] && !f.IsCumulative() && !f.IsSlice() && !f.IsCounter() {
			continue
		}
		list = append(list, proposal{"--" + f.Name, f.Help})
	}
	return list
}

// source knows the values that an argument can have.
type source struct {
	ctx context.Context
	*env
	w *walker
}

// value are the values of an option or a positional argument, by its tag
// complete.
func (s *source) value(v *kong.Value) ([]proposal, error) {
	if v.Tag.Has("offer") {
		return bare(strings.Fields(v.Tag.Get("offer"))), nil
	}
	if v.Enum != "" {
		var list []proposal
		for _, word := range v.EnumSlice() {
			if word != "" {
				list = append(list, proposal{word, ""})
			}
		}
		return list, nil
	}
	switch kind := v.Tag.Get("complete"); kind {
	case "qube":
		if chooser, ok := s.w.tool.(interface{ offers(client.Qube) bool }); ok && v.Flag == nil {
			return s.qubes(chooser.offers)
		}
		return s.qubes(func(client.Qube) bool { return true })
	case "template":
		return s.qubes(func(q client.Qube) bool { return q.Class == "TemplateVM" || s.w.given["disp"] })
	case "disptemplate":
		return s.disposableTemplates()
	case "command":
		if s.w.given["all"] || s.w.given["dispvm"] {
			return files, nil
		}
		return s.qubes(func(q client.Qube) bool { return !q.IsAdmin() })
	case "class":
		return s.plain("admin.vmclass.List")
	case "label":
		return s.plain("admin.label.List")
	case "pool":
		return s.plain("admin.pool.List")
	case "driver":
		return s.drivers()
	case "tag":
		return s.allTags()
	case "tagof":
		return s.tagsOf()
	case "feature":
		return s.of("admin.vm.feature.List", "")
	case "service":
		return s.of("admin.vm.feature.List", "service.")
	case "property", "globalproperty", "assignment", "field":
		return s.properties(kind), nil
	case "value":
		return s.propertyValue()
	case "volume":
		return s.volumes()
	case "device":
		return s.devices()
	case "format":
		return s.formats(), nil
	case "rule":
		return s.rules(), nil
	case "file":
		return files, nil
	}
	return nil, nil
}

func (s *source) qubes(fits func(client.Qube) bool) ([]proposal, error) {
	all, err := s.List(s.ctx)
	if err != nil {
		return nil, err
	}
	var list []proposal
	for _, q := range all {
		if fits(q) && !slices.Contains(s.w.done, q.Name) {
			list = append(list, proposal{q.Name, q.Class + ", " + q.State})
		}
	}
	return list, nil
}

func (s *source) disposableTemplates() ([]proposal, error) {
	rows, err := s.Table(s.ctx, client.PropertyColumn("template_for_dispvms"))
	var list []proposal
	for _, r := range rows {
		if r.Values[0].Text == "True" {
			list = append(list, proposal{r.Name, r.Class})
		}
	}
	return list, err
}

// plain are the words of a method of dom0.
func (s *source) plain(method string) ([]proposal, error) {
	words, err := s.Words(s.ctx, "dom0", method, "")
	return bare(words), err
}

func bare(words []string) []proposal {
	var list []proposal
	for _, w := range words {
		list = append(list, proposal{w, ""})
	}
	return list
}

func (s *source) drivers() ([]proposal, error) {
	text, err := s.Call(s.ctx, "dom0", "admin.pool.ListDrivers", "", nil)
	var list []proposal
	for line := range strings.Lines(text) {
		name, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, proposal{name, params})
	}
	return list, err
}

func (s *source) allTags() ([]proposal, error) {
	rows, err := s.Table(s.ctx, client.TagsColumn)
	var tags []string
	for _, r := range rows {
		tags = append(tags, strings.Fields(r.Values[0].Text)...)
	}
	slices.Sort(tags)
	return bare(slices.Compact(tags)), err
}

// tagsOf are the tags to take from a qube; to give it, all that there are.
func (s *source) tagsOf() ([]proposal, error) {
	if len(s.w.done) > 1 && slices.Contains([]string{"add", "a", "set"}, s.w.done[1]) {
		return s.allTags()
	}
	return s.of("admin.vm.tag.List", "")
}

// of are the words of a method of the qube that the line names, without a
// prefix that they must have.
func (s *source) of(method, prefix string) ([]proposal, error) {
	if len(s.w.done) == 0 {
		return nil, nil
	}
	words, err := s.Words(s.ctx, s.w.done[0], method, "")
	var list []proposal
	for _, w := range words {
		if short, ok := strings.CutPrefix(w, prefix); ok {
			list = append(list, proposal{short, ""})
		}
	}
	return list, err
}

func (s *source) properties(kind string) []proposal {
	rows := allRows()
	var list []proposal
	suffix := ""
	switch kind {
	case "globalproperty":
		rows = qube.SystemRows()
	case "assignment":
		suffix = "="
	case "field":
		for _, head := range sortedNames(computedColumns()) {
			list = append(list, proposal{strings.ToLower(head), ""})
		}
	}
	for _, r := range rows {
		if p := (proposal{r.Name + suffix, r.Help}); !slices.ContainsFunc(list, func(o proposal) bool { return o.text == p.text }) {
			list = append(list, p)
		}
	}
	return list
}

// propertyValue are values of the property that the line names.
func (s *source) propertyValue() ([]proposal, error) {
	if len(s.w.done) < 2 {
		return nil, nil
	}
	rows := allRows()
	at := slices.IndexFunc(rows, func(r qube.Property) bool { return r.Name == s.w.done[1] })
	if at < 0 {
		return nil, nil
	}
	switch rows[at].Type {
	case qube.Bool:
		return bare([]string{"True", "False"}), nil
	case qube.LabelRef:
		return s.plain("admin.label.List")
	case qube.VM:
		return s.qubes(func(q client.Qube) bool { return rows[at].Name != "template" || q.Class == "TemplateVM" })
	}
	return nil, nil
}

func (s *source) volumes() ([]proposal, error) {
	all, err := s.List(s.ctx)
	if err != nil {
		return nil, err
	}
	lists := make([][]proposal, len(all))
	err = s.Each(s.ctx, len(all), func(ctx context.Context, i int) error {
		names, err := s.Words(ctx, all[i].Name, "admin.vm.volume.List", "")
		for _, n := range names {
			lists[i] = append(lists[i], proposal{all[i].Name + ":" + n, ""})
		}
		return err
	})
	return slices.Concat(lists...), err
}

func deviceClassNames(ctx context.Context, e *env) ([]proposal, error) {
	classes, err := e.DeviceClasses(ctx)
	var list []proposal
	for _, c := range classes {
		list = append(list, proposal{string(c), ""})
	}
	return list, err
}

func (s *source) devices() ([]proposal, error) {
	d, ok := s.w.tool.(*device)
	if !ok {
		return nil, nil
	}
	all, err := s.List(s.ctx)
	if err != nil {
		return nil, err
	}
	lists := make([][]proposal, len(all))
	err = s.Each(s.ctx, len(all), func(ctx context.Context, i int) error {
		found, err := s.Devices(ctx, all[i].Name, nouns.Class(cmp.Or(d.class, "block")))
		for _, f := range found {
			lists[i] = append(lists[i], proposal{portName(f.Device), describe(f)})
		}
		return err
	})
	return slices.Concat(lists...), err
}

func (s *source) formats() []proposal {
	all := formats()
	var list []proposal
	for _, n := range sortedNames(all) {
		list = append(list, proposal{n, strings.Join(all[n], ", ")})
	}
	return list
}

func (s *source) rules() []proposal {
	if len(s.w.done) <= 2 {
		return bare([]string{"accept", "drop"})
	}
	return bare([]string{"dsthost=", "dst4=", "dst6=", "proto=tcp", "proto=udp", "proto=icmp", "dstports=", "icmptype=", "specialtarget=dns", "expire=+", "comment="})
}
