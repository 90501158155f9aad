// Package policy is the language in which a person says which qube may call
// which service of which other qube (spec/policy.md): it parses the files,
// compiles them and decides calls. It is pure: no call is made here and
// nobody is asked.
//
// Rules are met in the order in which they are read, and the first that fits
// decides; a call that none fits is denied. While any file is wrong every
// call is denied, which is why Load gives a policy or errors, never both.
//
// Upstream's parser has six weaknesses (spec/policy.md §7). Here a rule for
// @dispvm:B does not fit a caller without a default disposable; a denial
// written @adminvm hides dom0 from a choice as one written dom0 does; a call
// of a qube to itself is one by whatever name; an ask with target=@dispvm
// offers the caller's default disposable; a remote qube that a redirect chose
// is named to its relay; and files that include one another are an error.
// Beyond these, a denial of @dispvm:B hides B also where it is what @dispvm
// means for the caller.
package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Action is what a rule says.
type Action string

// The actions.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
	Ask   Action = "ask"
)

// Rule is one line of a policy.
type Rule struct {
	File string // as it was opened
	Line int    // from 1; 0 for a rule that upstream adds after a file
	Text string // as written, without blanks around it

	service  string // empty: every service
	argument string // with its '+'; empty: every argument
	source   token
	target   token
	action   Action

	redirect      *token // target=
	defaultTarget *token // default_target=
	user          string // user=; empty: the qube's default
	notify        bool
	autostart     bool
}

// Where names the rule's place as FILE:LINE.
func (r *Rule) Where() string { return fmt.Sprintf("%s:%d", r.File, r.Line) }

// Action is what the rule says.
func (r *Rule) Action() Action { return r.action }

// Policy is a policy without errors. It is never changed.
type Policy struct {
	rules []*Rule
	// named holds for each service that some rule names all rules that can
	// fit it; unnamed those for every other service. Both keep the order.
	named   map[string][]*Rule
	unnamed []*Rule
}

func compile(rules []*Rule) *Policy {
	p := &Policy{rules: rules, named: map[string][]*Rule{}}
	for _, r := range rules {
		if r.service == "" {
			p.unnamed = append(p.unnamed, r)
		} else {
			p.named[r.service] = nil
		}
	}
	for _, r := range rules {
		if r.service != "" {
			p.named[r.service] = append(p.named[r.service], r)
			continue
		}
		for name := range p.named {
			p.named[name] = append(p.named[name], r)
		}
	}
	return p
}

// Rules are all rules, in the order in which they are met.
func (p *Policy) Rules() []*Rule { return slices.Clone(p.rules) }

// Files are the names of the files that hold rules for a service, in order;
// an empty service means all.
func (p *Policy) Files(service string) []string {
	rules := p.rules
	if service != "" {
		rules = p.of(service)
	}
	var files []string
	for _, r := range rules {
		if !slices.Contains(files, r.File) {
			files = append(files, r.File)
		}
	}
	return files
}

// RuleFor is the first rule for just that service and argument, or nil.
func (p *Policy) RuleFor(service, argument string) *Rule {
	for _, r := range p.of(service) {
		if r.service == service && r.argument == argument {
			return r
		}
	}
	return nil
}

// of are the rules that can fit a service.
func (p *Policy) of(service string) []*Rule {
	if rules, ok := p.named[service]; ok {
		return rules
	}
	return p.unnamed
}

// covers tells whether a rule is about an argument, which begins with '+'.
func (r *Rule) covers(argument string) bool { return r.argument == "" || r.argument == argument }

// isWord tells whether text consists of letters, digits and the given signs.
func isWord(text, signs string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(signs, c) < 0 {
			return false
		}
	}
	return true
}

// CheckService tells what is wrong with the name and the argument of a
// service as a call has them (spec/qrexec.md §9); the argument begins with
// '+'.
func CheckService(name, argument string) error {
	switch {
	case name == "" || !isWord(name, "-._"):
		return fmt.Errorf("%q is not the name of a service", name)
	case !strings.HasPrefix(argument, "+") || !isWord(argument, "+-._"):
		return fmt.Errorf("%q is not the argument of a service", argument)
	}
	return nil
}
