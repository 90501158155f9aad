package desktop

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestArgv(t *testing.T) {
	for _, c := range []struct {
		exec string
		want []string // nil: an error
	}{
		{`xterm`, []string{"xterm"}},
		{`mousepad %F`, []string{"mousepad"}},
		{`app --url=%u x`, []string{"app", "--url=", "x"}},
		{`"/opt/my app/run" "a \"quoted\" \$word" %%`, []string{"/opt/my app/run", `a "quoted" $word`, "%"}},
		{`app %i %c %k`, []string{"app", "--icon", "the-icon", "The Name", "/x/a.desktop"}},
		{`app ""`, []string{"app", ""}},
		{`app  two\sblanks`, []string{"app", "two", "blanks"}}, // \s is a blank before Exec is split
		{`sh -c "echo \\\\$HOME"`, []string{"sh", "-c", `echo \$HOME`}},
		{`"open`, nil},
		{`app %z`, nil},
		{`app %`, nil},
		{`%U`, nil},
		{``, nil},
	} {
		e, err := Parse(strings.NewReader("[Desktop Entry]\nName=The Name\nIcon=the-icon\nExec=" + c.exec + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		e.Path = "/x/a.desktop"
		got, err := e.Argv()
		if (err != nil) != (c.want == nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.exec, got, err, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	e, err := Parse(strings.NewReader("# comment\n\n[Desktop Entry]\nName = A\\sb\nName[de]=X\nExec=x\nTerminal=true\nPath=/tmp\nCategories=A;B;\n" +
		"no value\n[Desktop Action new]\nExec=other\n"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Name != "A b" || e.Exec != "x" || !e.Terminal || e.Dir != "/tmp" || !slices.Equal(e.Categories, []string{"A", "B"}) {
		t.Errorf("%+v", e)
	}
	if _, err := Parse(strings.NewReader("[Other]\nName=x\n")); err == nil {
		t.Error("a file without the group was taken")
	}
}

func TestFind(t *testing.T) {
	home, system := t.TempDir(), t.TempDir()
	apps := func(dir, name string) string { return filepath.Join(dir, "applications", name) }
	write(t, apps(system, "a.desktop"), "[Desktop Entry]\nExec=system\n")
	write(t, apps(system, "org-kde/sub/b.desktop"), "[Desktop Entry]\nExec=b\n")
	write(t, apps(system, "gone.desktop"), "[Desktop Entry]\nExec=x\n")
	write(t, apps(home, "a.desktop"), "[Desktop Entry]\nExec=home\n")
	write(t, apps(home, "gone.desktop"), "[Desktop Entry]\nHidden=true\n")
	write(t, filepath.Join(system, "secret.desktop"), "[Desktop Entry]\nExec=secret\n")
	dirs := []string{filepath.Join(home, "none"), home, system}
	for id, want := range map[string]string{
		"a": "home", "a.desktop": "home", "org-kde-sub-b": "b", "gone": "", "nothing": "", "..-secret": "",
	} {
		e, err := Find(dirs, id)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if (e == nil) != (want == "") || e != nil && e.Exec != want {
			t.Errorf("%s: %+v, want %q", id, e, want)
		}
	}
	for _, id := range []string{"", "../secret", "a\x00"} {
		if e, err := Find(dirs, id); err == nil {
			t.Errorf("%q: %+v", id, e)
		}
	}
}

func TestList(t *testing.T) {
	home, system := t.TempDir(), t.TempDir()
	write(t, filepath.Join(system, "applications/b.desktop"), "[Desktop Entry]\nName=System\nExec=b %U\n[Desktop Action x]\nName=no\n")
	write(t, filepath.Join(system, "applications/k/a.desktop"), "[Desktop Entry]\nName=A\nExec=a\n")
	write(t, filepath.Join(system, "applications/hidden.desktop"), "[Desktop Entry]\nName=H\nNoDisplay=true\n")
	write(t, filepath.Join(system, "applications/saver.desktop"), "[Desktop Entry]\nName=S\nCategories=Screensaver;\n")
	write(t, filepath.Join(system, "applications/broken.desktop"), "nothing\n")
	write(t, filepath.Join(home, "applications/b.desktop"), "[Desktop Entry]\nName=Home\nExec=b\n")
	var got strings.Builder
	err := List([]string{home, filepath.Join(home, "none"), system}, func(id string, lines []string) error {
		got.WriteString(id + ": " + strings.Join(lines, ", ") + "\n")
		return nil
	})
	want := "b: Name=Home, Exec=qubes-desktop-run b.desktop\nk-a: Name=A, Exec=qubes-desktop-run k-a.desktop\n"
	if err != nil || got.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, &got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[Desktop Entry]\nName=A\\sb\nExec=\"a \\\" b\" %U %c %% %i\nIcon=i\nTerminal=true\n")
	f.Add("[Desktop Entry]\nExec=\\")
	f.Add("[Desktop Entry]\nExec=%")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		argv, err := e.Argv()
		if err == nil && (len(argv) == 0 || argv[0] == "") {
			t.Fatalf("%q gives the command line %q", e.Exec, argv)
		}
	})
}
