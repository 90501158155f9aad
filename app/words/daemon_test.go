package words_test

import (
	"slices"
	"testing"

	"cubicle/app/words"
	"cubicle/daemon/qube"
)

// The property table explains itself in every language.
func TestThePropertyTableIsTranslated(t *testing.T) {
	known := words.FromDaemon()
	for _, class := range qube.Classes() {
		for _, row := range qube.Rows(class) {
			if !slices.Contains(known, row.Help) {
				t.Errorf("%s: %q has no translation", row.Name, row.Help)
			}
		}
	}
}
