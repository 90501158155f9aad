package main_test

import (
	"strings"
	"testing"
)

// testDisposable runs a command in a disposable: it starts from its
// template's home, keeps nothing and is gone afterwards.
func (d *desktop) testDisposable(t *testing.T) {
	const base = "throw-away"
	if _, _, err := d.tool("qvm-create", "--label", "red", base); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _, _ = d.tool("qvm-kill", base) // where the test ended early it runs
		if _, _, err := d.tool("qvm-remove", "--force", base); err != nil {
			t.Error(err)
		}
	})
	d.inQube(t, base, "echo from the template > ~/note")
	for _, args := range [][]string{{"qvm-shutdown", "--wait", base}, {"qvm-prefs", base, "template_for_dispvms", "True"}} {
		if _, _, err := d.tool(args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	out, _, err := d.tool("qvm-run", "--pass-io", "--dispvm="+base, "--", "hostname; cat ~/note; echo mine > ~/note; cat ~/note")
	if err != nil {
		t.Fatal(err)
	}
	name, said, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(name, "disp") || said != "from the template\nmine\n" {
		t.Errorf("the disposable says %q", out)
	}
	eventually(t, func() string {
		list, _, err := d.tool("qvm-ls", "--raw-list")
		if err != nil {
			return err.Error()
		}
		if strings.Contains(list, name) {
			return name + " is still there"
		}
		return ""
	})
	if got := d.inQube(t, base, "cat ~/note"); got != "from the template" {
		t.Errorf("the template's home was changed: %q", got)
	}
	if _, _, err := d.tool("qvm-kill", base); err != nil {
		t.Error(err)
	}
}
