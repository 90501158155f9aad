package core_test

import (
	"strings"
	"testing"
	"unicode"

	"cubicle/daemon/core"
)

// Whatever a qube answers, what comes of it can be shown and be asked for.
func FuzzParseApps(f *testing.F) {
	for _, seed := range []string{
		"xterm.desktop:Name=XTerm\nxterm.desktop:Exec=qubes-desktop-run xterm.desktop\n\n",
		"a.desktop:Name=\u202egnp.exe\x1b[2J\na.desktop:Comment=" + strings.Repeat("long ", 100) + "\n",
		"../../etc/passwd.desktop:Name=x\n.desktop:Name=y\nx:y\n:=\n\xff\xfe.desktop:Name=\xff\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		apps := core.ParseApps(text)
		if len(apps) > 1000 {
			t.Fatalf("%d apps", len(apps))
		}
		for _, a := range apps {
			if a.ID == "" || strings.ContainsAny(a.ID, "/ \n;$") || a.Name == "" {
				t.Errorf("%+v", a)
			}
			for _, r := range a.Name + a.Comment {
				if !unicode.IsPrint(r) {
					t.Errorf("%q has %U", a.Name, r)
				}
			}
			if len([]rune(a.Name)) > 130 || len([]rune(a.Comment)) > 130 {
				t.Errorf("%d and %d runes", len([]rune(a.Name)), len([]rune(a.Comment)))
			}
		}
	})
}
