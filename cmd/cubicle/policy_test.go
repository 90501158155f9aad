package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testPolicy changes the policy and lets a qube use the Admin API: it sees and
// does what the policy lets it, at once after each change, and while a file is
// wrong nothing is allowed.
func (d *desktop) testPolicy(t *testing.T) {
	old, _, err := d.tool("qvm-policy", "get", "30-user")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rules := func(text string) {
		t.Helper()
		file := filepath.Join(dir, "rules")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.tool("qvm-policy", "replace", "30-user", file); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { rules(old) }()
	const tools = "PATH=$PATH:/usr/lib/cubicle/admin; "

	if got := d.inQube(t, "work", tools+"qvm-ls --raw-list 2>&1; echo status $?"); !strings.HasSuffix(got, "does not allow admin.vm.List on dom0\nstatus 1") {
		t.Errorf("by the default policy: %q", got)
	}
	list := "admin.vm.List * work @adminvm allow target=dom0\nadmin.vm.List * work untrusted allow target=dom0\n"
	rules(list)
	if got := d.inQube(t, "work", tools+"qvm-ls --raw-list"); got != "dom0\nuntrusted" {
		t.Errorf("two qubes may be seen: %q", got)
	}
	if got := d.inQube(t, "untrusted", tools+"qvm-ls --raw-list 2>&1 || true"); strings.Contains(got, "work") {
		t.Errorf("a qube without a rule sees %q", got)
	}
	rules(list + "admin.vm.List * work vault allow target=dom0\nadmin.vm.property.Get * work vault allow target=dom0\n" +
		"admin.vm.tag.Set +mine work vault allow target=dom0\npolicy.Get +30-user work dom0 allow target=dom0\n")
	if got := d.inQube(t, "work", tools+"qvm-ls --raw-data -O name,label vault untrusted; qvm-tags vault add mine; qvm-tags vault add other || echo no"); got != "untrusted|-\nvault|black\nno" {
		t.Errorf("with more rights: %q", got)
	}
	if got, _, err := d.tool("qvm-tags", "vault", "list", "mine", "other"); err == nil || strings.TrimSpace(got) != "mine" {
		t.Errorf("tags: %q, %v", got, err)
	}
	if _, _, err := d.tool("qvm-tags", "vault", "del", "mine"); err != nil {
		t.Error(err)
	}
	// Bare, as upstream's clients expect it, and with a status.
	if got := d.inQube(t, "work", "qrexec-client-vm dom0 policy.Get+30-user | sed 1d | head -n 2; qrexec-client-vm dom0 policy.Get+90-default 2>&1; echo status $?"); got !=
		strings.TrimSpace(list)+"\nRequest refused\nstatus 126" {
		t.Errorf("the policy's file is %q", got)
	}

	// A service may let its caller's argument in, and no other.
	rules("policy.RegisterArgument +t.Key untrusted work allow target=dom0\n")
	if got := d.inQube(t, "untrusted", "printf 0123 | qrexec-client-vm work policy.RegisterArgument+t.Key; echo $?; printf 4567 | qrexec-client-vm work policy.RegisterArgument+t.Key; echo $?; "+
		"printf 0123 | qrexec-client-vm work policy.RegisterArgument+t.Key 2>&1; echo $?; printf 0123 | qrexec-client-vm vault policy.RegisterArgument+t.Key 2>&1; echo $?"); !strings.HasPrefix(got, "0\n0\n") ||
		!strings.Contains(got, "has a rule already") || !strings.HasSuffix(got, "Request refused\n126") {
		t.Errorf("arguments are registered: %q", got)
	}
	if got, _, err := d.tool("qvm-policy", "get", "60-registered-arguments"); err != nil || got != "t.Key +0123 work untrusted allow\nt.Key +4567 work untrusted allow\n" {
		t.Errorf("registered: %q, %v", got, err)
	}
	if _, _, err := d.tool("qvm-policy", "remove", "60-registered-arguments"); err != nil {
		t.Error(err)
	}
	rules(list + "admin.vm.List * work vault allow target=dom0\n")

	broken := filepath.Join(d.root, "etc/qubes/policy.d/40-broken.policy")
	if err := os.WriteFile(broken, []byte("admin.vm.List * work @adminvm\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, status, _ := d.tool("qvm-policy", "explain", "work", "dom0", "admin.vm.List"); status != 1 || !strings.Contains(said, "40-broken.policy:1: ") {
		t.Errorf("explained: %q, status %d", said, status)
	}
	eventually(t, func() string {
		got := d.inQube(t, "work", tools+"qvm-ls --raw-list 2>&1 || true")
		if !strings.Contains(got, "does not allow") {
			return "a broken policy allows: " + got
		}
		return ""
	})
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if got := d.inQube(t, "work", tools+"qvm-ls --raw-list 2>&1 || true"); got != "dom0\nuntrusted\nvault" {
			return "a mended policy: " + got
		}
		return ""
	})
}

// testCopyFromDom0 copies and moves files of dom0 into a qube.
func (d *desktop) testCopyFromDom0(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tree/a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"tree/a/file": "one\n", "tree/tool": "#!/bin/sh\necho two\n", "alone": strings.Repeat("0123456789abcdef", 1<<16)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a/file", filepath.Join(dir, "tree/link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.tool("qvm-copy-to-vm", "untrusted", filepath.Join(dir, "tree"), filepath.Join(dir, "alone")); err != nil {
		t.Fatal(err)
	}
	if got := d.inQube(t, "untrusted", "cd ~/QubesIncoming/dom0 && cat tree/link && tree/tool && wc -c < alone && readlink tree/link"); got != "one\ntwo\n1048576\na/file" {
		t.Errorf("in the qube: %q", got)
	}
	if _, status, err := d.tool("qvm-move-to-vm", "untrusted", filepath.Join(dir, "alone")); status != 1 || err == nil || !strings.Contains(err.Error(), `"alone" is there already`) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "alone")); err != nil {
		t.Errorf("what did not arrive: %v", err)
	}
	d.inQube(t, "untrusted", "rm -r ~/QubesIncoming/dom0")
	if _, _, err := d.tool("qvm-move-to-vm", "untrusted", filepath.Join(dir, "alone")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "alone")); !os.IsNotExist(err) {
		t.Errorf("what was moved: %v", err)
	}
	d.inQube(t, "untrusted", "rm -r ~/QubesIncoming/dom0")
}
