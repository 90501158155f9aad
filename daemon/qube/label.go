package qube

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

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

// NewLabel checks the name and the colour (0xRRGGBB) of a label that people
// make (spec/admin-api.md §4); its index is yet to be given.
func NewLabel(name, color string) (Label, error) {
	if err := CheckLabelName(name); err != nil {
		return Label{}, err
	}
	digits, ok := strings.CutPrefix(color, "0x")
	if n, err := strconv.ParseUint(digits, 16, 32); err == nil && ok && len(digits) == 6 {
		return Label{Name: name, Color: uint32(n)}, nil
	}
	return Label{}, fmt.Errorf("%q is not a colour: 0x and six hexadecimal digits are needed", cut(color))
}

// maxLabel bounds the name of a label in bytes: it is part of icons' names.
const maxLabel = 64

// CheckLabelName tells what is wrong with the name of a label, built-in or
// not: letters, digits, '.', '_' and '-', and not digits alone, which would be
// an index.
func CheckLabelName(name string) error {
	switch {
	case name == "" || len(name) > maxLabel || strings.Trim(name, wordBytes) != "":
		return fmt.Errorf("%q is not the name of a label: 1 to %d letters, digits, '.', '_' or '-' are needed", cut(name), maxLabel)
	case strings.Trim(name, digitBytes) == "":
		return fmt.Errorf("%q is not the name of a label: it has digits only", cut(name))
	}
	return nil
}

// ByIndex is the order of labels.
func ByIndex(a, b Label) int { return cmp.Compare(a.Index, b.Index) }

// FindLabel looks a label up by its name, or by its index in digits.
func FindLabel(labels []Label, text string) (Label, bool) {
	i := slices.IndexFunc(labels, func(l Label) bool { return l.Name == text || strconv.Itoa(l.Index) == text })
	if i < 0 {
		return Label{}, false
	}
	return labels[i], true
}

// Hex is the colour as upstream writes it: 0xRRGGBB.
func (l Label) Hex() string { return fmt.Sprintf("0x%06x", l.Color) }
