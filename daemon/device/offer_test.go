package device

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// said answers as the database of a qube with those entries.
func said(entries map[string]string) func(string) (map[string]string, error) {
	return func(prefix string) (map[string]string, error) {
		found := maps.Clone(entries)
		maps.DeleteFunc(found, func(path, _ string) bool { return !strings.HasPrefix(path, prefix) })
		return found, nil
	}
}

func serialized(list []Info) []string {
	var lines []string
	for _, i := range list {
		lines = append(lines, i.Key()+" "+i.Serialize())
	}
	return lines
}

func TestOffered(t *testing.T) {
	stick := map[string]string{
		"/qubes-usb-devices":                  "",
		"/qubes-usb-devices/2-1_4/desc":       `0781:5567 SanDisk Cruzer\x20Blade 4C53'0:*1`,
		"/qubes-usb-devices/2-1_4/interfaces": ":080650:080650:",
		"/qubes-usb-devices/2-1_4/usb-ver":    "2",
		"/qubes-block-devices/sda/desc":       "Cruzer_Blade ()",
		"/qubes-block-devices/sda/size":       "16013852672",
		"/qubes-block-devices/sda/mode":       "r",
		"/qubes-block-devices/sda/parent":     "2-1.4:1.0",
		"/qubes-block-devices/sda1/desc":      "Cruzer_Blade (my_files)",
		"/qubes-block-devices/sda1/parent":    "sda",
		"/qubes-block-devices/loop0/desc":     "/home/user/a.iso ()",
		"/qubes-block-devices/nothing":        "",
		"/webcam-devices/video0/parent":       "usb:3-2",
		"/webcam-devices/video0/formats":      "1280x720x30 640x480x15",
		"/webcam-devices/video0/connected-to": "work",
		"/qubes-usb-devices/3-2/desc":         `046d:0825 unknown C270 AB`,
		"/qubes-usb-devices/3-2/connected-to": "work",
	}
	for class, want := range map[Class][]string{
		Block: {
			`loop0::0 device_id=':0' port_id='loop0' devclass='block' backend_domain='sys-usb' manufacturer='hosted by sys-usb' serial='/home/user/a.iso' interfaces='b******'`,
			`sda:2-1.4:0781:5567:4C53_0__1:u080650:1.0 device_id='2-1.4:0781:5567:4C53_0__1:u080650:1.0' port_id='sda' devclass='block' backend_domain='sys-usb' manufacturer='sub-device of sys-usb:2-1.4' serial='Cruzer Blade' interfaces='b******' parent_port_id='2-1.4' parent_devclass='usb'`,
			`sda1:2-1.4:0781:5567:4C53_0__1:u080650:1.0:1 device_id='2-1.4:0781:5567:4C53_0__1:u080650:1.0:1' port_id='sda1' devclass='block' backend_domain='sys-usb' manufacturer='sub-device of sys-usb:sda' name='my files' serial='Cruzer Blade' interfaces='b******' parent_port_id='sda' parent_devclass='block'`,
		},
		USB: {
			`2-1.4:0781:5567:4C53_0__1:u080650 device_id='0781:5567:4C53_0__1:u080650' port_id='2-1.4' devclass='usb' backend_domain='sys-usb' manufacturer='SanDisk' name='Cruzer Blade' serial='4C53\'0:*1' interfaces='u080650'`,
			`3-2:046d:0825:AB:?****** device_id='046d:0825:AB:?******' port_id='3-2' devclass='usb' backend_domain='sys-usb' name='C270' serial='AB' attachment='work' interfaces='?******'`,
		},
		Webcam: {
			`video0:046d:0825:AB:?****** device_id='046d:0825:AB:?******' port_id='video0' devclass='webcam' backend_domain='sys-usb' name='Camera (C270)' serial='AB' attachment='work' interfaces='u0e0200' parent_port_id='3-2' parent_devclass='usb' _formats='1280x720x30 640x480x15'`,
		},
		PCI: nil, Mic: nil,
	} {
		list, strange, err := Offered(class, "sys-usb", said(stick))
		if err != nil || strange != 0 {
			t.Errorf("%s: %d strange, %v", class, strange, err)
		}
		if diff := cmp.Diff(want, serialized(list)); diff != "" {
			t.Errorf("%s:\n%s", class, diff)
		}
		if class == Block && (!list[1].ReadOnly || list[1].Size != 16013852672 || list[0].ReadOnly || list[0].Size != 0) {
			t.Errorf("%+v", list)
		}
	}
}

func TestOfferedNonsense(t *testing.T) {
	entries := map[string]string{
		"/qubes-block-devices/../desc":            "x",
		"/qubes-block-devices/SDA/desc":           "x",
		"/qubes-block-devices/abcdefghijklm/desc": "x",
		"/qubes-block-devices/*/desc":             "x",
		"/qubes-block-devices//desc":              "x",
		"/qubes-block-devices/a/parent":           "b", // a ring
		"/qubes-block-devices/b/parent":           "a",
		"/qubes-block-devices/c/parent":           "c",
		"/qubes-block-devices/d/parent":           "1-1:x' onerror='",
		"/qubes-block-devices/d/desc":             "' \\ \n\x1b[31m \xff(é)",
		"/qubes-block-devices/d/size":             "99999999999999999999",
		"/qubes-usb-devices/1-1/connected-to":     "../work",
		"/qubes-usb-devices/1-1/desc":             "zzzz:0000 a b c",
		"/qubes-usb-devices/1.1/desc":             "0000:0000 a b c",
		"/qubes-usb-devices/1-2/desc":             `just words \x0a\xzz\`,
		"/qubes-usb-devices/1-2/interfaces":       ":0:ABCDEF:030000" + strings.Repeat(":1", 5000),
		"/qubes-usb-devices/1-3/desc":             "0781:5567 " + strings.Repeat("m", 3000) + " n " + strings.Repeat("s", 3000),
		"/qubes-usb-devices/1-3/interfaces":       ":000001:000002:000003:000004:000005:000006:000007:000008:000009:00000a:00000b:00000c:00000d:00000e:00000f:000010:000011:000012:000013:000014:000015:000016:000017:000018:000019:00001a:00001b:00001c:00001d:00001e:00001f:000020:000021:000022",
	}
	blocks, strange, err := Offered(Block, "work", said(entries))
	if err != nil || strange != 5 || len(blocks) != 4 {
		t.Errorf("%d strange of %q, %v", strange, serialized(blocks), err)
	}
	if blocks[3].Parent != (Port{USB, "1-1"}) || blocks[3].ID != "1-1:0000:0000:c:?******:None" || blocks[3].Serial != "" || blocks[2].Parent != (Port{}) {
		t.Errorf("%+v", blocks)
	}
	usbs, strange, err := Offered(USB, "work", said(entries))
	if err != nil || strange != 1 || len(usbs) != 3 {
		t.Fatalf("%d strange of %q, %v", strange, serialized(usbs), err)
	}
	if usbs[0].Attachment != "" || usbs[0].ID != "0000:0000:c:?******" || usbs[1].Name != "just_words___xzz_" || len(usbs[1].Interfaces) != 2 {
		t.Errorf("%+v", usbs)
	}
	if len(usbs[2].ID) > maxField || len(usbs[2].Manufacturer) != maxText || len(usbs[2].Interfaces) != maxInterfaces {
		t.Errorf("%+v", usbs[2])
	}
	many := map[string]string{}
	for i := range 1000 {
		many["/webcam-devices/v"+strings.Repeat("a", i%10)+string(rune('a'+i%26))+"/parent"] = ""
		many["/webcam-devices/v"+string(rune('0'+i%10))+string(rune('0'+i/10%10))+string(rune('0'+i/100))+"/parent"] = ""
	}
	if list, strange, _ := Offered(Webcam, "work", said(many)); len(list) != maxOffered || strange == 0 {
		t.Errorf("%d devices, %d strange", len(list), strange)
	}
	gone := errors.New("gone")
	if _, _, err := Offered(USB, "work", func(string) (map[string]string, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestIs(t *testing.T) {
	i := Info{Device: Device{USB, "sys-usb", "2-1", "0781:5567:a_b:u080650"}}
	for arg, want := range map[string]bool{
		"sys-usb+2-1": true, "_+_": true, "sys-usb+_+0781+5567+a_b+u080650": true,
		"sys-usb+2-2": false, "work+2-1": false, "sys-usb+2-1+0781+5567++u080650": false,
	} {
		if d, err := ParseArgument(USB, arg); err != nil || i.Is(d) != want {
			t.Errorf("%s: %v, %v", arg, i.Is(d), err)
		}
	}
}

func FuzzOffered(f *testing.F) {
	f.Add("sda", "Cruzer_Blade (files)", "2-1:1.0", "2-1", `0781:5567 SanDisk Cruzer\x20Blade 4C`, ":080650:", "work")
	f.Add("sda1", "' \\", "sda1", "2-1_4", "0000:0000   ", ":", "")
	f.Add("loop12", "()", "x:", "1-1", `\x`, ":x:030000", "-dm")
	f.Fuzz(func(t *testing.T, name, desc, parent, port, usbDesc, interfaces, connected string) {
		entries := map[string]string{
			"/qubes-block-devices/" + name + "/desc":       desc,
			"/qubes-block-devices/" + name + "/size":       interfaces,
			"/qubes-block-devices/" + name + "/parent":     parent,
			"/webcam-devices/" + name + "/parent":          "usb:" + port,
			"/webcam-devices/" + name + "/formats":         desc,
			"/webcam-devices/" + name + "/connected-to":    connected,
			"/qubes-usb-devices/" + port + "/desc":         usbDesc,
			"/qubes-usb-devices/" + port + "/interfaces":   interfaces,
			"/qubes-usb-devices/" + port + "/connected-to": connected,
		}
		for _, c := range []Class{Block, USB, Webcam} {
			list, _, err := Offered(c, "work", said(entries))
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range list {
				text := i.Serialize()
				pairs, err := ParsePairs(text)
				if err != nil || FormatPairs(pairs) != text || len(text) > 4096 {
					t.Errorf("%q: %v", text, err)
				}
				if i.check() != nil || i.ID == Any || strings.ContainsAny(i.Key(), " \n") {
					t.Errorf("%q: %v", i.Key(), i.check())
				}
				back, err := ParseArgument(c, i.Argument())
				if err != nil || !i.Is(back) {
					t.Errorf("%q became %+v (%v)", i.Argument(), back, err)
				}
			}
		}
	})
}
