package words

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// texts are the literals that the windows pass to T and N, below app/.
func texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{} // text → where
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch f := call.Fun.(type) {
			case *ast.SelectorExpr:
				if x, ok := f.X.(*ast.Ident); ok && x.Name == "words" {
					name = f.Sel.Name
				}
			case *ast.Ident:
				if file.Name.Name == "words" {
					name = f.Name
				}
			}
			var keys []ast.Expr
			switch {
			case name == "T":
				keys = call.Args[:1]
			case name == "N":
				keys = call.Args[1:3]
			}
			for _, k := range keys {
				where := set.Position(k.Pos()).String()
				lit, ok := k.(*ast.BasicLit)
				if !ok {
					if file.Name.Name != "words" {
						t.Errorf("%s: the text is not a literal, so no catalogue can have it", where)
					}
					continue
				}
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Errorf("%s: %v", where, err)
				}
				found[text] = where
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var verbs = regexp.MustCompile(`%(\[\d+\])?[a-z%]`)

// Every text of the windows is in every catalogue, with the same figures in
// it; and a catalogue has no text that nobody shows.
func TestCataloguesAreComplete(t *testing.T) {
	used := texts(t)
	if len(used) < 100 {
		t.Fatalf("only %d texts found: the search is broken", len(used))
	}
	for _, language := range Languages() {
		raw, err := files.ReadFile(language + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var catalogue map[string]string
		if err := json.Unmarshal(raw, &catalogue); err != nil {
			t.Fatalf("%s.json: %v", language, err)
		}
		for _, text := range slices.Sorted(maps.Keys(used)) {
			if catalogue[text] == "" {
				t.Errorf("%s.json has no %q (%s)", language, text, used[text])
			}
		}
		daemon := FromDaemon()
		for _, text := range slices.Sorted(maps.Keys(catalogue)) {
			if _, ok := used[text]; !ok && !slices.Contains(daemon, text) {
				t.Errorf("%s.json has %q, which no window says", language, text)
			}
			want, got := verbs.FindAllString(text, -1), verbs.FindAllString(catalogue[text], -1)
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) && !strings.Contains(catalogue[text], "%[") {
				t.Errorf("%s.json: %q has the figures %v, %q has %v", language, text, want, catalogue[text], got)
			}
		}
		for _, text := range daemon {
			if catalogue[text] == "" {
				t.Errorf("%s.json has no %q of the daemon's", language, text)
			}
		}
	}
}

func TestTheLocaleChoosesTheLanguage(t *testing.T) {
	for locale, want := range map[string]string{
		"de_DE.UTF-8": "de", "de": "de", "de.UTF-8": "de", "DE_at": "de", "en_GB.UTF-8": "en", "C.UTF-8": "en", "": "en", "../de": "en", "xx": "en",
	} {
		if got := load(locale).language; got != want {
			t.Errorf("%q is %s, want %s", locale, got, want)
		}
	}
	t.Setenv("LANG", "en_US.UTF-8")
	t.Setenv("LC_ALL", "")
	t.Setenv("LC_MESSAGES", "de_DE.UTF-8")
	if got := FromEnvironment(); got != "de_DE.UTF-8" {
		t.Errorf("the environment says %q", got)
	}
}

func TestTextsHaveTheirFigures(t *testing.T) {
	defer Use("en")
	Use("en")
	if got := N(1, "%d qube", "%d qubes") + ", " + N(2, "%d qube", "%d qubes"); got != "1 qube, 2 qubes" {
		t.Error(got)
	}
	Use("de_DE")
	if got := T("Start"); got != "Starten" {
		t.Error(got)
	}
	if got := T("100 % sure of %s"); got != "100 % sure of %s" {
		t.Errorf("a text without figures became %q", got)
	}
}
