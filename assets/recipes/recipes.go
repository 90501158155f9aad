// Package recipes holds the recipes of templates: one folder each, with
// recipe.toml and the script setup. Package daemon/template reads them.
package recipes

import "embed"

// FS holds the recipes, one folder a template.
//
//go:embed debian-12
var FS embed.FS
