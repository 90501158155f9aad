package qrexec

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"cubicle/daemon/paths"
)

// ClearStale removes the qubes' sockets that a killed qrexecd left, and their
// other names. Call it before the jail is closed: there no folder can be read.
func ClearStale(root paths.Root) error {
	entries, err := os.ReadDir(root.RunQubes())
	if err != nil {
		return fmt.Errorf("clear old sockets away: %w", err)
	}
	var errs []error
	remove := func(path string) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("clear old sockets away: %w", err))
		}
	}
	for _, e := range entries {
		path := filepath.Join(root.RunQubes(), e.Name())
		if isOurs(e.Name()) && e.Type()&fs.ModeSocket != 0 && !served(path) {
			remove(path)
		}
	}
	for _, e := range entries {
		path := filepath.Join(root.RunQubes(), e.Name())
		if !isOurs(e.Name()) || e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			remove(path)
		}
	}
	return errors.Join(errs...)
}

// isOurs tells the names that this package gives sockets.
func isOurs(name string) bool {
	return strings.HasPrefix(name, "qrexec.") || strings.HasPrefix(name, "qubesdb.")
}

func served(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
