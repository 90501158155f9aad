//go:build tools

// Package runsc pins gVisor's runsc, the program that gives a qube a kernel of
// its own, in a module of its own: its dependencies never mix with ours, and
// the build is the same everywhere.
//
//	CGO_ENABLED=0 go build -o ../../bin/runsc gvisor.dev/gvisor/runsc
//
// It must be static (CGO_ENABLED=0): runsc starts itself again in a mount
// namespace that has no dynamic linker.
package runsc

import _ "gvisor.dev/gvisor/runsc"
