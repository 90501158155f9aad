package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// reading are the last words of methods that change nothing.
var reading = []string{
	"List", "Get", "GetAll", "GetDefault", "Help", "Index", "Info", "ListDrivers", "ListSnapshots", "UsageDetails", "CurrentState",
	"CheckWithTemplate", "CheckWithNetvm", "CheckWithAdminVM", "CheckWithTemplateAndAdminVM",
	"Available", "Assigned", "Attached", "Events", "Stats",
}

// ofAll begin the names of methods that concern all qubes. The others concern
// the one they are called on.
var ofAll = []string{
	"admin.vmclass.", "admin.deviceclass.", "admin.label.", "admin.property.", "admin.pool.", "admin.Events",
	"admin.backup.Execute", "admin.backup.Cancel",
	"admin.vm.List", "admin.vm.Stats", "admin.vm.Create", "admin.vm.Remove",
}

// rights names the file of the default policy that says who may call a method
// (spec/admin-api.md §2, the column Cls).
func rights(method string) string {
	scope, may := "local", "rwx"
	if slices.ContainsFunc(ofAll, func(begin string) bool { return strings.HasPrefix(method, begin) }) {
		scope = "global"
	}
	if slices.Contains(reading, method[strings.LastIndexByte(method, '.')+1:]) {
		may = "ro"
	}
	return "include/admin-" + scope + "-" + may
}

// DefaultPolicy is the file 90-admin-default.policy: a line a method of the
// Admin API.
func DefaultPolicy() string {
	var b strings.Builder
	b.WriteString("# Who may call the Admin API: a line a method, written from the table of\n" +
		"# methods. The files in include name nobody unless you change them.\n\n")
	for _, name := range slices.Sorted(maps.Keys(table(Public))) {
		if strings.HasPrefix(name, "admin.") {
			fmt.Fprintf(&b, "!include-service %-52s * %s\n", name, rights(name))
		}
	}
	return b.String()
}
