package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFoldersInAFolder(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  []string
	}{
		{nil, []string{"."}},
		{[]string{"30-user.policy"}, []string{"."}},
		{[]string{"30-user.policy", "run/x", "policy.d/x"}, []string{"."}},
		{[]string{"policy.d/30-user.policy"}, []string{"policy.d"}},
		{[]string{"policy.d/30-user.policy", "run/x", "legacy/x"}, []string{"policy.d", "run"}},
		{[]string{"run/30-user.policy"}, []string{"run"}},
		{[]string{"policy.d"}, []string{"."}},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := DirsIn(dir)
		var want []string
		for _, w := range c.want {
			want = append(want, filepath.Join(dir, w))
		}
		if err != nil || !slices.Equal(got.Policy, want) || got.Legacy != filepath.Join(dir, "legacy") {
			t.Errorf("%v: %+v, %v", c.files, got, err)
		}
	}
	if _, err := DirsIn(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("there is none")
	}
}

func TestLint(t *testing.T) {
	dir := t.TempDir()
	dirs := write(t, dir, map[string]string{"policy.d/include/part": "t.Svc * work\n", "policy.d/90-other.policy": "junk\n"})
	at := func(name string) string { return filepath.Join(dirs.Policy[0], name) }
	for _, c := range []struct {
		name, text string
		old        bool
		want       string // parts of the message, separated by |; empty: no fault
	}{
		{"30-user.policy", "t.Svc * work mail allow\n", false, ""},
		{"30-user.policy", "", false, ""},
		{"30-user.policy", "t.Svc * work mail permit\n\nx\n", false, `30-user.policy:1: |no action "permit"|30-user.policy:3: `},
		{"30-user.policy", "!include include/part\n", false, "include/part:1: "},
		{"30-User.policy", "", false, "30-User.policy: "},
		{"include/new", "$anyvm mail ask,default_target=mail\n", true, ""},
		{"include/new", "$anyvm mail\n", true, "include/new:1: "},
		{"include/new", "work mail allow\n", false, "include/new:1: "},
	} {
		err := Lint(dirs, at(c.name), []byte(c.text), c.old)
		if (err == nil) != (c.want == "") {
			t.Errorf("%s %q: %v", c.name, c.text, err)
			continue
		}
		for part := range strings.SplitSeq(c.want, "|") {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%s %q: %v", c.name, c.text, err)
			}
		}
	}
}
