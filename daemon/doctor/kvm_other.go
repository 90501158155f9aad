//go:build !(linux && amd64)

package doctor

import "errors"

// KVMGuest runs a tiny guest and returns nil when it answered.
func KVMGuest() error { return errors.New("the tiny guest is written for amd64 only") }
