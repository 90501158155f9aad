package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cubicle/daemon/qrexec/wire"
)

// IsPolicyService reports whether a service of dom0 is one that ServePolicy
// answers.
func IsPolicyService(service string) bool {
	switch service {
	case "policy.List", "policy.Get", "policy.Replace", "policy.Remove", "policy.GetFiles", "policy.RegisterArgument",
		"policy.include.List", "policy.include.Get", "policy.include.Replace", "policy.include.Remove":
		return true
	}
	return false
}

// ServePolicy answers a call of a service policy.* as its caller expects it
// (spec/policy.md §10), which is not as qubesd does: the bare reply on out, or
// the exception's name and message on errOut. It returns the exit status: 1
// for a refusal, 2 for a fault of ours.
func (c *Client) ServePolicy(ctx context.Context, r *wire.RPC, in io.Reader, out, errOut io.Writer) int {
	method, dest := service(r.Service, r.Argument), "name dom0" // whatever name for dom0 the caller used
	if r.Service == "policy.RegisterArgument" && r.TargetType == "name" {
		dest = "name " + r.Target
	}
	reply, err := c.exchangeLocal(ctx, method+" "+r.Source+" "+dest+"\x00", in)
	if err == nil {
		if _, err = io.WriteString(out, reply); err != nil {
			return 2 // nobody is left to be told
		}
		return 0
	}
	status := 2
	exception, ok := errors.AsType[*Error](err)
	if !ok {
		exception = &Error{"PolicyAdminException", err.Error()}
	} else if strings.HasPrefix(exception.Type, "PolicyAdmin") || exception.Type == "PermissionDenied" || exception.Type == "ProtocolError" {
		status = 1
	}
	fmt.Fprintf(errOut, "%s: %s\n", exception.Type, exception.Message)
	return status
}
