package store

import (
	"os"
	"path/filepath"
)

// HasKernel reports whether a kernel is installed for qubes
// (spec/platform.md §1.4). The name has no slash.
func (s *Store) HasKernel(name string) bool {
	info, err := os.Stat(filepath.Join(s.dir, "vm-kernels", name, "vmlinuz"))
	return err == nil && info.Mode().IsRegular()
}
