package admin

import (
	"io/fs"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cubicle/assets"
)

func TestRightsAreTheSpecifications(t *testing.T) {
	for method, want := range map[string]string{
		"admin.vm.List": "global-ro", "admin.Events": "global-ro", "admin.vm.Stats": "global-ro", "admin.vmclass.List": "global-ro",
		"admin.label.Create": "global-rwx", "admin.pool.UsageDetails": "global-ro", "admin.pool.Set.revisions_to_keep": "global-rwx",
		"admin.property.Get": "global-ro", "admin.property.Set": "global-rwx", "admin.backup.Execute": "global-rwx", "admin.backup.Info": "local-ro",
		"admin.backup.Cancel": "global-rwx", "admin.vm.Create.AppVM": "global-rwx", "admin.vm.CreateInPool.AppVM": "global-rwx",
		"admin.vm.CreateDisposable": "global-rwx", "admin.vm.Remove": "global-rwx", "admin.vm.Start": "local-rwx", "admin.vm.CurrentState": "local-ro",
		"admin.vm.Console": "local-rwx", "admin.vm.notes.Get": "local-ro", "admin.vm.notes.Set": "local-rwx", "admin.vm.property.GetAll": "local-ro",
		"admin.vm.feature.CheckWithNetvm": "local-ro", "admin.vm.firewall.Reload": "local-rwx", "admin.vm.volume.CloneFrom": "local-rwx",
		"admin.vm.volume.ListSnapshots": "local-ro", "admin.vm.device.block.Available": "local-ro", "admin.vm.device.block.Attach": "local-rwx",
		"admin.vm.device.denied.List": "local-ro", "admin.vm.device.usb.Set.assignment": "local-rwx",
	} {
		if got := rights(method); got != "include/admin-"+want {
			t.Errorf("%s: %s, want %s", method, got, want)
		}
		if _, ok := table(Public)[method]; !ok {
			t.Errorf("there is no %s", method)
		}
	}
}

// The default policy in assets is what the table says; -update writes it.
func TestDefaultPolicyNamesEveryMethod(t *testing.T) {
	const name = "90-admin-default.policy"
	if *update {
		if err := os.WriteFile("../../assets/policy.d/"+name, []byte(DefaultPolicy()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := fs.ReadFile(assets.Policy(), name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(got), DefaultPolicy()); d != "" {
		t.Error(d)
	}
}
