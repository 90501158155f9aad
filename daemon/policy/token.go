package policy

import (
	"fmt"
	"strings"
)

// kind is the kind of a token in a rule (spec/policy.md §3).
type kind uint8

const (
	byName     kind = iota // a qube's name
	byUUID                 // uuid:U
	everything             // *
	anyVM                  // every qube but dom0, and the keywords
	adminVM                // dom0, by whatever name
	byType                 // @type:CLASS
	byTag                  // @tag:TAG
	noTarget               // @default
	dispVM                 // @dispvm
	dispVMOf               // @dispvm:NAME, @dispvm:uuid:U
	dispVMTag              // @dispvm:@tag:TAG
)

// token is a word of a rule that stands for qubes.
type token struct {
	kind  kind
	value string // name, UUID, class or tag; of dispVMOf the base as written
}

// place is where a token stands in a rule.
type place string

const (
	inSource   place = "source"
	inTarget   place = "target"
	inRedirect place = "target="
	inDefault  place = "default_target="
)

// nilUUID is dom0's.
const nilUUID = "00000000-0000-0000-0000-000000000000"

// parseToken reads a token for a place. Names need not exist.
func parseToken(text string, at place) (token, error) {
	t, ok := readToken(text)
	if !ok {
		return token{}, fmt.Errorf("%s: %q means no qubes", at, cut(text))
	}
	fits := true
	switch t.kind {
	case everything, anyVM, byType, byTag, dispVMTag:
		fits = at == inSource || at == inTarget
	case noTarget:
		fits = at == inTarget
	case dispVM:
		fits = at != inSource
	}
	if !fits {
		return token{}, fmt.Errorf("%s: %q cannot stand here", at, cut(text))
	}
	return t, nil
}

func readToken(text string) (token, bool) {
	switch text {
	case "":
		return token{}, false
	case "*":
		return token{kind: everything}, true
	case "@anyvm":
		return token{kind: anyVM}, true
	case "@adminvm", "dom0", "uuid:" + nilUUID:
		return token{kind: adminVM}, true
	case "@default":
		return token{kind: noTarget}, true
	case "@dispvm":
		return token{kind: dispVM}, true
	}
	for _, p := range []struct {
		prefix string
		kind   kind
	}{{"@type:", byType}, {"@tag:", byTag}, {"@dispvm:@tag:", dispVMTag}, {"@dispvm:", dispVMOf}, {"uuid:", byUUID}} {
		value, ok := strings.CutPrefix(text, p.prefix)
		if !ok {
			continue
		}
		// The base of a disposable is a plain word.
		wrong := value == "" && p.kind != byUUID || p.kind == dispVMOf && (value == "*" || strings.HasPrefix(value, "@"))
		return token{p.kind, value}, !wrong
	}
	return token{byName, text}, text[0] != '@'
}

// cut shortens a foreign text for a message.
func cut(text string) string {
	const most = 80
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
