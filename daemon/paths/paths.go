// Package paths names every file and socket of a Cubicle system below one
// root folder, so that a whole system can live in a folder beside the real
// one and tests run in parallel.
//
// The root is "/" on an installed system; the environment variable
// CUBICLE_ROOT moves it. Names below it are upstream Qubes' own wherever its
// programs expect them (spec/admin-api.md §1, spec/qrexec.md §12,
// spec/vchan.md §3.1).
package paths

import (
	"fmt"
	"os"
	"path/filepath"
)

// Env is the variable that moves the root.
const Env = "CUBICLE_ROOT"

// Root is the folder below which a system keeps everything. The zero value
// is not valid; use FromEnv or New.
type Root string

// New returns the root for folder dir, which may be relative.
func New(dir string) (Root, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("root folder %q: %w", dir, err)
	}
	return Root(abs), nil
}

// FromEnv returns the root that CUBICLE_ROOT names, or "/".
func FromEnv() (Root, error) {
	if dir := os.Getenv(Env); dir != "" {
		return New(dir)
	}
	return "/", nil
}

// Resolve returns the root for a command line's folder, or where that is
// empty, what FromEnv says.
func Resolve(dir string) (Root, error) {
	if dir != "" {
		return New(dir)
	}
	return FromEnv()
}

// Join returns a path below the root.
func (r Root) Join(elem ...string) string {
	return filepath.Join(append([]string{string(r)}, elem...)...)
}

// Configuration and durable state.

// Etc is the folder of the configuration (policy.d and so on).
func (r Root) Etc() string { return r.Join("etc/qubes") }

// State is the folder of the durable state: appvms/NAME, vm-templates/NAME.
func (r Root) State() string { return r.Join("var/lib/qubes") }

// Log is the folder of log files.
func (r Root) Log() string { return r.Join("var/log/qubes") }

// Cache is the folder of what can be built again (template trees).
func (r Root) Cache() string { return r.Join("var/cache/cubicle") }

// Volatile state, gone with the last process of the system.

// Run is the folder of sockets at upstream's own places.
func (r Root) Run() string { return r.Join("run") }

// RunQubes is the folder of the qrexec sockets and of our own sockets.
func (r Root) RunQubes() string { return r.Join("run/qubes") }

// Qubesd is the Admin API's socket.
func (r Root) Qubesd() string { return r.Join("run/qubesd.sock") }

// QubesdInternal is its socket for dom0's trusted helpers.
func (r Root) QubesdInternal() string { return r.Join("run/qubesd.internal.sock") }

// QubesdMisc is its socket for what qubes tell of themselves.
func (r Root) QubesdMisc() string { return r.Join("run/qubesd.misc.sock") }

// Router is the socket on which qubesd waits for qrexecd
// (package daemon/qrexec/control).
func (r Root) Router() string { return r.Join("run/qubes/router.sock") }

// QubesdLock is locked (flock) while a qubesd lives in this root.
func (r Root) QubesdLock() string { return r.Join("run/qubes/qubesd.lock") }

// Broker is the socket on which qrexecd hands channel ends to dom0's own
// programs (vchan.Link with Domain 0).
func (r Root) Broker() string { return r.Join("run/qubes/vchan-broker.sock") }

// Links is the folder that holds one folder a qube, each with LinkSocket in
// it; the qube's folder is bound read-only into the sandbox.
func (r Root) Links() string { return r.Join("run/qubes/links") }

// LinkSocket is the name of a qube's link socket in its folder.
const LinkSocket = "link.sock"

// Vchan is the folder of upstream-named vchan sockets (VCHAN_SOCKET_DIR).
func (r Root) Vchan() string { return r.Join("run/vchan") }

// PolicyFiles are the folders of the policy's files (spec/policy.md §1): those
// that people write, those that are gone after a reboot, which hide the
// former, and the files of the old kind.
func (r Root) PolicyFiles() (kept, runtime, legacy string) {
	return r.Join("etc/qubes/policy.d"), r.Join("run/qubes/policy.d"), r.Join("etc/qubes-rpc/policy")
}

// RPC are the folders of dom0's own services, in the order in which they are
// searched (spec/qrexec.md §13).
func (r Root) RPC() []string {
	return []string{r.Join("run/qubes-rpc"), r.Join("usr/local/etc/qubes-rpc"), r.Join("etc/qubes-rpc")}
}

// RPCConfig are the folders of their settings, in the same order.
func (r Root) RPCConfig() []string {
	return []string{r.Join("run/qubes/rpc-config"), r.Join("usr/local/etc/qubes/rpc-config"), r.Join("etc/qubes/rpc-config")}
}

// Policyd is the socket that answers whether a call may be made
// (spec/qrexec.md §10).
func (r Root) Policyd() string { return r.Join("run/qubes/policy.sock") }

// PolicyAgent is the socket of the program that asks the person, and tells of
// denials (spec/qrexec.md §11).
func (r Root) PolicyAgent() string { return r.Join("run/qubes/policy-agent.sock") }

// Services is the socket on which qrexecd hands over calls to dom0's own
// services.
func (r Root) Services() string { return r.Join("run/qubes/services.sock") }

// Machines is the folder in which an engine keeps what a running qube needs
// (bundle, mount points).
func (r Root) Machines() string { return r.Join("run/qubes/machines") }

// SystemBus is the socket of the bus that `cubicle up` starts.
func (r Root) SystemBus() string { return r.Join("run/dbus/system_bus_socket") }
