package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// leaves import no package of ours but leaves.
var leaves = []string{
	"daemon/device", "daemon/durable", "daemon/network/firewall", "daemon/paths", "daemon/policy", "daemon/qube", "daemon/vchan", "daemon/seccomp",
	"daemon/qrexec/wire", "daemon/qrexec/control", "daemon/qrexec/service", "daemon/qrexec/filecopy", "daemon/qrexec/filecopy/send", "daemon/qubesdb", "daemon/qubesdb/tool",
	"daemon/bus/client",
	"guid/wire", "guid/x11", "guid/x11/x11test",
	"app/words", "theme/label",
}

// rules say for a folder which of our packages it may import. The first rule
// whose folder fits decides; a name ending in "/" stands for a whole tree.
var rules = []struct {
	folder string
	may    []string
}{
	{"agents/", append([]string{"agents/"}, leaves...)},
	{"guid/", append([]string{"guid/"}, leaves...)},
	{"app/dom0/", append([]string{"app/dom0/"}, leaves...)},
	{"app/", []string{"app/", "theme/", "assets/"}},
	{"theme/", []string{"theme/", "assets/"}},
	{"assets/", []string{"assets/"}},
	{"daemon/", append([]string{"daemon/", "assets/"}, leaves...)},
}

// foreign says which folders alone may import a module from outside.
var foreign = []struct {
	module string
	may    []string
}{
	{"fyne.io/fyne/v2/app", []string{"cmd/"}},
	{"fyne.io/fyne/v2", []string{"app/", "theme/", "cmd/"}},
	{"github.com/BurntSushi/xgb", []string{"guid/x11/"}},
	{"libvirt.org/go/libvirt", []string{"daemon/engine/libvirt/"}},
}

// TestImports holds every file of ours against the house's rules
// (docs/ARCHITECTURE.md, "Who may import whom").
func TestImports(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
				return filepath.SkipDir // a module of its own
			}
			if strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(filepath.Dir(rel), name); why != "" {
				t.Errorf("%s imports %s: %s", rel, name, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestForbiddenImportsAreSeen(t *testing.T) {
	for _, bad := range [][2]string{
		{"daemon/core", "cubicle/app/manager"},
		{"daemon/core", "cubicle/guid/window"},
		{"daemon/core", "fyne.io/fyne/v2"},
		{"daemon/vchan", "cubicle/daemon/core"},
		{"agents/gui", "cubicle/daemon/core"},
		{"app/manager", "cubicle/daemon/bus/client"},
		{"app/manager", "fyne.io/fyne/v2/app"},
		{"guid/window", "github.com/BurntSushi/xgb/xproto"},
		{"app/manager", "cubicle/cmd/qvm"},
	} {
		if forbidden(bad[0], bad[1]) == "" {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
}

// forbidden tells why a file in folder must not import name, or "".
func forbidden(folder, name string) string {
	for _, f := range foreign {
		if name == f.module || strings.HasPrefix(name, f.module+"/") {
			if !fits(folder, f.may) {
				return "only " + strings.Join(f.may, ", ") + " may"
			}
			break
		}
	}
	ours, ok := strings.CutPrefix(name, "cubicle/")
	if !ok || fits(folder, []string{"cmd/"}) {
		return ""
	}
	if strings.HasPrefix(ours, "cmd/") {
		return "nobody imports cmd"
	}
	if slices.Contains(leaves, folder) {
		if !slices.Contains(leaves, ours) {
			return "a leaf imports leaves only"
		}
		return ""
	}
	for _, r := range rules {
		if fits(folder, []string{r.folder}) {
			if !fits(ours, r.may) {
				return "allowed are " + strings.Join(r.may, ", ")
			}
			return ""
		}
	}
	return "its folder has no rule"
}

func fits(folder string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		tree, isTree := strings.CutSuffix(n, "/")
		return folder == tree || isTree && strings.HasPrefix(folder, tree+"/")
	})
}
