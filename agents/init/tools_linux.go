package pid1

import (
	"errors"
	"os"
	"path/filepath"

	"cubicle/agents/tools"
)

// clientPaths are where programs look for the client of calls to other qubes.
var clientPaths = []string{"/usr/bin/qrexec-client-vm", "/usr/lib/qubes/qrexec-client-vm"}

// linkTools gives the user's tools their names, below root, where the image
// has none of its own.
func linkTools(root, self string) error {
	paths := clientPaths
	for _, name := range tools.Names() {
		dir := "/usr/bin"
		if name == "qfile-agent" { // which only scripts call
			dir = "/usr/lib/qubes"
		}
		paths = append(paths, filepath.Join(dir, name))
	}
	errs := []error{os.MkdirAll(filepath.Join(root, "/usr/lib/qubes"), 0o755)}
	for _, path := range paths {
		if err := os.Symlink(self, filepath.Join(root, path)); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
