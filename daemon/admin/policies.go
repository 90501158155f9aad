package admin

import (
	"context"
	"errors"
	"fmt"

	"cubicle/daemon/core"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/edit"
)

// policyMethods read and change the policy's files: the services policy.* of
// dom0 (spec/policy.md §10). Their replies have the framing of this API;
// client.ServePolicy makes of it what a caller in a qube is to see.
func policyMethods() map[string]method {
	m := map[string]method{
		"policy.GetFiles":         {onDom0, needed, absent, policyFilesFor},
		"policy.RegisterArgument": {onAny, needed, contents, registerArgument},
	}
	for prefix, include := range map[string]bool{"policy.": false, "policy.include.": true} {
		m[prefix+"List"] = method{onDom0, absent, absent, listPolicy(include)}
		m[prefix+"Get"] = method{onDom0, needed, absent, getPolicy(include)}
		m[prefix+"Replace"] = method{onDom0, needed, contents, replacePolicy(include)}
		m[prefix+"Remove"] = method{onDom0, needed, needed, removePolicy(include)}
	}
	return m
}

// editor edits the policy of the system.
func (c *call) editor() (*edit.Editor, error) {
	if len(c.PolicyFiles.Policy) == 0 {
		return nil, core.Failf(core.General, "there is no policy that could be read")
	}
	return edit.New(c.PolicyFiles), nil
}

// policyError names the kinds of the editor's errors as clients expect them.
func policyError(err error) error {
	if e, ok := errors.AsType[*edit.Error](err); ok {
		return core.Failf(core.Kind(e.Kind), "%s", e.Err)
	}
	return err
}

func listPolicy(include bool) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		e, err := c.editor()
		if err != nil {
			return "", err
		}
		names, err := e.List(include)
		return lines(names), policyError(err)
	}
}

func getPolicy(include bool) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		e, err := c.editor()
		if err != nil {
			return "", err
		}
		token, text, err := e.Get(edit.File{Name: c.req.Arg, Include: include})
		if err != nil {
			return "", policyError(err)
		}
		return token + "\n" + string(text), nil
	}
}

// maxToken bounds the line with a token before a file's new content.
const maxToken = 128

func replacePolicy(include bool) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		raw, err := c.payload(maxToken + policy.MaxFile)
		if err != nil {
			return "", err
		}
		e, err := c.editor()
		if err != nil {
			return "", err
		}
		token, text, err := edit.ParseReplacement(raw)
		if err == nil {
			err = e.Replace(edit.File{Name: c.req.Arg, Include: include}, token, text)
		}
		if err == nil {
			c.log.Info("the policy is changed", "file", c.req.Arg, "by", c.source.Name())
		}
		return "", policyError(err)
	}
}

func removePolicy(include bool) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		e, err := c.editor()
		if err != nil {
			return "", err
		}
		err = e.Remove(edit.File{Name: c.req.Arg, Include: include}, string(c.req.Payload))
		if err == nil {
			c.log.Info("a file of the policy is removed", "file", c.req.Arg, "by", c.source.Name())
		}
		return "", policyError(err)
	}
}

func policyFilesFor(_ context.Context, c *call) (string, error) {
	e, err := c.editor()
	if err != nil {
		return "", err
	}
	names, err := e.Files(c.req.Arg)
	return lines(names), policyError(err)
}

// registerArgument lets the qube on which the service was called call the
// caller's service with one argument more (spec/services.md §6).
func registerArgument(_ context.Context, c *call) (string, error) {
	const maxArgument = 64
	raw, err := c.payload(maxArgument)
	if err != nil {
		return "", err
	}
	e, err := c.editor()
	if err != nil {
		return "", err
	}
	service, argument := c.req.Arg, "+"+string(raw)
	switch {
	case len(raw) == 0 || len(raw) > maxArgument:
		err = fmt.Errorf("an argument has 1 to %d bytes", maxArgument)
	case c.source.IsAdmin() || c.dest.IsAdmin():
		err = errors.New("arguments are registered between qubes, not for dom0")
	default:
		err = e.Register(service, argument, string(c.dest.Name()), string(c.source.Name()))
	}
	if err == nil {
		c.log.Info("the policy has a new argument", "service", service, "argument", argument, "caller", c.dest.Name(), "target", c.source.Name())
		return "", nil
	}
	if _, known := errors.AsType[*edit.Error](err); known {
		return "", policyError(err)
	}
	return "", core.Failf(core.Kind(edit.General), "register %s for %s: %s", printable(argument), printable(service), err)
}
