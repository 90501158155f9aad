package admin

// What the methods need that answer QubesNotImplementedError.
const (
	needsBackups = "there are no backups yet"
	needsConsole = "a sandbox's console is a log and no terminal"
)

// missing are all methods of spec/admin-api.md §2 that are not built, and why.
func missing() map[string]string {
	return map[string]string{
		"admin.backup.Execute": needsBackups,
		"admin.backup.Info":    needsBackups,
		"admin.backup.Cancel":  needsBackups,
		"admin.vm.Console":     needsConsole,
	}
}
