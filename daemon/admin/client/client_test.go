package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cubicle/daemon/device"
)

// serve answers each request on a socket by what reply says.
func serve(t *testing.T, reply func(request string) string) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			raw, err := io.ReadAll(conn)
			if err != nil {
				t.Error(err)
			}
			if _, err := io.WriteString(conn, reply(string(raw))); err != nil {
				t.Error(err)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return &Client{Socket: path, Internal: path}
}

func TestExceptionsKeepTheirNames(t *testing.T) {
	c := serve(t, func(string) string { return "2\x00QubesVMNotFoundError\x00\x00no %s, 100%%\x00here\x00" })
	_, err := c.Call(t.Context(), "work", "admin.vm.Start", "", nil)
	if !Is(err, "QubesVMNotFoundError") || err.Error() != "no here, 100%" {
		t.Errorf("%v", err)
	}
	c = serve(t, func(string) string { return "" })
	if _, err := c.List(t.Context()); !Is(err, "QubesDaemonAccessError") || !Missing(err) {
		t.Errorf("%v", err)
	}
	if _, err := c.Events(t.Context(), "dom0", "admin.Events"); !Is(err, "QubesDaemonAccessError") {
		t.Errorf("%v", err)
	}
}

const names = "dom0 class=AdminVM state=Running uuid=0\nwork class=AppVM state=Running uuid=1\nvault class=AppVM state=Halted uuid=2\n"

// upstream answers like a qubesd that is not ours.
func upstream(request string) string {
	head, _, _ := strings.Cut(request, "\x00")
	method, dest, _ := strings.Cut(head, " dom0 name ")
	switch method {
	case "admin.vm.List":
		return "0\x00" + names
	case "admin.vm.property.GetAll":
		if dest == "dom0" {
			return "0\x00label default=True type=label black\n"
		}
		return "0\x00label default=False type=label red\nkernelopts default=False type=str a\\nb\\\\n\n"
	case "admin.vm.tag.List":
		return "0\x00one\ntwo\n"
	case "admin.vm.CurrentState":
		return "0\x00mem=2048 mem_static_max=1 cputime=1 power_state=Running"
	case "admin.vm.feature.Get+internal":
		if dest == "vault" {
			return "0\x001"
		}
		return "2\x00QubesFeatureNotFoundError\x00\x00no\x00"
	}
	return "2\x00ProtocolError\x00\x00no such method\x00"
}

func TestATableIsTheSameFromUpstreamAndFromOurs(t *testing.T) {
	columns := []string{PropertyColumn("label"), PropertyColumn("kernelopts"), FeatureColumn("internal"), TagsColumn, MemoryColumn}
	ours := serve(t, func(request string) string {
		if want := "cubicle.vm.List dom0 name dom0\x00" + strings.Join(columns, "\n"); request != want {
			t.Errorf("request %q, want %q", request, want)
		}
		return "0\x00dom0\tAdminVM\tRunning\t0\t=black\t-\t-\t=one two\t=2048\n" +
			"work\tAppVM\tRunning\t1\t=red\t=a\\nb\\\\n\t-\t=one two\t=2048\n" +
			"vault\tAppVM\tHalted\t2\t=red\t=a\\nb\\\\n\t=1\t=one two\t-\n"
	})
	a, err := ours.Table(t.Context(), columns...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := serve(t, upstream).Table(t.Context(), columns...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
	if a[1].Values[1].Text != "a\nb\\n" {
		t.Errorf("%q", a[1].Values[1].Text)
	}
}

func TestEventsUntilTheEnd(t *testing.T) {
	c := serve(t, func(string) string {
		return "1\x00\x00connection-established\x00\x00" + "1\x00work\x00domain-spawn\x00start_guid\x00True\x00\x00" + "1\x00work\x00cut"
	})
	s, err := c.Events(t.Context(), "dom0", "admin.Events")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	e, err := s.Next()
	if diff := cmp.Diff(e, Event{"work", "domain-spawn", map[string]string{"start_guid": "True"}}); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := s.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

func TestDevicesAsTheyTravel(t *testing.T) {
	const line = `device_id='x:1' port_id='sda' devclass='block' backend_domain='dom0' mode='required' frontend_domain='work' _n='it\'s' _read-only='yes'`
	var requests []string
	c := serve(t, func(request string) string {
		requests = append(requests, request)
		if strings.Contains(request, ".Assigned ") {
			return "0\x00dom0+sda:x:1 " + line + "\n"
		}
		return "0\x00"
	})
	a := device.Assignment{Device: device.Device{Class: "block", Backend: "dom0", Port: "sda", ID: "x:1"}, Mode: "required",
		Options: map[string]string{"read-only": "yes", "n": "it's"}}
	if err := c.Assign(t.Context(), "work", a); err != nil {
		t.Fatal(err)
	}
	if want := "admin.vm.device.block.Assign+dom0+sda+x+1 dom0 name work\x00" + line; requests[0] != want {
		t.Errorf("%q, want %q", requests[0], want)
	}
	list, err := c.Assigned(t.Context(), "work", "block")
	if diff := cmp.Diff(list, []device.Assignment{a}); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestDevicesAsPeopleWriteThem(t *testing.T) {
	d, err := ParseDevice("usb", "sys-usb:2-1.4:058f:3825:*:u0e0000?******")
	if want := (device.Device{Class: "usb", Backend: "sys-usb", Port: "2-1.4", ID: "058f:3825:*:u0e0000?******"}); d != want || err != nil {
		t.Errorf("%+v, %v", d, err)
	}
	d, err = ParseDevice("block", "dom0:sda")
	if err != nil || !Matches(d, device.Device{Class: "block", Backend: "dom0", Port: "sda", ID: "x"}) || Matches(d, device.Device{Backend: "dom0", Port: "sdb"}) {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"", "dom0", "dom0:", ":sda", "dom0:s da", "a+b:c"} {
		if _, err := ParseDevice("block", bad); err == nil {
			t.Errorf("%q is a device", bad)
		}
	}
}

func TestAnImportIsWholeOrFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "volume")
	for _, test := range []struct{ data, verdict string }{
		{"12345678", "ok"}, {"1234", "fail\nnot enough data: 4 bytes instead of 8"}, {"123456789", "fail\ntoo much data: more than 8 bytes"},
		{"\x00\x00\x00\x00\x00\x00\x00\x00", "ok"},
	} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		c := serve(t, func(request string) string {
			got = append(got, request)
			if strings.HasPrefix(request, "internal.vm.volume.ImportBegin+root dom0 name work\x00") {
				return "0\x008 " + file
			}
			return "0\x00"
		})
		if err := c.ImportVolume(t.Context(), "work", "root", 8, strings.NewReader(test.data)); err != nil {
			t.Fatal(err)
		}
		if want := "internal.vm.volume.ImportEnd+root dom0 name work\x00" + test.verdict; len(got) != 2 || got[1] != want {
			t.Errorf("%q, want %q", got, want)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Trim(test.data, "\x00") != "" && test.verdict == "ok" && string(raw) != test.data {
			t.Errorf("the file is %q", raw)
		}
	}
}

func TestEachStopsAtTheFirstError(t *testing.T) {
	bad := errors.New("bad")
	c := &Client{}
	if err := c.Each(t.Context(), 100, func(ctx context.Context, i int) error {
		if i == 3 {
			return bad
		}
		return nil
	}); err != bad {
		t.Error(err)
	}
	seen := make([]bool, 100)
	if err := c.Each(t.Context(), 100, func(_ context.Context, i int) error { seen[i] = true; return nil }); err != nil {
		t.Error(err)
	}
	for i, s := range seen {
		if !s {
			t.Errorf("%d was left out", i)
		}
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("0\x00text"))
	f.Add([]byte("2\x00QubesException\x00\x00no %s\x00x\x00"))
	f.Add([]byte("1\x00s\x00e\x00k\x00v\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		text, err := parseReply(raw)
		if err != nil && text != "" {
			t.Error("a text and an error")
		}
		s := &Stream{r: bufio.NewReader(bytes.NewReader(raw))}
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		for _, columns := range []int{0, 1, 3} {
			rows, err := parseTable(string(raw), columns)
			for _, r := range rows {
				if err == nil && len(r.Values) != columns {
					t.Error("a row of another width")
				}
			}
		}
		_ = parseProperty(string(raw))
	})
}

func FuzzDevices(f *testing.F) {
	f.Add("dom0+sda:1:2 device_id='1:2' port_id='sda' devclass='block' backend_domain='dom0' mode='required' _x='it\\'s'")
	f.Add("2-1 interfaces='u080650' vendor=''")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseDevices("block", "dom0", text)
		if err != nil {
			return
		}
		for _, d := range list {
			if d.Class != "block" || d.Info == nil {
				t.Errorf("%+v", d)
			}
			if again, err := ParseDevice("block", d.Backend+":"+d.Port+":"+d.ID); err == nil && !strings.Contains(d.Port+d.Backend, ":") && again.Port != d.Port {
				t.Errorf("%+v is read again as %+v", d, again)
			}
		}
	})
}
