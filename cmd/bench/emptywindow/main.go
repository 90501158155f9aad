// Command emptywindow is a Fyne window with nothing in it, of the Qube
// Manager's size: what the Manager's first paint is compared with.
package main

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"
	"fyne.io/fyne/v2/container"
)

func main() {
	a := app.NewWithID("org.cubicle.Bench")
	w := a.NewWindow("Empty")
	w.Resize(fyne.NewSize(1040, 600))
	w.SetPadded(false)
	w.SetContent(container.NewWithoutLayout())
	w.ShowAndRun()
}
