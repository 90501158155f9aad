package device

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		class Class
		arg   string
		want  Device
		back  string
	}{
		{USB, "sys-usb+2-1.4", Device{USB, "sys-usb", "2-1.4", Any}, "sys-usb+2-1.4+_"},
		{USB, "sys-usb+2-1+_", Device{USB, "sys-usb", "2-1", Any}, ""},
		{PCI, "dom0+00_14.0+0x8086+0x1533++p020000", Device{PCI, "dom0", "00_14.0", "0x8086:0x1533::p020000"}, ""},
		{PCI, "dom0+_+0x8086+0x1533++_______", Device{PCI, "dom0", Any, "0x8086:0x1533::?******"}, ""},
		{PCI, "_+0001_00_1c.0-00_00.0+_", Device{PCI, Any, "0001_00_1c.0-00_00.0", Any}, ""},
		{USB, "sys-usb+_+1d6b+0002++u08____", Device{USB, "sys-usb", Any, "1d6b:0002::u08****"}, ""},
		{Mic, "dom0+mic", Device{Mic, "dom0", "mic", Any}, "dom0+mic+_"},
		{Block, "work+sda", Device{Block, "work", "sda", Any}, "work+sda+_"},
	} {
		d, err := ParseArgument(c.class, c.arg)
		if err != nil || d != c.want {
			t.Errorf("%s became %+v (%v)", c.arg, d, err)
		}
		if c.back == "" {
			c.back = c.arg
		}
		if d.Argument() != c.back {
			t.Errorf("%+v became %s, want %s", d, d.Argument(), c.back)
		}
	}
	for class, args := range map[Class][]string{
		USB:   {"", "sys-usb", "+2-1", "sys usb+2-1", "sys-usb+", "sys-usb+2", "sys-usb+2-1;x", "sys-usb+2-1+a b", "sys-usb+2-1+a=b", "sys-usb+2-1+ü", "-dm+2-1"},
		PCI:   {"dom0+00:14.0", "dom0+0_14.0", "dom0+../x"},
		Block: {"work+SDA", "work+abcdefghijklm", "work+a/b"},
		Mic:   {"dom0+mic2"},
		"gpu": {"dom0+x"},
	} {
		for _, arg := range args {
			if d, err := ParseArgument(class, arg); err == nil {
				t.Errorf("%s %q became %+v", class, arg, d)
			}
		}
	}
}

func TestAssignments(t *testing.T) {
	sda := Device{Block, "work", "sda", Any}
	a, err := ParseAssignment(`device_id='0781:5567:12\'3:u080650' port_id='sda' devclass='block' backend_domain='work' mode='auto-attach' frontend_domain='vault' _read-only='True'`, sda, "vault")
	if err == nil {
		t.Errorf("a device id with a quote became %+v", a)
	}
	a, err = ParseAssignment(`device_id='0781:5567:123:u080650' port_id='sda' devclass='block' backend_domain='work' mode='auto-attach' frontend_domain='vault' _read-only='True'`, sda, "vault")
	if err != nil {
		t.Fatal(err)
	}
	want := `device_id='0781:5567:123:u080650' port_id='sda' devclass='block' backend_domain='work' mode='auto-attach' frontend_domain='vault' _read-only='yes'`
	if got := a.Serialize("vault"); got != want || a.Key() != "work+sda:0781:5567:123:u080650" || a.OptionsText() != "{'read-only': 'yes'}" || a.Check() != nil {
		t.Errorf("%s, %s, %s, %v", got, a.Key(), a.OptionsText(), a.Check())
	}
	if a, err := ParseAssignment("", sda, "vault"); err != nil || a.Mode != Manual {
		t.Errorf("%+v, %v", a, err)
	}
	for _, payload := range []string{
		"mode=required", "mode='required", "mode='required'  port_id='sda'", "mode='required' mode='required'", "mode='required'port_id='sda'",
		"port_id='sdb'", "backend_domain='vault'", "devclass='usb'", "frontend_domain='work'", "colour='red'", "='x'", "_colour='red'",
		"_read-only='maybe'", "_devtype='tape'", "_frontend-dev='hda'", "_frontend-dev='xvd/a'", "_frontend-dev='xvd'", "mode='\x01'", " mode='required'", "mode='required' ",
	} {
		if a, err := ParseAssignment(payload, sda, "vault"); err == nil {
			t.Errorf("%q became %+v", payload, a)
		}
	}
	_, err = ParseAssignment("mode='sometimes'", sda, "vault")
	if _, ok := errors.AsType[*ErrMode](err); !ok {
		t.Errorf("%v", err)
	}
	if _, err := ParseAssignment("_read-only='yes'", Device{USB, "work", "1-1", Any}, "vault"); err == nil {
		t.Error("usb has an option")
	}
}

func TestInterfaces(t *testing.T) {
	codes, err := ParseInterfaces("u08****p0300**")
	if err != nil || !reflect.DeepEqual(codes, []string{"u08****", "p0300**"}) {
		t.Errorf("%q, %v", codes, err)
	}
	if codes, err := ParseInterfaces(""); err != nil || len(codes) > 0 {
		t.Errorf("%q, %v", codes, err)
	}
	for _, bad := range []string{"u", "x08****", "u08***G", "u08****u08****", "u08****\n", "\xff08****"} {
		if codes, err := ParseInterfaces(bad); err == nil {
			t.Errorf("%q became %q", bad, codes)
		}
	}
}

func TestAt(t *testing.T) {
	d := Device{USB, "sys-usb", "2-1", "a:b"}
	for arg, want := range map[string]bool{"sys-usb+2-1": true, "sys-usb+_": true, "_+2-1": true, "sys-usb+2-2": false, "work+2-1": false} {
		p, err := ParsePort(USB, arg)
		if err != nil || d.At(p) != want {
			t.Errorf("%s: %v, %v", arg, d.At(p), err)
		}
	}
}

func FuzzParseAssignment(f *testing.F) {
	f.Add("usb", "sys-usb+2-1+1d6b+0002++u08____", "mode='required'")
	f.Add("block", "work+sda", `device_id='a:b' mode='auto-attach' _read-only='no' _devtype='cdrom' _frontend-dev='xvdi'`)
	f.Add("pci", "dom0+00_14.0+_", `_permissive='it\'s' _no-strict-reset='\\'`)
	f.Add("webcam", "_+_+_______", "_format='1280x720x30'")
	f.Fuzz(func(t *testing.T, class, arg, payload string) {
		d, err := ParseArgument(Class(class), arg)
		if err != nil {
			return
		}
		if strings.ContainsAny(d.Key(), " \n'\x00") {
			t.Errorf("%q became %q", arg, d.Key())
		}
		a, err := ParseAssignment(payload, d, "vault")
		if err != nil {
			return
		}
		text := a.Serialize("vault")
		again, err := ParseAssignment(text, d, "vault")
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("%q: %+v became %+v (%v)", text, a, again, err)
		}
	})
}
