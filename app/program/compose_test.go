package program_test

import (
	"os"
	"path/filepath"
	"testing"

	"cubicle/app/program"
)

func TestComposeSequencesAreKept(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		has  string // a file in the home
		want string // below the home
	}{
		"plain":            {want: "cache/cubicle/compose"},
		"a cache is set":   {set: map[string]string{"XCOMPOSECACHE": "/elsewhere"}, want: "/elsewhere"},
		"a file is named":  {set: map[string]string{"XCOMPOSEFILE": "/mine"}},
		"a cache is there": {has: ".compose-cache"},
		"own sequences":    {has: ".XCompose"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			for key, value := range map[string]string{"HOME": home, "XDG_CACHE_HOME": filepath.Join(home, "cache"), "XCOMPOSECACHE": "", "XCOMPOSEFILE": ""} {
				t.Setenv(key, value)
			}
			for key, value := range c.set {
				t.Setenv(key, value)
			}
			if c.has != "" {
				if err := os.WriteFile(filepath.Join(home, c.has), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := program.Compose(); err != nil {
				t.Fatal(err)
			}
			got := os.Getenv("XCOMPOSECACHE")
			want := c.want
			if want != "" && !filepath.IsAbs(want) {
				want = filepath.Join(home, want)
				if info, err := os.Stat(want); err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("the folder: %v, %v", info, err)
				}
			}
			if got != want {
				t.Errorf("kept in %q, want %q", got, want)
			}
		})
	}
}
