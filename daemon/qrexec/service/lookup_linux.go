package service

import (
	"log/slog"
	"net"

	"cubicle/daemon/qrexec/wire"
)

// Builtin is a service that needs no file. Exactly one field is set.
type Builtin struct {
	Argv []string // a program, by its path; it gets no further argument
	Run  Func     // a function
	Addr net.Addr // a socket service
}

// Lookup finds services.
type Lookup struct {
	Path       []string // folders of service files, in order
	ConfigPath []string // folders of rpc-config files, in order
	Log        *slog.Logger

	// Builtin is asked for what has no file; may be nil.
	Builtin func(r *wire.RPC) (Builtin, bool)
}

// Plan finds what the call r runs. Its environment is what the service learns
// of the call, to which the caller adds its own. A service that is nowhere is
// no error: the plan is Empty, but its Config counts. What is found and cannot
// be run is an error whose Status is wire.StatusFault.
func (l Lookup) Plan(r *wire.RPC) (*Plan, error) {
	log := l.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	config, err := LoadConfig(l.ConfigPath, r, log)
	if err != nil {
		return nil, err
	}
	found, err := findService(l.Path, r)
	if err != nil {
		return nil, err
	}
	p := &Plan{Name: r.FullName() + "-" + r.Source, Service: true, Config: config, Descriptor: r.Descriptor(), Env: Env(r)}
	switch found.kind {
	case foundFile:
		p.Argv = []string{found.path}
		if r.Argument != "" {
			p.Argv = append(p.Argv, r.Argument)
		}
	case foundSocket:
		p.Addr = found.addr
	case foundNothing:
		if l.Builtin == nil {
			break
		}
		if b, ok := l.Builtin(r); ok {
			p.Argv, p.Run, p.Addr = b.Argv, b.Run, b.Addr
		}
	}
	return p, nil
}
