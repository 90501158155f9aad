package host

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/device"
)

// machine makes a computer of files; a value "-> X" is a link.
func machine(t *testing.T, files map[string]string) System {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(filepath.Join(dir, to), path)
		} else {
			err = os.WriteFile(path, []byte(text+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return System{Sys: filepath.Join(dir, "sys"), Proc: filepath.Join(dir, "proc"), Own: []string{"/var/lib/qubes"}}
}

func lines(t *testing.T, s System, c device.Class) []string {
	t.Helper()
	list, err := s.Devices(c)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, i := range list {
		all = append(all, i.Serialize())
	}
	return all
}

func TestBlocks(t *testing.T) {
	files := map[string]string{
		"proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
		"proc/swaps":          "Filename Type Size Used Priority\n/dev/sdc2 partition 1 0 -2",
	}
	disk := func(at, number string, attributes map[string]string) {
		files["sys/devices/"+at+"/dev"] = number
		files["sys/devices/"+at+"/size"] = "2048"
		files["sys/devices/"+at+"/ro"] = "0"
		files["sys/class/block/"+filepath.Base(at)] = "-> sys/devices/" + at
		for key, value := range attributes {
			files["sys/devices/"+at+"/"+key] = value
		}
	}
	part := map[string]string{"partition": "1"}
	disk("ata/sda", "8:0", nil) // its first partition is mounted
	disk("ata/sda/sda1", "8:1", part)
	disk("ata/sda/sda2", "8:2", part)
	disk("usb2/2-1/2-1.4/2-1.4:1.0/host0/sdb", "8:16", map[string]string{"device/model": "Cruzer Blade", "ro": "1"})
	disk("usb2/2-1/2-1.4/2-1.4:1.0/host0/sdb/sdb1", "8:17", map[string]string{"partition": "1", "uevent": "MAJOR=8\nPARTNAME=my files"})
	disk("ata/sdc", "8:32", nil) // swapped to
	disk("ata/sdc/sdc2", "8:34", part)
	disk("ata/sdd", "8:48", nil) // held by a mapper
	disk("ata/sdd/sdd1", "8:49", map[string]string{"partition": "1", "holders/dm-0": ""})
	disk("virtual/loop0", "7:0", nil)
	disk("virtual/loop1", "7:1", map[string]string{"loop/backing_file": "/home/user/a.iso", "loop/autoclear": "0"})
	disk("virtual/loop2", "7:2", map[string]string{"loop/backing_file": "/var/lib/qubes/appvms/work/private.img", "loop/autoclear": "0"})
	disk("virtual/loop3", "7:3", map[string]string{"loop/backing_file": "/elsewhere", "loop/autoclear": "1"})
	disk("virtual/sr0", "11:0", map[string]string{"size": "0"})
	want := []string{
		`device_id=':1' port_id='loop1' devclass='block' backend_domain='dom0' manufacturer='hosted by dom0' serial='/home/user/a.iso' interfaces='b******'`,
		`device_id=':None:2' port_id='sda2' devclass='block' backend_domain='dom0' manufacturer='sub-device of dom0:sda' interfaces='b******' parent_port_id='sda' parent_devclass='block'`,
		`device_id='2-1.4:0000:0000::?******:1.0' port_id='sdb' devclass='block' backend_domain='dom0' manufacturer='sub-device of dom0:2-1.4' serial='Cruzer Blade' interfaces='b******' parent_port_id='2-1.4' parent_devclass='usb'`,
		`device_id='2-1.4:0000:0000::?******:1.0:1' port_id='sdb1' devclass='block' backend_domain='dom0' manufacturer='sub-device of dom0:sdb' name='my files' serial='Cruzer Blade' interfaces='b******' parent_port_id='sdb' parent_devclass='block'`,
	}
	s := machine(t, files)
	if diff := cmp.Diff(want, lines(t, s, device.Block)); diff != "" {
		t.Error(diff)
	}
	list, err := s.Devices(device.Block)
	if err != nil || len(list) != 4 || list[2].Size != 1<<20 || !list[2].ReadOnly || list[3].ReadOnly {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestPCI(t *testing.T) {
	files := map[string]string{
		"usr/share/misc/pci.ids": "# a table\n8085  Not it\n\t1533  Nor this\n8086  Intel Corporation\n\t1532  Other\n\t1533  I210 Gigabit Network Connection\n\t\t1533 0001  Sub\n8087  Other\n\t1533  Wrong",
	}
	add := func(at, class string, attributes map[string]string) {
		dir := "sys/devices/pci0000:00/" + at
		files[dir+"/vendor"], files[dir+"/device"], files[dir+"/class"] = "0x8086", "0x1533", class
		files["sys/bus/pci/devices/"+filepath.Base(at)] = "-> " + dir
		for key, value := range attributes {
			files[dir+"/"+key] = value
		}
	}
	add("0000:00:1c.0", "0x060400", map[string]string{"secondary_bus_number": "5"})
	add("0000:00:1c.0/0000:05:00.0", "0x020000", nil)
	add("0001:00:02.0", "broken", nil)
	s := machine(t, files)
	want := []string{
		`device_id='0x8086:0x1533::p******' port_id='0001_00_02.0' devclass='pci' backend_domain='dom0' interfaces='p******' _sbdf='0001:00:02.0'`,
		`device_id='0x8086:0x1533::p060400' port_id='00_1c.0' devclass='pci' backend_domain='dom0' interfaces='p060400' _sbdf='0000:00:1c.0'`,
		`device_id='0x8086:0x1533::p020000' port_id='00_1c.0-00_00.0' devclass='pci' backend_domain='dom0' interfaces='p020000' _sbdf='0000:05:00.0'`,
	}
	if diff := cmp.Diff(want, lines(t, s, device.PCI)); diff != "" {
		t.Error(diff)
	}
	names := NewNames(filepath.Dir(s.Sys))
	for range 2 { // looked up, and remembered
		i := device.Info{Device: device.Device{Class: device.PCI, ID: "0x8086:0x1533::p020000"}}
		if names.Fill(&i); i.Vendor != "Intel Corporation" || i.Product != "I210 Gigabit Network Connection" {
			t.Errorf("%+v", i)
		}
	}
	for _, i := range []device.Info{
		{Device: device.Device{Class: device.PCI, ID: "0x8087:0x9999::p020000"}, Vendor: "Other"},
		{Device: device.Device{Class: device.USB, ID: "8086:1533::?******"}},
		{Device: device.Device{Class: device.Block, ID: "8086:1533"}},
		{Device: device.Device{Class: device.PCI, ID: ":"}},
	} {
		got := i
		got.Vendor = ""
		if names.Fill(&got); got.Vendor != i.Vendor || got.Product != "" {
			t.Errorf("%+v", got)
		}
	}
}

func TestEveryMachine(t *testing.T) {
	for _, c := range device.Classes() {
		list, err := System{}.Devices(c)
		if err != nil || (len(list) == 1) != (c == device.Mic) {
			t.Errorf("%s: %+v, %v", c, list, err)
		}
	}
	// This one, whatever it has.
	for _, c := range device.Classes() {
		list, err := (System{Sys: "/sys", Proc: "/proc"}).Devices(c)
		if err != nil {
			t.Error(err)
		}
		for _, i := range list {
			if _, err := device.ParseArgument(c, i.Argument()); err != nil {
				t.Errorf("%+v: %v", i, err)
			}
		}
	}
}

func TestClassOf(t *testing.T) {
	for message, want := range map[string]device.Class{
		"add@/devices/x\x00ACTION=add\x00SUBSYSTEM=block\x00": device.Block,
		"change@/x\x00SUBSYSTEM=pci\x00":                      device.PCI,
		"add@/x\x00SUBSYSTEM=blockade\x00":                    "",
		"":                                                    "",
	} {
		if got, ok := classOf([]byte(message)); got != want || ok != (want != "") {
			t.Errorf("%q: %s", message, got)
		}
	}
}

// A loop device that gets a file is told of, and offered.
func TestChangesAreTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loop devices are root's")
	}
	changes, err := Changes(t.Context())
	if err != nil {
		t.Skip(err) // no such messages in this namespace
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", image).Output()
	if err != nil {
		t.Skip(err) // no loop devices here
	}
	name := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "-d", name).Run(); err != nil {
			t.Error(err)
		}
	})
	limit := time.After(90 * time.Second)
	for told := false; !told; {
		select {
		case c := <-changes:
			told = c == device.Block
		case <-limit:
			t.Fatal("nobody told of a loop device")
		}
	}
	list, err := System{Sys: "/sys", Proc: "/proc", Own: []string{"/nowhere"}}.Devices(device.Block)
	at := slices.IndexFunc(list, func(i device.Info) bool { return "/dev/"+i.Port == name })
	if err != nil || at < 0 || list[at].Size != 1<<20 || list[at].ReadOnly {
		t.Fatalf("%+v, %v", list, err)
	}
	list, err = System{Sys: "/sys", Proc: "/proc", Own: []string{filepath.Dir(image) + "/"}}.Devices(device.Block)
	if err != nil || slices.ContainsFunc(list, func(i device.Info) bool { return "/dev/"+i.Port == name }) {
		t.Errorf("a volume is offered: %+v, %v", list, err)
	}
}

func TestChangesEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := Changes(ctx); err != nil {
		t.Skip(err) // no such messages in this namespace
	}
	cancel()
	heard, changed := make(chan device.Class), make(chan device.Class)
	ctx, cancel = context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { gather(ctx, heard, changed); close(done) }()
	heard <- device.Block
	heard <- device.Block
	if c := <-changed; c != device.Block {
		t.Error(c)
	}
	cancel()
	close(heard)
	<-done
}
