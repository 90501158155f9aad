// Package words holds the texts of the windows: English in the code, other
// languages in a catalogue beside it, keyed by the English text.
//
// The language belongs to the process, as Fyne's theme does: it is read from
// the environment when the first text is asked for, and Use changes it.
package words

import (
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

//go:embed *.json
var files embed.FS

// catalogue is one language; the zero value is English.
type catalogue struct {
	language string
	texts    map[string]string
}

// chosen is the language in use; nil until somebody asks.
var chosen atomic.Pointer[catalogue]

// Languages are those that there is a catalogue of, besides English.
func Languages() []string { return []string{"de"} }

// Use changes the language: "de", "de_AT.UTF-8" …; English where there is no
// catalogue of it.
func Use(locale string) { chosen.Store(load(locale)) }

// FromEnvironment is the locale of messages, as setlocale(3) finds it.
func FromEnvironment() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

func load(locale string) *catalogue {
	language, _, _ := strings.Cut(strings.ToLower(locale), "_")
	language, _, _ = strings.Cut(language, ".")
	raw, err := files.ReadFile(language + ".json")
	if err != nil {
		return &catalogue{language: "en"}
	}
	c := &catalogue{language: language}
	if err := json.Unmarshal(raw, &c.texts); err != nil {
		return &catalogue{language: "en"} // a test reads every file
	}
	return c
}

func current() *catalogue {
	c := chosen.Load()
	if c == nil {
		c = load(FromEnvironment())
		chosen.CompareAndSwap(nil, c)
	}
	return c
}

// Language is the one in use, such as "en".
func Language() string { return current().language }

// T is a text in the language in use, with its figures filled in as
// fmt.Sprintf does.
func T(text string, values ...any) string {
	if local, ok := current().texts[text]; ok {
		text = local
	}
	if len(values) == 0 {
		return text
	}
	return fmt.Sprintf(text, values...)
}

// N is one for exactly one, else many, with n filled in.
func N(n int, one, many string) string {
	if n == 1 {
		return T(one, n)
	}
	return T(many, n)
}

// Known is a text of the daemon's in the language in use, or as it is.
func Known(text string) string {
	if local, ok := current().texts[text]; ok {
		return local
	}
	return text
}
