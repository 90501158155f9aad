package qvm

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
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
		case !safe(p.text): // it would stand in somebody's command line
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
