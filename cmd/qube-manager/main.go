// Command qube-manager opens the Qube Manager.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"
	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"

	"cubicle"
	"cubicle/app/dom0"
	"cubicle/app/manager"
	"cubicle/assets"
	"cubicle/daemon/paths"
	"cubicle/theme"
)

type options struct {
	Root string `help:"Folder below which the system lives (default: the CUBICLE_ROOT variable, else /)." placeholder:"DIR" type:"path"`
	Bus  string `help:"D-Bus address of the daemon's bus (default: the one below the root folder)." placeholder:"ADDRESS"`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("qube-manager"), kong.Description("The Qube Manager: every qube, live."))
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "qube-manager:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.Root != "" {
		if err := os.Setenv(paths.Env, o.Root); err != nil {
			return fmt.Errorf("root folder %q: %w", o.Root, err)
		}
	}
	address := o.Bus
	if address == "" {
		var err error
		if address, err = dom0.Address(); err != nil {
			return err
		}
	}
	metadata, err := metadata()
	if err != nil {
		return err
	}
	// The daemon is asked while the window is being made.
	client := dom0.Connect(address)
	defer client.Close()

	// Fyne makes its folder in the cache, but not the cache.
	if cache, err := os.UserCacheDir(); err == nil {
		if err := os.MkdirAll(cache, 0o700); err != nil {
			return fmt.Errorf("cache folder: %w", err)
		}
	}
	if err := firstStart(metadata.ID); err != nil {
		return err
	}
	// Drawing the icon takes longer than drawing the list: that comes first.
	icon := metadata.Icon
	metadata.Icon = nil
	app.SetMetadata(metadata)
	a := app.New()
	a.Settings().SetTheme(theme.New())
	w := a.NewWindow(metadata.Name)
	a.Lifecycle().SetOnStarted(func() {
		a.SetIcon(icon)
		w.SetIcon(icon)
	})
	prefs := a.Preferences()
	w.Resize(fyne.NewSize(
		float32(prefs.FloatWithFallback("manager.width", 1040)),
		float32(prefs.FloatWithFallback("manager.height", 600))))
	w.SetPadded(false)
	m := manager.New(client, manager.Options{Canvas: w.Canvas(), Preferences: prefs, Clipboard: a.Clipboard()})
	defer m.Close()
	w.SetContent(m.Content())
	w.SetCloseIntercept(func() {
		size := w.Canvas().Size()
		prefs.SetFloat("manager.width", float64(size.Width))
		prefs.SetFloat("manager.height", float64(size.Height))
		w.Close()
	})
	w.ShowAndRun()
	return nil
}

// firstStart makes the file of preferences where there is none: Fyne makes it
// empty and then complains that it cannot be read.
func firstStart(id string) error {
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

// metadata is what FyneApp.toml says of the program.
func metadata() (fyne.AppMetadata, error) {
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
