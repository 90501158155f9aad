// Package assets holds the files that are built into the programs. It is a
// leaf: embedding and look-up, nothing else.
package assets

import "embed"

// icons are our own drawings, filled shapes of 24 by 24 units in black,
// which a theme recolours.
//
//go:embed icons/*.svg
var icons embed.FS

// Icon returns the SVG drawing of that name (without folder and ".svg"), or
// an error that wraps fs.ErrNotExist.
func Icon(name string) ([]byte, error) { return icons.ReadFile("icons/" + name + ".svg") }
