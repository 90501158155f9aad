package program

import (
	"fmt"
	"os"
	"path/filepath"
)

// The variable that names the folder where libX11 keeps what it has read of
// the files of compose sequences (Compose(5)), and the one that names
// somebody's own such file.
const (
	composeCache = "XCOMPOSECACHE"
	composeFile  = "XCOMPOSEFILE"
)

// Compose gives libX11 a folder below the cache where it keeps the compose
// sequences of the person's language ready for use. Without one it reads half
// a megabyte of text before there is a window, at every start, a quarter of
// the time that a start takes. It has to be called before Fyne talks to the
// X server.
//
// People who have such a folder keep theirs, and those with sequences of
// their own have them read each time: what is kept is not made anew when
// only a file changes that theirs includes. libX11 keeps nothing for root.
func Compose() error {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil // no cache either
	}
	if os.Getenv(composeCache) != "" || os.Getenv(composeFile) != "" {
		return nil
	}
	for _, theirs := range []string{".compose-cache", ".XCompose"} {
		if _, err := os.Stat(filepath.Join(home, theirs)); err == nil {
			return nil
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	folder := filepath.Join(cache, "cubicle", "compose")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("folder of compose sequences: %w", err)
	}
	if err := os.Setenv(composeCache, folder); err != nil {
		return fmt.Errorf("folder of compose sequences: %w", err)
	}
	return nil
}
