// Package actions gives file managers the entries "Copy to other qube", "Move
// to other qube", "Open in other qube" and "Open in disposable". Each of them
// has a format of its own; the files are laid down at each start in a folder
// of the running qube, and found by XDG_DATA_DIRS, so that neither the
// template nor the user's home is touched.
package actions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Dir is where a qube has the files: a data folder, behind those of the system.
const Dir = "/run/qubes/share"

// action is one entry.
type action struct {
	id      string
	name    string
	german  string
	icon    string
	command string // files follow
	many    bool   // takes several, and folders
}

var actions = [...]action{
	{"copy", "Copy to other qube…", "In andere Qube kopieren …", "edit-copy", "qvm-copy --gui", true},
	{"move", "Move to other qube…", "In andere Qube verschieben …", "edit-cut", "qvm-move --gui", true},
	{"open-in-disposable", "Open in disposable qube", "In Wegwerf-Qube öffnen", "document-open", "qvm-open-in-dvm --gui", false},
	{"view-in-disposable", "View in disposable qube", "In Wegwerf-Qube ansehen", "document-open", "qvm-open-in-dvm --gui --view-only", false},
	{"open-in-qube", "Open in other qube…", "In anderer Qube öffnen …", "document-open", "qvm-open-in-vm --gui @default", false},
}

// files returns all files by their path below Dir.
func files() map[string]string {
	all := make(map[string]string)
	var kde, kdeNames, kdeOne, kdeOneNames strings.Builder
	for _, a := range actions {
		code := "%f"
		if a.many {
			code = "%F"
		}
		// Thunar's menu "Send To".
		all["Thunar/sendto/qubes-"+a.id+".desktop"] = fmt.Sprintf(`[Desktop Entry]
Type=Application
Version=1.0
Name=%s
Name[de]=%s
Icon=%s
Exec=%s %s
`, a.name, a.german, a.icon, a.command, code)

		// Nemo's actions.
		selection, extensions := "s", "nodirs"
		if a.many {
			selection, extensions = "notnone", "any"
		}
		all["nemo/actions/qubes-"+a.id+".nemo_action"] = fmt.Sprintf(`[Nemo Action]
Active=true
Name=%s
Name[de]=%s
Icon-Name=%s
Exec=%s %%F
Selection=%s
Extensions=%s;
Quote=double
`, a.name, a.german, a.icon, a.command, selection, extensions)

		// KDE's service menus: one for files and folders, one for a file.
		menu, names := &kdeOne, &kdeOneNames
		if a.many {
			menu, names = &kde, &kdeNames
		}
		fmt.Fprintf(names, "%s;", a.id)
		fmt.Fprintf(menu, "\n[Desktop Action %s]\nName=%s\nName[de]=%s\nIcon=%s\nExec=%s %s\n", a.id, a.name, a.german, a.icon, a.command, code)
	}
	for _, m := range []struct{ file, types, names, entries string }{
		{"qubes", "all/all;", kdeNames.String(), kde.String()},
		{"qubes-file", "all/allfiles;", kdeOneNames.String(), kdeOne.String()},
	} {
		menu := fmt.Sprintf("[Desktop Entry]\nType=Service\nX-KDE-ServiceTypes=KonqPopupMenu/Plugin\nX-KDE-Protocols=file\nMimeType=%s\nActions=%s\n%s", m.types, m.names, m.entries)
		all["kio/servicemenus/"+m.file+".desktop"] = menu
		all["kservices5/ServiceMenus/"+m.file+".desktop"] = menu
	}
	return all
}

// LayDown writes the files into dir, which is Dir in a qube.
func LayDown(dir string) error {
	var errs []error
	for name, text := range files() {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
