package edit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"cubicle/daemon/policy"
)

// registered is the file of the rules that services ask for.
const registered = "60-registered-arguments"

// Register adds a rule that lets a qube call a service of another with one
// argument, which begins with '+' (spec/services.md §6, policy.RegisterArgument).
// It is refused where a rule for just that service and argument exists.
func (e *Editor) Register(service, argument, caller, target string) error {
	if err := policy.CheckService(service, argument); err != nil {
		return &Error{BadProtocol, err}
	}
	if argument == "+" || strings.Contains(argument[1:], "+") {
		return failf(BadProtocol, "%q is not an argument to register: that has letters, digits, '-', '.' and '_'", argument)
	}
	path, err := e.path(File{Name: registered})
	if err != nil {
		return err
	}
	return e.locked(func() error {
		p, err := policy.Load(e.dirs)
		if err != nil {
			return &Error{BadSyntax, err}
		}
		if r := p.RuleFor(service, argument); r != nil {
			return failf(General, "%s%s has a rule already: %s", service, argument, r.Where())
		}
		text, err := read(path)
		if missing, _ := errors.AsType[*Error](err); err != nil && (missing == nil || missing.Kind != NotFound) {
			return err
		}
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
		text = fmt.Appendf(text, "%s %s %s %s allow\n", service, argument, caller, target)
		if len(text) > policy.MaxFile {
			return failf(General, "%s is full", path)
		}
		if err := e.check(path, text); err != nil {
			return err
		}
		return write(path, text)
	})
}
