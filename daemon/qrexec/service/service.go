// Package service is the service's end of calls: it finds what a service's
// name stands for (files, sockets, links to /dev/tcp, rpc-config), runs it with
// what a service may know of its call, and moves the data of the call's
// channel (spec/qrexec.md §8, §13). The agent in a qube and dom0's runner of
// services are built on it.
//
// A Lookup makes a Plan of a call; Open does the hello of the data channel;
// Caller.Run starts the plan there and stays until the call is over.
package service

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"cubicle/daemon/qrexec/wire"
)

// Failure is an error that ends a call with a status of its own
// (spec/qrexec.md §8).
type Failure struct {
	Code int
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Fail makes a Failure, with the text that fmt.Errorf makes.
func Fail(code int, format string, args ...any) error {
	return &Failure{code, fmt.Errorf(format, args...)}
}

// Status is the status with which err ends a call: its own, else
// wire.StatusFault.
func Status(err error) int {
	var f *Failure
	if errors.As(err, &f) {
		return f.Code
	}
	return wire.StatusFault
}

// Path lists the folders of service files, in order: those of
// QREXEC_SERVICE_PATH, else upstream's.
func Path() []string {
	return pathList("QREXEC_SERVICE_PATH", "/run/qubes-rpc:/usr/local/etc/qubes-rpc:/etc/qubes-rpc")
}

// ConfigPath lists the folders of rpc-config files, in order: those of
// QUBES_RPC_CONFIG_PATH, else upstream's.
func ConfigPath() []string {
	return pathList("QUBES_RPC_CONFIG_PATH", "/run/qubes/rpc-config:/usr/local/etc/qubes/rpc-config:/etc/qubes/rpc-config")
}

// pathList splits the list in a variable, leaving out what is empty.
func pathList(env, fallback string) []string {
	if v := os.Getenv(env); v != "" {
		fallback = v
	}
	return strings.FieldsFunc(fallback, func(c rune) bool { return c == ':' })
}

// Env is what a service learns of its call (spec/qrexec.md §13).
// QREXEC_AGENT_PID is not set: one process serves all calls, and a signal to
// it could not name one of them.
func Env(r *wire.RPC) []string {
	env := []string{
		"QREXEC_REMOTE_DOMAIN=" + r.Source,
		"QREXEC_SERVICE_FULL_NAME=" + r.FullName(),
		"QREXEC_REQUESTED_TARGET_TYPE=" + r.TargetType,
	}
	if r.HasArgument {
		env = append(env, "QREXEC_SERVICE_ARGUMENT="+r.Argument)
	}
	switch r.TargetType {
	case "name":
		env = append(env, "QREXEC_REQUESTED_TARGET="+r.Target)
	case "keyword":
		env = append(env, "QREXEC_REQUESTED_TARGET_KEYWORD="+r.Target)
	}
	return env
}

// Inherit returns env without the variables that only qrexec may set:
// what is left of QREXEC… is QREXEC_SERVICE_PATH.
func Inherit(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "QREXEC") || strings.HasPrefix(kv, "QREXEC_SERVICE_PATH=") {
			kept = append(kept, kv)
		}
	}
	return kept
}
