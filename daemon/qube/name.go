// Package qube holds the nouns of the system: names, labels, classes, states
// and the table of properties. A value of one of these types has been
// checked; the parser is the only way to make one from foreign text.
package qube

import (
	"fmt"
	"strings"
)

// MaxName is the length limit of a qube's name in bytes (spec/admin-api.md §9).
const MaxName = 31

// Name is a qube's valid name.
type Name string

// Dom0 is the name of the administrative domain.
const Dom0 Name = "dom0"

// ParseName checks text against the rules of spec/admin-api.md §9: 1 to 31
// ASCII characters, a letter first, then letters, digits, '_', '.' and '-';
// not a reserved word and not ending in "-dm".
func ParseName(text string) (Name, error) {
	switch {
	case text == "":
		return "", &NameError{text, "a name is needed"}
	case len(text) > MaxName:
		return "", &NameError{text, fmt.Sprintf("longer than %d characters", MaxName)}
	case !isLetter(text[0]):
		return "", &NameError{text, "must begin with a letter"}
	}
	for i := 0; i < len(text); i++ {
		if c := text[i]; !isLetter(c) && (c < '0' || c > '9') && !strings.ContainsRune("_.-", rune(c)) {
			return "", &NameError{text, "only letters, digits, '_', '.' and '-' are allowed"}
		}
	}
	switch {
	case text == "Domain-0" || text == "none" || text == "default":
		return "", &NameError{text, "is a reserved word"}
	case strings.HasSuffix(text, "-dm"):
		return "", &NameError{text, "must not end in -dm"}
	}
	return Name(text), nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// NameError tells why a text is not a qube's name.
type NameError struct {
	Text string // as given: unchecked
	Why  string
}

func (e *NameError) Error() string {
	if e.Text == "" {
		return e.Why
	}
	return fmt.Sprintf("%q is not a valid qube name: %s", cut(e.Text), e.Why)
}

// cut shortens unchecked text for a message.
func cut(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
