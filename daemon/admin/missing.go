package admin

import (
	"context"

	"cubicle/daemon/core"
)

// missingMethods are all methods of spec/admin-api.md §2 that need a part
// which this system has not. They check their arguments like every other
// method, and then say what is missing. Beside them stand what single methods
// cannot: a disposable that is started in advance (admin.vm.CreateDisposable),
// volumes encrypted with a key that is thrown away (noEphemeral), and devices
// that are attached (core.NoDevices).
func missingMethods() map[string]method {
	const backups = "there are no backups yet"
	return map[string]method{
		"admin.backup.Execute": {onDom0, needed, absent, notBuilt(backups)},
		"admin.backup.Info":    {onDom0, needed, absent, notBuilt(backups)},
		"admin.backup.Cancel":  {onDom0, needed, absent, notBuilt(backups)},
		"admin.vm.Console":     {onAny, absent, absent, console},
	}
}

func notBuilt(why string) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		return "", core.Failf(core.NotImplemented, "%s is not built: %s", c.req.Method, why)
	}
}

func console(ctx context.Context, c *call) (string, error) {
	if c.dest.XID() < 0 {
		return "", core.Failf(core.NotRunning, "%s is not running", c.dest.Name())
	}
	return notBuilt("a sandbox's console is a log and no terminal")(ctx, c)
}
