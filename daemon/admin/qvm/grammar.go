package qvm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Upstream's tools read command lines in ways that kong does not: options may
// be cut short, some take several words or none, and qvm-run leaves the options
// behind its command alone. expand brings such a line into kong's form. Tags
// of a field tell:
//
//	greedy:""     takes all words up to the next option (--tags one two)
//	maybe:"TEXT"  takes a word or none; TEXT stands for none

// passer is a tool whose last arguments are somebody else's command line.
type passer interface {
	// passFrom says with which positional argument that begins, counted
	// from 0, when the named options were given.
	passFrom(given map[string]bool) int
}

// expand rewrites a command line for kong.
func expand(node *kong.Node, t any, args []string) ([]string, error) {
	x := expander{node: node, given: map[string]bool{}}
	pass, passes := t.(passer)
	var held []string // a passer's own words, behind all options
	for x.rest = args; len(x.rest) > 0; {
		arg := x.take()
		switch {
		case arg == "--":
			return slices.Concat(x.out, []string{arg}, held, x.rest), nil
		case strings.HasPrefix(arg, "--"):
			if err := x.long(arg); err != nil {
				return nil, err
			}
		case len(arg) > 1 && arg[0] == '-':
			x.short(arg)
		case passes && x.positional == pass.passFrom(x.given):
			return slices.Concat(x.out, []string{"--"}, held, []string{arg}, x.rest), nil
		case passes:
			held = append(held, arg)
			x.positional++
		default:
			x.word(arg)
		}
	}
	return append(x.out, held...), nil
}

type expander struct {
	node       *kong.Node
	rest, out  []string
	given      map[string]bool // options, by their full name
	positional int
}

func (x *expander) take() string {
	arg := x.rest[0]
	x.rest = x.rest[1:]
	return arg
}

// flags are the options known at this place.
func (x *expander) flags() []*kong.Flag {
	var all []*kong.Flag
	for n := x.node; n != nil; n = n.Parent {
		all = append(all, n.Flags...)
	}
	return all
}

// names are all the ways to write an option out.
func names(f *kong.Flag) []string {
	list := append([]string{f.Name}, f.Aliases...)
	switch f.Tag.Negatable {
	case "":
	case "_":
		list = append(list, "no-"+f.Name)
	default:
		list = append(list, f.Tag.Negatable)
	}
	return list
}

// long takes --NAME, --NAME=VALUE and what belongs to it.
func (x *expander) long(arg string) error {
	written, value, attached := strings.Cut(arg[2:], "=")
	flag, name, err := x.resolve(written)
	if err != nil {
		return err
	}
	if flag == nil {
		x.out = append(x.out, arg) // kong tells
		return nil
	}
	x.given[flag.Name] = true
	switch {
	case attached:
		x.out = append(x.out, "--"+name+"="+value)
	case takesNone(flag):
		x.out = append(x.out, "--"+name)
	default:
		x.values(flag, name)
	}
	return nil
}

// resolve finds an option by its name or an unambiguous beginning of it.
func (x *expander) resolve(written string) (*kong.Flag, string, error) {
	var found *kong.Flag
	var full []string
	for _, f := range x.flags() {
		for _, name := range names(f) {
			if name == written {
				return f, name, nil
			}
			if strings.HasPrefix(name, written) && !f.Hidden {
				full = append(full, "--"+name)
				found = f
			}
		}
	}
	switch {
	case len(full) == 1:
		return found, full[0][2:], nil
	case len(full) > 1 && written != "":
		slices.Sort(full)
		return nil, "", fmt.Errorf("ambiguous option: --%s could match %s", written, strings.Join(full, ", "))
	}
	return nil, written, nil
}

func takesNone(f *kong.Flag) bool { return f.IsBool() || f.IsCounter() }

// values takes the words that belong to an option.
func (x *expander) values(f *kong.Flag, name string) {
	next := func() bool { return len(x.rest) > 0 && !(len(x.rest[0]) > 1 && x.rest[0][0] == '-') }
	switch {
	case f.Tag.Has("maybe") && !next():
		x.out = append(x.out, "--"+name+"="+f.Tag.Get("maybe"))
	case f.Tag.Has("greedy") && next():
		for next() {
			x.out = append(x.out, "--"+name+"="+x.take())
		}
	case len(x.rest) > 0:
		x.out = append(x.out, "--"+name+"="+x.take())
	default:
		x.out = append(x.out, "--"+name) // kong tells that a value is missing
	}
}

// short takes a cluster of one-letter options; the last may have a value.
func (x *expander) short(arg string) {
	for i, letter := range arg[1:] {
		var flag *kong.Flag
		for _, f := range x.flags() {
			if f.Short == letter {
				flag = f
				break
			}
		}
		if flag == nil {
			x.out = append(x.out, "-"+arg[1+i:]) // kong tells
			return
		}
		x.given[flag.Name] = true
		if takesNone(flag) {
			x.out = append(x.out, "-"+string(letter))
			continue
		}
		if after := arg[1+i+1:]; after != "" {
			x.out = append(x.out, "--"+flag.Name+"="+strings.TrimPrefix(after, "="))
			return
		}
		x.values(flag, flag.Name)
		return
	}
}

// word takes a positional argument or the name of a command.
func (x *expander) word(arg string) {
	x.out = append(x.out, arg)
	for _, child := range x.node.Children {
		if child.Name == arg || slices.Contains(child.Aliases, arg) {
			x.node = child
			return
		}
	}
	if len(x.node.Children) > 0 && x.node.DefaultCmd != nil {
		x.node = x.node.DefaultCmd
	}
	x.positional++
}
