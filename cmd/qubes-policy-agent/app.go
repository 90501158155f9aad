package main

import (
	"os"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"

	"cubicle/app/program"
	"cubicle/theme"
)

// appID names our processes with windows.
const appID = "org.cubicle.PolicyAgent"

// newApp is the app of one of our processes with windows.
func newApp() (fyne.App, error) {
	metadata, err := program.Metadata()
	if err != nil {
		return nil, err
	}
	metadata.ID, metadata.Name, metadata.Icon = appID, "Qubes Policy Agent", nil
	app.SetMetadata(metadata)
	a := app.New()
	a.Settings().SetTheme(theme.New())
	return a, nil
}

// leave ends one of our processes. Fyne's own end would save preferences,
// which there are none of, while the next process reads them.
func leave() { os.Exit(0) }

// later calls f on the UI's goroutine after d, unless stop was called.
func later(d time.Duration, f func()) (stop func()) {
	t := time.AfterFunc(d, func() { fyne.Do(f) })
	return func() { t.Stop() }
}
