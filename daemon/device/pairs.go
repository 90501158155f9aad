package device

import (
	"slices"
	"strings"
)

// Pair is one key='value' of a serialised device or assignment.
type Pair struct{ Key, Value string }

// ParsePairs reads key='value' pairs that are separated by one space, each
// key once; \' is a quote in a value (spec/admin-api.md §6.2).
func ParsePairs(text string) ([]Pair, error) {
	var pairs []Pair
	for text != "" {
		if len(pairs) > 0 {
			rest, ok := strings.CutPrefix(text, " ")
			if !ok {
				return nil, bad("one space is needed between two pairs")
			}
			text = rest
		}
		key, rest, ok := strings.Cut(text, "='")
		if !ok || key == "" {
			return nil, bad("a pair is key='value'")
		}
		for i := 0; i < len(key); i++ {
			if c := key[i]; c <= ' ' || c > '~' || strings.IndexByte("\"'`=", c) >= 0 {
				return nil, bad("%q is not a key", clip(key))
			}
		}
		if slices.ContainsFunc(pairs, func(p Pair) bool { return p.Key == key }) {
			return nil, bad("the key %q is there twice", clip(key))
		}
		value, rest, err := parseValue(rest)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, Pair{key, value})
		text = rest
	}
	return pairs, nil
}

// parseValue reads up to the closing quote.
func parseValue(text string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && text[i+1] == '\'':
			b.WriteByte('\'')
			i++
		case c == '\'':
			return b.String(), text[i+1:], nil
		case c < ' ' || c > '~':
			return "", "", bad("a value is printable ASCII")
		default:
			b.WriteByte(c)
		}
	}
	return "", "", bad("a value does not end")
}

// FormatPairs is the reverse of ParsePairs. A value must not end in a
// backslash, and none that ParsePairs has read does.
func FormatPairs(pairs []Pair) string {
	words := make([]string, 0, len(pairs))
	for _, p := range pairs {
		words = append(words, p.Key+"='"+strings.ReplaceAll(p.Value, "'", `\'`)+"'")
	}
	return strings.Join(words, " ")
}
