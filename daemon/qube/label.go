package qube

import "fmt"

// Label is a qube's colour: the user's statement of how far it is trusted.
type Label struct {
	Name  string
	Index int    // upstream's number, 1 to 8 for the built-in ones
	Color uint32 // 0x00RRGGBB
}

// Labels are the eight built-in labels (spec/admin-api.md §4), by index.
var Labels = [...]Label{
	{"red", 1, 0xcc0000},
	{"orange", 2, 0xf57900},
	{"yellow", 3, 0xedd400},
	{"green", 4, 0x73d216},
	{"gray", 5, 0x555555},
	{"blue", 6, 0x3465a4},
	{"purple", 7, 0x75507b},
	{"black", 8, 0x000000},
}

// ParseLabel returns the built-in label of that name.
func ParseLabel(text string) (Label, error) {
	for _, l := range Labels {
		if l.Name == text {
			return l, nil
		}
	}
	return Label{}, fmt.Errorf("there is no label %q", cut(text))
}

// Hex is the colour as upstream writes it: 0xRRGGBB.
func (l Label) Hex() string { return fmt.Sprintf("0x%06x", l.Color) }
