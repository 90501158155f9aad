package defaults

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"cubicle/daemon/paths"
	"cubicle/daemon/policy"
)

func newRoot(t *testing.T) (paths.Root, policy.Dirs) {
	t.Helper()
	root := paths.Root(t.TempDir())
	kept, runtime, legacy := root.PolicyFiles()
	return root, policy.Dirs{Policy: []string{kept, runtime}, Legacy: legacy}
}

// The default policy decides as spec/services.md §1 says.
func TestDefaultPolicyDecidesAsTheServicesSay(t *testing.T) {
	root, dirs := newRoot(t)
	if err := Lay(root, os.Getegid()); err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(dirs)
	if err != nil {
		t.Fatal(err)
	}
	system, err := policy.NewSystem([]*policy.Domain{
		{Name: "dom0", UUID: "00000000-0000-0000-0000-000000000000", Class: "AdminVM", State: "Running"},
		{Name: "work", Class: "AppVM", State: "Running", GUIVM: "dom0", DefaultDispVM: "dvm"},
		{Name: "mail", Class: "AppVM", State: "Halted", GUIVM: "dom0", DefaultDispVM: "dvm"},
		{Name: "dvm", Class: "AppVM", State: "Halted", GUIVM: "dom0", Base: true, DefaultDispVM: "dvm"},
		{Name: "anon", Class: "AppVM", State: "Running", GUIVM: "dom0", Tags: []string{"anon-vm"}},
		{Name: "debian", Class: "TemplateVM", State: "Running", GUIVM: "dom0"},
		{Name: "whonix", Class: "TemplateVM", State: "Running", GUIVM: "dom0", Tags: []string{"whonix-updatevm"}},
		{Name: "sys-net", Class: "AppVM", State: "Running", GUIVM: "dom0"},
		{Name: "sys-usb", Class: "AppVM", State: "Running", GUIVM: "dom0"},
		{Name: "sys-whonix", Class: "AppVM", State: "Running", GUIVM: "dom0"},
		{Name: "restore", Class: "DispVM", State: "Running", GUIVM: "dom0", Tags: []string{"backup-restore-mgmt"}},
		{Name: "disk", Class: "AppVM", State: "Running", GUIVM: "dom0", Tags: []string{"backup-restore-storage"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// dom0 is not asked whether it may paste, it says so by a key.
	paste := policy.Request{Service: "qubes.ClipboardPaste", Argument: "+", Source: "dom0", Target: "mail"}
	if d := p.Decide(system, paste); !d.Permits(true) || d.Permits(false) {
		t.Errorf("dom0 pastes into mail: %+v", d)
	}
	for _, line := range strings.Split(strings.TrimSpace(`
qubes.Filecopy work mail ask
qubes.Filecopy+allow-all-names work @default ask
qubes.Filecopy work dom0 deny
qubes.OpenInVM work @dispvm allow @dispvm:dvm
qubes.OpenInVM work mail ask
qubes.OpenURL work @dispvm allow @dispvm:dvm
qubes.OpenURL work @default ask
qubes.StartApp+xterm work @dispvm allow @dispvm:dvm
qubes.StartApp+xterm work mail ask
qubes.StartApp+xterm work dom0 deny
qubes.VMShell work @dispvm allow @dispvm:dvm
qubes.VMShell work mail deny
qubes.VMShell+WaitForSession work mail deny
qubes.VMExec+ls work @dispvm allow @dispvm:dvm
qubes.VMExec+ls work mail deny
qubes.VMExecGUI+ls work @dispvm allow @dispvm:dvm
qubes.VMExecGUI+ls work mail deny
qubes.VMRootShell work @dispvm deny
qubes.VMRootShell work mail deny
qubes.VMRootExec+ls work @dispvm deny
qubes.GetImageRGBA work @dispvm allow @dispvm:dvm
qubes.GetImageRGBA work mail ask
qubes.PdfConvert work @dispvm allow @dispvm:dvm
qubes.PdfConvert work mail deny
qubes.ConnectTCP+80 work mail deny
qubes.UpdatesProxy whonix @default allow sys-whonix
qubes.UpdatesProxy whonix sys-net deny
qubes.UpdatesProxy debian @default allow sys-net
qubes.UpdatesProxy debian sys-whonix deny
qubes.UpdatesProxy work @default deny
qubes.GetDate work @default allow dom0
qubes.GetDate+nanoseconds work dom0 deny
qubes.GetDate anon @default deny
qubes.GetRandomizedTime work dom0 allow dom0
qubes.FeaturesRequest work dom0 allow dom0
qubes.NotifyTools work dom0 allow dom0
qubes.NotifyUpdates work dom0 allow dom0
qubes.NotifyUpdates work mail deny
qubes.SyncAppMenus debian dom0 allow dom0
qubes.Notifications work @default allow dom0
qubes.Notifications work mail deny
qubes.WindowIconUpdater work dom0 allow dom0
qubes.ClipboardPaste work mail ask
qubes.ReceiveUpdates sys-net dom0 allow dom0
qubes.repos.List work dom0 deny
qubes.Gpg work mail ask
qubes.GpgImportKey work mail ask
qubes.InputMouse sys-usb dom0 deny
qubes.InputKeyboard sys-usb mail deny
qubes.InputTablet sys-usb dom0 deny
qubes.USB+2-1 work sys-usb deny
u2f.Register work sys-usb allow sys-usb
u2f.Authenticate+0123 work sys-usb allow sys-usb
ctap.GetInfo work sys-usb allow sys-usb
ctap.ClientPin work mail deny
policy.RegisterArgument+u2f.Authenticate sys-usb work deny
policy.RegisterArgument+u2f.Authenticate sys-usb dom0 deny
qubes.RestoreById+12345678 restore disk allow disk
qubes.RestoreById+12345678 work disk deny
qubes.Backup work mail deny
admin.vm.List work dom0 deny
admin.vm.List work mail deny
admin.vm.property.GetAll work mail deny
policy.Replace+30-user work dom0 deny
any.Service work mail deny
`), "\n") {
		words := strings.Fields(line)
		if words[2] == "@default" {
			words[2] = ""
		}
		e := policy.Explain(p, system, policy.Question{Service: words[0], Source: words[1], Target: words[2]})
		if string(e.Result) != words[3] || len(words) > 4 && e.Target != words[4] {
			t.Errorf("%s: %s", line, e)
		}
		if loud := words[0] != "admin.vm.property.GetAll"; e.Result == policy.Result(policy.Deny) && e.Notify != loud {
			t.Errorf("%s: notify %v", line, e.Notify)
		}
	}
}

// Who is written into the include files may call the Admin API.
func TestIncludeFilesGiveRights(t *testing.T) {
	root, dirs := newRoot(t)
	if err := Lay(root, os.Getegid()); err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{"admin-local-rwx": "mgmt work allow target=dom0\n", "admin-global-ro": "mgmt @adminvm allow target=dom0\n",
		"admin-policy-rwx": "mgmt @adminvm allow target=dom0\n"} {
		if err := os.WriteFile(filepath.Join(dirs.Policy[0], "include", name), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := policy.Load(dirs)
	if err != nil {
		t.Fatal(err)
	}
	system, err := policy.NewSystem([]*policy.Domain{{Name: "dom0", Class: "AdminVM"}, {Name: "mgmt", UUID: "1"}, {Name: "work", UUID: "2"}})
	if err != nil {
		t.Fatal(err)
	}
	for call, want := range map[[2]string]policy.Action{
		{"admin.vm.Start", "work"}: policy.Allow, {"admin.vm.CurrentState", "work"}: policy.Allow, {"admin.vm.List", "dom0"}: policy.Allow,
		{"admin.label.Create", "dom0"}: policy.Deny, {"admin.vm.Remove", "work"}: policy.Deny, {"admin.vm.Start", "mgmt"}: policy.Deny,
		{"policy.Replace", "dom0"}: policy.Allow, {"policy.Get", "dom0"}: policy.Allow,
	} {
		if d := p.Decide(system, policy.Request{Service: call[0], Argument: "+", Source: "mgmt", Target: call[1]}); d.Action != want {
			t.Errorf("%v: %s %s", call, d.Action, d.Reason)
		}
	}
}

func TestWhatAPersonDidStays(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "include"), 0o755); err != nil {
		t.Fatal(err)
	}
	version := func(n string) fs.FS {
		from := fstest.MapFS{}
		for _, name := range []string{"theirs", "changed", "deleted", "untouched", "include/part"} {
			from[name] = &fstest.MapFile{Data: []byte(n)}
		}
		return from
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("theirs", "mine")
	step := func(n string, want map[string]string) {
		t.Helper()
		if err := lay(version(n), dir, false, os.Getegid()); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if text == "" {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("version %s: %s is back: %q, %v", n, name, got, err)
				}
			} else if string(got) != text {
				t.Errorf("version %s: %s is %q, %v, want %q", n, name, got, err, text)
			}
		}
	}
	step("1", map[string]string{"theirs": "mine", "changed": "1", "deleted": "1", "untouched": "1", "include/part": "1"})
	write("changed", "mine")
	if err := os.Remove(filepath.Join(dir, "deleted")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"theirs": "mine", "changed": "mine", "deleted": "", "untouched": "1", "include/part": "1"}
	step("1", want)
	want["untouched"], want["include/part"] = "2", "2"
	step("2", want)
	if err := os.Remove(filepath.Join(dir, "theirs")); err != nil {
		t.Fatal(err)
	}
	want["theirs"] = ""
	step("2", want)
	// Cut short before the record was written, it knows its own.
	if err := os.Remove(filepath.Join(dir, record)); err != nil {
		t.Fatal(err)
	}
	write("untouched", "3")
	write("theirs", "mine")
	want["theirs"], want["deleted"], want["untouched"], want["include/part"] = "mine", "3", "3", "2"
	step("3", want)
	want["deleted"], want["untouched"] = "4", "4"
	step("4", want)
}

// The folder of Qubes 4.0 is read where it exists.
func TestOldFolderIsRead(t *testing.T) {
	root, dirs := newRoot(t)
	for range 2 {
		if err := Lay(root, os.Getegid()); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(filepath.Join(dirs.Policy[0], compat))
		if there := isFolder(dirs.Legacy); (err == nil) != there {
			t.Errorf("folder %v, file %v", there, err)
		}
		if _, err := policy.Load(dirs); err != nil {
			t.Error(err)
		}
		if err := os.MkdirAll(dirs.Legacy, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
