// Package cubicle holds the one file of the top level that programs need:
// FyneApp.toml, which Fyne does not find for programs in cmd/.
package cubicle

import _ "embed"

// FyneApp is the text of FyneApp.toml, the metadata of the windows.
//
//go:embed FyneApp.toml
var FyneApp string
