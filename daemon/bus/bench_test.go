package bus

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/godbus/dbus/v5"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
)

// BenchmarkGetManagedObjects takes the snapshot of 500 qubes through a bus.
// The project's aim is less than 100 ms.
func BenchmarkGetManagedObjects(b *testing.B) {
	s, address := coretest.NewSystem(b), daemon(b)
	for i := range 500 {
		job, err := s.Core.Create(core.NewQube{Name: fmt.Sprintf("qube%d", i), Class: "AppVM", Label: "blue", Creator: "dom0"})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Core.Wait(context.Background(), job); err != nil {
			b.Fatal(err)
		}
	}
	serve(b, s.Core, address, os.Getuid())
	conn := raw(b, address)
	b.ResetTimer()
	for b.Loop() {
		var all map[dbus.ObjectPath]map[string]map[string]dbus.Variant
		if err := conn.Object(client.BusName, client.RootPath).Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&all); err != nil {
			b.Fatal(err)
		}
		if len(all) < 500 {
			b.Fatal(len(all))
		}
	}
}
