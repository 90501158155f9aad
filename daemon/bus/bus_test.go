package bus

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
)

var update = flag.Bool("update", false, "write the golden files anew")

// daemon starts a private bus.
func daemon(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address=1", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// serve runs the service until the returned function is called.
func serve(t testing.TB, c *core.Core, address string, uids ...int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	s := New(c, address, uids, slog.New(slog.DiscardHandler))
	go func() { done <- s.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func connect(t *testing.T, address string) (*client.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	c, err := client.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ctx
}

func raw(t testing.TB, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestClientFollowsAQubesLife(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	c, ctx := connect(t, address)
	events := c.Watch(ctx)
	first, ok := (<-events).(client.Connected)
	if !ok || len(first.Snapshot.Labels) != 8 || first.Snapshot.DefaultTemplate != "debian-12" || first.Snapshot.DefaultEngine != "test" ||
		len(first.Snapshot.Engines) != 1 || first.Snapshot.Engines[0].Weakness == "" {
		t.Fatalf("%+v", first)
	}
	if dom0, ok := first.Snapshot.Named("dom0"); !ok || dom0.Class != qube.AdminVM || dom0.XID != 0 || dom0.State != qube.Running {
		t.Errorf("%+v", dom0)
	}
	job, err := c.CreateQube(ctx, "work", "AppVM", "blue", map[string]string{"memory": "512"})
	if err != nil {
		t.Fatal(err)
	}
	if j, err := c.Wait(ctx, job); err != nil || j.State != client.JobDone || j.Qube != "work" {
		t.Fatalf("%+v, %v", j, err)
	}
	snap, err := c.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var work client.Qube
	work, _ = snap.Named("work") // the end of its job is told after it
	if work.LabelColor != 0x3465a4 || work.Memory != 512 || work.Template != "debian-12" || work.XID != -1 || work.Isolation != "none" {
		t.Errorf("%+v", work)
	}
	if job, err = c.Start(ctx, work.UUID); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e, ok := e.(client.QubeChanged); ok && e.Qube.Name == "work" {
			if e.Qube.State == qube.Running && e.Qube.XID >= 0x8000 && !e.Qube.StartTime.IsZero() {
				break
			}
		}
	}
	if _, err := c.Wait(ctx, job); err != nil {
		t.Error(err)
	}
	if err := c.SetProperty(ctx, work.UUID, "label", "red"); err != nil {
		t.Error(err)
	}
	for e := range events {
		if e, ok := e.(client.QubeChanged); ok && e.Qube.Label == "red" && e.Qube.LabelIndex == 1 {
			break
		}
	}
	if err := c.SetProperty(ctx, work.UUID, "memory", "lots"); client.ErrorName(err) != "QubesPropertyValueError" {
		t.Errorf("%v", err)
	}
	if _, err := c.Remove(ctx, work.UUID); client.ErrorName(err) != "QubesVMNotHaltedError" {
		t.Errorf("%v", err)
	}
	if v, err := c.Volumes(ctx, work.UUID); err != nil || len(v) != 3 || v[1]["name"] != "private" || v[1]["size"] != int64(2<<30) {
		t.Errorf("%v, %v", v, err)
	}
	for e := range events { // statistics come while somebody follows
		if e, ok := e.(client.QubeChanged); ok && e.Qube.MemoryUsed == 100<<20 {
			break
		}
	}
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	for _, act := range []func() (uint64, error){
		func() (uint64, error) { return c.Shutdown(ctx, work.UUID, false) },
		func() (uint64, error) { return c.Remove(ctx, work.UUID) },
	} {
		if job, err = act(); err == nil {
			_, err = c.Wait(ctx, job)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for e := range events {
		if e, ok := e.(client.QubeRemoved); ok && e.Qube.Name == "work" {
			break
		}
	}
	if _, err := c.Start(ctx, work.UUID); client.ErrorName(err) != "QubesVMNotFoundError" {
		t.Errorf("%v", err)
	}
}

func TestClientSurvivesTheDaemonsRestart(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	c, ctx := connect(t, address) // before there is a qubesd
	events := c.Watch(ctx)
	stop := serve(t, s.Core, address, os.Getuid())
	for range 2 {
		if e, ok := (<-events).(client.Connected); !ok || len(e.Snapshot.Qubes) != 2 {
			t.Fatalf("%T %+v", e, e)
		}
		stop()
		if e, ok := (<-events).(client.Lost); !ok || e.Err == nil {
			t.Fatalf("%T", e)
		}
		stop = serve(t, s.Core, address, os.Getuid())
	}
	if e, ok := (<-events).(client.Connected); !ok {
		t.Fatalf("%T", e)
	}
	c.Close()
	if e, ok := <-events; ok {
		t.Errorf("%+v after the end", e)
	}
}

func TestOthersMayOnlyLook(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	if os.Getuid() == 0 {
		t.Skip("root may do everything; a bus does not let another user in")
	}
	serve(t, s.Core, address)
	conn := raw(t, address)
	var text string
	root := conn.Object(client.BusName, client.RootPath)
	if err := root.Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
		t.Error(err)
	}
	err := root.Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Err
	if e, ok := err.(dbus.Error); !ok || e.Name != "org.freedesktop.DBus.Error.AccessDenied" {
		t.Errorf("%v", err)
	}
}

func TestAuthorisationByUser(t *testing.T) {
	s := New(nil, "", []int{1000}, slog.New(slog.DiscardHandler))
	ses := &session{Server: s, uids: map[string]uint32{":1": 0, ":2": 1000, ":3": 1001}}
	for sender, allowed := range map[string]bool{":1": true, ":2": true, ":3": false} {
		for _, spec := range []interfaceSpec{managerSpec, qubeSpec, jobSpec, objectManagerSpec, propertiesSpec} {
			for _, m := range spec.methods {
				if err := ses.authorise(sender, m); (err == nil) != allowed {
					t.Errorf("%s calls %s: %v", sender, m.name, err)
				}
			}
		}
	}
}

func TestBadCallsAreErrorsOfTheirOwn(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	conn := raw(t, address)
	q, _ := s.View().Named("debian-12")
	path := client.QubePath(string(q.UUID()))
	for _, c := range []struct {
		path   dbus.ObjectPath
		method string
		args   []any
		want   string
	}{
		{path, client.QubeInterface + ".SetProperty", []any{"memory", 7}, "org.freedesktop.DBus.Error.InvalidArgs"},
		{path, client.QubeInterface + ".SetProperty", []any{"memory"}, "org.freedesktop.DBus.Error.InvalidArgs"},
		{path, client.QubeInterface + ".Explode", nil, "org.freedesktop.DBus.Error.UnknownMethod"},
		{path + "0", client.QubeInterface + ".Start", nil, "org.freedesktop.DBus.Error.NoSuchObject"},
		{client.RootPath + "/job/99", client.JobInterface + ".Cancel", nil, "org.freedesktop.DBus.Error.NoSuchObject"},
		{path, "org.freedesktop.DBus.Properties.Get", []any{client.QubeInterface, "Secret"}, "org.freedesktop.DBus.Error.UnknownProperty"},
		{path, "org.freedesktop.DBus.Properties.Set", []any{client.QubeInterface, "Name", dbus.MakeVariant("x")}, "org.freedesktop.DBus.Error.PropertyReadOnly"},
		{client.RootPath, client.ManagerInterface + ".CreateQube", []any{"../x", "AppVM", "red", map[string]dbus.Variant{}}, client.ErrorPrefix + "QubesValueError"},
		{client.RootPath, client.ManagerInterface + ".CreateQube", []any{"x", "AppVM", "red", map[string]dbus.Variant{"memory": dbus.MakeVariant([]string{"a"})}}, client.ErrorPrefix + "QubesPropertyValueError"},
	} {
		err := conn.Object(client.BusName, c.path).Call(c.method, 0, c.args...).Err
		if e, ok := err.(dbus.Error); !ok || e.Name != c.want {
			t.Errorf("%s%v: %v (%T), want %s", c.method, c.args, err, err, c.want)
		}
	}
}

func TestAPanicIsAnErrorOfOneCall(t *testing.T) {
	m := &member{target: target{s: &session{Server: New(nil, "", nil, slog.New(slog.DiscardHandler))}}, iface: qubeSpec, spec: methodSpec{name: "SetProperty"}}
	if _, err := m.Call(); err == nil {
		t.Error("no error")
	}
}

func TestIntrospectionIsAsCommitted(t *testing.T) {
	for name, specs := range map[string][]interfaceSpec{
		"manager": {introspectableSpec, propertiesSpec, managerSpec, objectManagerSpec},
		"qube":    {introspectableSpec, propertiesSpec, qubeSpec},
		"label":   {introspectableSpec, propertiesSpec, labelSpec},
		"pool":    {introspectableSpec, propertiesSpec, poolSpec},
		"device":  {introspectableSpec, propertiesSpec, deviceSpec},
		"job":     {introspectableSpec, propertiesSpec, jobSpec},
	} {
		golden := filepath.Join("testdata", name+".xml")
		got := introspection(specs, nil)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (go test -update writes it anew):\n%s", golden, d)
		}
	}
}

// What is described is what is served: same names, same types.
func TestPropertiesHaveTheTypesThatAreDescribed(t *testing.T) {
	s := coretest.NewSystem(t)
	q, _ := s.View().Named("debian-12")
	for _, o := range []struct {
		spec  interfaceSpec
		props properties
	}{
		{managerSpec, renderManager(s.View())}, {qubeSpec, renderQube(s.View(), q)},
		{labelSpec, renderLabel(qube.Labels[0])},
		{poolSpec, renderPool(core.PoolState{Err: errors.New("gone")})}, {jobSpec, renderJob(core.Job{})},
		{deviceSpec, renderDevice(core.DeviceState{Assignments: []core.FrontendAssignment{{}}})},
	} {
		if len(o.props) != len(o.spec.properties) {
			t.Errorf("%s has %d properties and describes %d", o.spec.name, len(o.props), len(o.spec.properties))
		}
		for _, p := range o.spec.properties {
			if got := dbus.SignatureOf(o.props[p.name]).String(); got != p.sig {
				t.Errorf("%s.%s has type %s, described as %s", o.spec.name, p.name, got, p.sig)
			}
		}
	}
}

// The tree can be walked as tools do it, and what a live object says of
// itself is the golden text.
func TestTheTreeCanBeWalked(t *testing.T) {
	s, address := coretest.NewSystem(t), daemon(t)
	serve(t, s.Core, address, os.Getuid())
	conn := raw(t, address)
	q, _ := s.View().Named("debian-12")
	for path, want := range map[dbus.ObjectPath]string{
		"/":                               `<node name="org"/>`,
		"/org/cubicle/Qubes1":             `<node name="qube"/>`,
		client.RootPath + "/label":        `<node name="blue"/>`,
		client.RootPath + "/qube":         `<node name="` + strings.ReplaceAll(string(q.UUID()), "-", "_") + `"/>`,
		client.QubePath(string(q.UUID())): `<method name="StartApp">`,
		client.LabelPath("red"):           `<property name="Color" type="u" access="read"/>`,
		client.RootPath + "/job":          "<node>",
	} {
		var text string
		if err := conn.Object(client.BusName, path).Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %s:\n%s", path, want, text)
		}
	}
}
