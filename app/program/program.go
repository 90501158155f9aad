// Package program is what every program with windows does before it has one:
// it learns where its daemon is and who it is itself, makes the folders that
// Fyne expects, and sees to it that a session has it once.
package program

import (
	"fmt"
	"os"
	"path/filepath"

	"fyne.io/fyne/v2"
	"github.com/BurntSushi/toml"

	"cubicle"
	"cubicle/app/dom0"
	"cubicle/assets"
)

// Flags are the options that all programs with windows have.
type Flags struct {
	Root string `help:"Folder below which the system lives (default: the CUBICLE_ROOT variable, else /)." placeholder:"DIR" type:"path"`
	Bus  string `help:"D-Bus address of the daemon's bus (default: the one below the root folder)." placeholder:"ADDRESS"`
}

// Daemon is the address of the bus that the daemon is on.
func (f Flags) Daemon() (string, error) {
	address, err := dom0.Address(f.Root)
	if err == nil && f.Bus != "" {
		address = f.Bus
	}
	return address, err
}

// Metadata is what FyneApp.toml says: the Qube Manager's, which other
// programs give their own ID and Name.
func Metadata() (fyne.AppMetadata, error) {
	var file struct {
		Details struct {
			Icon, Name, ID, Version string
			Build                   int
		}
		Migrations map[string]bool
	}
	if err := toml.Unmarshal([]byte(cubicle.FyneApp), &file); err != nil {
		return fyne.AppMetadata{}, fmt.Errorf("FyneApp.toml: %w", err)
	}
	icon, err := assets.Icon("qube-manager")
	if err != nil {
		return fyne.AppMetadata{}, fmt.Errorf("icon: %w", err)
	}
	return fyne.AppMetadata{
		ID:         file.Details.ID,
		Name:       file.Details.Name,
		Version:    file.Details.Version,
		Build:      file.Details.Build,
		Icon:       fyne.NewStaticResource("qube-manager.svg", icon),
		Migrations: file.Migrations,
	}, nil
}

// Folders makes what Fyne misses at the first start of the program with that
// ID: the cache, and a file of preferences. (Fyne makes that file empty and
// then complains that it cannot be read.)
func Folders(id string) error {
	if cache, err := os.UserCacheDir(); err == nil {
		if err := os.MkdirAll(cache, 0o700); err != nil {
			return fmt.Errorf("cache folder: %w", err)
		}
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return nil // without a home nothing is remembered, as Fyne says itself
	}
	folder := filepath.Join(config, "fyne", id)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("folder of preferences: %w", err)
	}
	path := filepath.Join(folder, "preferences.json")
	// A crash may have left it empty.
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return nil
	}
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		return fmt.Errorf("preferences: %w", err)
	}
	return nil
}
