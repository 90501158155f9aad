package devices

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/device"
	"cubicle/daemon/vchan"
)

// databases are those of all qubes, by name.
type databases struct {
	mu   sync.Mutex
	of   map[string]map[string]string
	fail error
}

func (d *databases) write(q, path, value string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[q] == nil {
		d.of[q] = map[string]string{}
	}
	d.of[q][path] = value
}

func (d *databases) read(_ context.Context, q core.Qube, prefix string) (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := maps.Clone(d.of[string(q.Name())])
	maps.DeleteFunc(found, func(path, _ string) bool { return !strings.HasPrefix(path, prefix) })
	return found, d.fail
}

// collect gathers the events about devices.
func collect(t *testing.T, s *core.Core) (until func(want ...string)) {
	sub := s.Subscribe()
	t.Cleanup(sub.Close)
	var seen []string
	return func(want ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		for {
			missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(seen, w) })
			if len(missing) == 0 {
				seen = nil
				return
			}
			batch, _, err := sub.Next(ctx)
			if err != nil {
				t.Fatalf("never came: %q; but %q", missing, seen)
			}
			for _, e := range batch {
				if strings.HasPrefix(e.Name, "device-") {
					word := string(e.Subject) + " " + e.Name
					for _, a := range e.Args {
						word += " " + a.Value
					}
					seen = append(seen, word)
				}
			}
		}
	}
}

func TestWatch(t *testing.T) {
	s := coretest.NewSystem(t)
	for _, name := range []string{"sys-usb", "work"} {
		if _, err := s.NewQube(name, "red"); err != nil {
			t.Fatal(err)
		}
	}
	usb, _ := s.View().Named("sys-usb")
	work, _ := s.View().Named("work")
	d := &databases{of: map[string]map[string]string{}}
	changes := make(chan device.Class)
	host := device.Info{Device: device.Device{Class: device.Block, Backend: "dom0", Port: "sda", ID: ":None"}, Interfaces: []string{"b******"}}
	w := New(s.Core, Sources{Database: d.read, Changes: changes,
		Host: func(c device.Class) ([]device.Info, error) {
			if c != device.Block {
				return nil, nil
			}
			return []device.Info{host}, nil
		},
		Name: func(i *device.Info) { i.Vendor = "Maker" },
	}, slog.New(slog.DiscardHandler))
	until := collect(t, s.Core)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	defer running.Wait()
	defer cancel()
	until("dom0 device-list-change:block", "dom0 device-added:block dom0:sda::None")

	d.write("sys-usb", "/qubes-usb-devices/2-1/desc", "0781:5567 a b c")
	for _, q := range []core.Qube{usb, work} {
		if err := s.Done(s.Start(q.UUID())); err != nil {
			t.Fatal(err)
		}
	}
	until("sys-usb device-list-change:usb", "sys-usb device-added:usb sys-usb:2-1:0781:5567:c:?******")
	usb, _ = s.View().Named("sys-usb")
	if list := usb.Offered(device.USB); len(list) != 1 || list[0].Vendor != "Maker" || list[0].Name != "b" {
		t.Errorf("%+v", list)
	}
	domain := vchan.Domain(usb.XID())
	d.write("sys-usb", "/qubes-usb-devices/2-1/connected-to", "work")
	w.Wrote(domain, "/qubes-block-devices")
	w.Wrote(domain, "/somewhere")
	w.Wrote(domain+100, "/qubes-usb-devices")
	w.Wrote(domain, "/qubes-usb-devices")
	until("work device-attach:usb sys-usb:2-1:0781:5567:c:?****** {}")
	work, _ = s.View().Named("work")
	if list := work.Attached(device.USB); len(list) != 1 || list[0].Mode != device.Manual || list[0].Port != "2-1" {
		t.Errorf("%+v", list)
	}
	if err := s.AssignDevice(work.UUID(), device.Assignment{Device: device.Device{Class: device.USB, Backend: "sys-usb", Port: "2-1", ID: device.Any}, Mode: device.Auto}); err != nil {
		t.Fatal(err)
	}
	work, _ = s.View().Named("work")
	if list := work.Attached(device.USB); len(list) != 1 || list[0].Mode != device.Auto {
		t.Errorf("%+v", list)
	}

	// Another device at the same port is another device.
	d.write("sys-usb", "/qubes-usb-devices/2-1/desc", "0781:5568 a b c")
	w.Wrote(domain, "/qubes-usb-devices")
	until("sys-usb device-removed:usb sys-usb:2-1", "work device-detach:usb sys-usb:2-1", "sys-usb device-added:usb sys-usb:2-1:0781:5568:c:?******")

	host.Port = "sdb"
	changes <- device.Block
	until("dom0 device-removed:block dom0:sda", "dom0 device-added:block dom0:sdb::None")

	// A database that cannot be read changes nothing.
	d.mu.Lock()
	d.fail = errors.New("qrexecd is gone")
	d.mu.Unlock()
	usb, _ = s.View().Named("sys-usb")
	if err := w.Refresh(ctx, usb, device.USB); !errors.Is(err, d.fail) {
		t.Error(err)
	}
	if usb, _ := s.View().Named("sys-usb"); len(usb.Offered(device.USB)) != 1 {
		t.Error("the devices are gone")
	}

	if err := s.Done(s.Kill(usb.UUID())); err != nil {
		t.Fatal(err)
	}
	until("sys-usb device-list-change:usb", "sys-usb device-removed:usb sys-usb:2-1", "work device-detach:usb sys-usb:2-1")
	// What was read of the run that ended is not taken for one of the next.
	s.NoteDevices(usb.UUID(), usb.XID(), device.USB, []device.Info{host})
	if usb, _ := s.View().Named("sys-usb"); len(usb.Offered(device.USB)) != 0 || w.Refresh(ctx, usb, device.USB) != nil {
		t.Errorf("%+v", usb.Offered(device.USB))
	}
	if work, _ := s.View().Named("work"); len(work.Attached(device.USB)) != 0 {
		t.Errorf("%+v", work.Attached(device.USB))
	}
}
