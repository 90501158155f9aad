package policy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// SyntaxError is a fault of a policy at one place.
type SyntaxError struct {
	File string
	Line int // from 1; 0: the file as a whole
	Err  error
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// Errors are all faults that were found, in the order of reading.
type Errors []*SyntaxError

func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
	}
	return b.String()
}

// MaxFile bounds one file of a policy in bytes.
const MaxFile = 1 << 20

const (
	maxRules  = 100_000
	maxErrors = 100
	maxFiles  = 10_000 // read for one policy, each inclusion counted
)

// errEnough ends the reading after maxErrors.
var errEnough = errors.New("too many errors")

// reader reads the files of one policy.
type reader struct {
	files    files
	rules    []*Rule
	problems Errors
	read     int
	open     []string // files that are being read: who includes whom
}

// source is a file that is being read.
type source struct {
	name string
	base string // folder that relative names of it and of its includes begin at
	// old: a file in the format of Qubes 4.0, for this service and argument.
	old               bool
	service, argument string
}

func (r *reader) fail(file string, line int, err error) error {
	r.problems = append(r.problems, &SyntaxError{file, line, err})
	if len(r.problems) >= maxErrors {
		return errEnough
	}
	return nil
}

// file reads one file at a place of the policy. Faults are noted; the error
// is errEnough alone. from and line are the directive that names it.
func (r *reader) file(s source, from string, line int) error {
	for _, name := range r.open {
		if name == s.name {
			return r.fail(from, line, fmt.Errorf("%s is being read already: the files include one another", s.name))
		}
	}
	if r.read++; r.read > maxFiles {
		return errors.Join(r.fail(from, line, fmt.Errorf("more than %d files are read", maxFiles)), errEnough)
	}
	text, err := r.files.read(s.name)
	if err != nil {
		return r.fail(from, line, err)
	}
	r.open = append(r.open, s.name)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	scanner := bufio.NewScanner(bytes.NewReader(text))
	scanner.Buffer(nil, MaxFile+1)
	for n := 1; scanner.Scan(); n++ {
		if err := r.line(s, n, strings.TrimSpace(scanner.Text())); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) line(s source, n int, text string) error {
	if text == "" || text[0] == '#' {
		return nil
	}
	words := text
	if s.old {
		// Qubes 4.0 wrote '$' for '@' and commas between options.
		words = strings.NewReplacer("$include:", "!include ", "$", "@", ",", " ").Replace(text)
	}
	fields := strings.Fields(words)
	switch {
	case len(fields) == 0:
		return nil // commas alone
	case strings.HasPrefix(fields[0], "!"):
		return r.directive(s, n, fields)
	case s.old:
		fields = append([]string{s.service, s.argument}, fields...)
	}
	rule, err := parseRule(fields)
	if err != nil {
		return r.fail(s.name, n, err)
	}
	rule.File, rule.Line, rule.Text = s.name, n, text
	return r.add(rule)
}

func (r *reader) add(rule *Rule) error {
	if len(r.rules) == maxRules {
		return errors.Join(r.fail(rule.File, rule.Line, fmt.Errorf("more than %d rules", maxRules)), errEnough)
	}
	r.rules = append(r.rules, rule)
	return nil
}

// directive carries out a line that begins with '!' (spec/policy.md §2).
func (r *reader) directive(s source, n int, fields []string) error {
	args := fields[1:]
	wants := func(count int) error {
		if len(args) != count {
			return fmt.Errorf("%s takes %d words, not %d", fields[0], count, len(args))
		}
		return nil
	}
	at := func(name string) string {
		if filepath.IsAbs(name) {
			return filepath.Clean(name)
		}
		return filepath.Join(s.base, name)
	}
	var err error
	switch {
	case fields[0] == "!include":
		if err = wants(1); err == nil {
			included := s
			included.name = at(args[0])
			return r.file(included, s.name, n)
		}
	case s.old:
		err = fmt.Errorf("a file in the old format knows no directive %q", cut(fields[0]))
	case fields[0] == "!include-dir":
		if err = wants(1); err == nil {
			return r.folder(s, at(args[0]), n)
		}
	case fields[0] == "!include-service":
		if err = wants(3); err == nil {
			err = checkWords(args[0], args[1])
		}
		if err == nil {
			return r.file(source{name: at(args[2]), base: s.base, old: true, service: args[0], argument: args[1]}, s.name, n)
		}
	case fields[0] == "!compat-4.0":
		if err = wants(0); err == nil {
			return r.legacy(s.name, n)
		}
	default:
		err = fmt.Errorf("there is no directive %q", cut(fields[0]))
	}
	return r.fail(s.name, n, err)
}

// folder reads the proper files of a folder at one place.
func (r *reader) folder(s source, dir string, n int) error {
	names, err := r.files.list(dir)
	if err != nil {
		return r.fail(s.name, n, err)
	}
	for _, name := range names {
		if err := checkFileName(name); err != nil {
			if err := r.fail(filepath.Join(dir, name), 0, err); err != nil {
				return err
			}
			continue
		}
		if err := r.file(source{name: filepath.Join(dir, name), base: s.base}, s.name, n); err != nil {
			return err
		}
	}
	return nil
}

// legacy reads the folder of Qubes 4.0 (spec/policy.md §9).
func (r *reader) legacy(from string, n int) error {
	list, err := r.files.listLegacy()
	if err != nil {
		return r.fail(from, n, err)
	}
	for _, f := range list {
		argument := "*"
		if f.argument != "" {
			argument = f.argument
		}
		s := source{name: f.name, base: r.files.dirs.Legacy, old: true, service: f.service, argument: argument}
		if err := r.file(s, from, n); err != nil {
			return err
		}
		if f.argument == "" {
			continue
		}
		// What a file for one argument does not say is denied.
		for _, line := range []string{"@anyvm @anyvm deny", "@anyvm @adminvm deny"} {
			rule, err := parseRule(append([]string{f.service, argument}, strings.Fields(line)...))
			if err != nil {
				return r.fail(f.name, 0, err)
			}
			rule.File, rule.Text = f.name, line
			if err := r.add(rule); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkWords tells what is wrong with the service and the argument of a rule.
func checkWords(service, argument string) error {
	switch {
	case service != "*" && !isWord(service, "-._"):
		return fmt.Errorf("%q is not the name of a service", cut(service))
	case argument != "*" && (argument[0] != '+' || !isWord(argument, "+-._")):
		return fmt.Errorf("%q is not an argument: that is * or begins with +", cut(argument))
	case service == "*" && argument != "*":
		return errors.New("a rule for every service is for every argument")
	}
	return nil
}

// parseRule reads the words of a rule.
func parseRule(fields []string) (*Rule, error) {
	if len(fields) < 5 {
		return nil, errors.New("a rule has a service, an argument, a source, a target and an action")
	}
	if err := checkWords(fields[0], fields[1]); err != nil {
		return nil, err
	}
	r := &Rule{action: Action(fields[4]), autostart: true}
	if fields[0] != "*" {
		r.service = fields[0]
	}
	if fields[1] != "*" {
		r.argument = fields[1]
	}
	var err error
	if r.source, err = parseToken(fields[2], inSource); err != nil {
		return nil, err
	}
	if r.target, err = parseToken(fields[3], inTarget); err != nil {
		return nil, err
	}
	switch r.action {
	case Allow, Ask:
	case Deny:
		r.notify = true
	default:
		return nil, fmt.Errorf("there is no action %q", cut(fields[4]))
	}
	if err := r.options(fields[5:]); err != nil {
		return nil, err
	}
	if r.action == Allow && r.target.kind == noTarget && r.redirect == nil {
		return nil, errors.New("allow with target @default needs target=")
	}
	return r, nil
}

func (r *Rule) options(words []string) error {
	given := map[string]bool{}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return fmt.Errorf("%q is not an option: that has KEY=VALUE", cut(word))
		}
		if given[key] {
			return fmt.Errorf("%s= stands twice", cut(key))
		}
		given[key] = true
		if err := r.option(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rule) option(key, value string) error {
	word := func(at place) (*token, error) {
		t, err := parseToken(value, at)
		return &t, err
	}
	yesNo := func(to *bool) error {
		if value != "yes" && value != "no" {
			return fmt.Errorf("%s= is yes or no, not %q", key, cut(value))
		}
		*to = value == "yes"
		return nil
	}
	var err error
	switch {
	case key == "notify":
		return yesNo(&r.notify)
	case r.action == Deny:
	case key == "target":
		r.redirect, err = word(inRedirect)
		return err
	case key == "autostart":
		return yesNo(&r.autostart)
	case key == "user":
		if value == "" {
			return errors.New("user= names nobody")
		}
		r.user = value
		return nil
	case key == "default_target" && r.action == Ask:
		r.defaultTarget, err = word(inDefault)
		return err
	}
	return fmt.Errorf("%s knows no option %q", r.action, cut(key))
}
