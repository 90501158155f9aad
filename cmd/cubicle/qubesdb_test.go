package main_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testQubesDB asks and changes the databases of qubes from both sides: what
// dom0 says reaches the qube at once, what the qube writes is seen in dom0,
// and a qube cannot change what is dom0's.
func (d *desktop) testQubesDB(t *testing.T) {
	for _, name := range []string{"work", "untrusted"} {
		if got := d.inQube(t, name, "qubesdb-read /name /type /qubes-vm-type /qubes-vm-persistence /default-user"); got != name+"\nAppVM\nAppVM\nrw-only\nuser" {
			t.Errorf("%s reads %q", name, got)
		}
		if out, _, err := d.tool("qubesdb-read", "-d", name, "/name"); err != nil || strings.TrimSpace(out) != name {
			t.Errorf("dom0 reads %q in the database of %s: %v", out, name, err)
		}
	}
	if got := d.inQube(t, "work", "cat /etc/timezone; test -e /run/qubes-service/meminfo-writer || echo off; ls -d /run/qubes/this-is-* /run/qubes/persistent-*"); got != d.zone(t)+"\noff\n/run/qubes/persistent-rw-only\n/run/qubes/this-is-appvm" {
		t.Errorf("what follows from the keys: %q", got)
	}

	// A watch fires in the qube when a feature changes in dom0.
	type result struct {
		out string
		err error
	}
	fired := make(chan result, 1)
	go func() {
		out, _, err := d.tool("qvm-run", "--pass-io", "work", "until qubesdb-watch /vm-config/ && qubesdb-read -q /vm-config/X; do :; done")
		fired <- result{out, err}
	}()
	eventually(t, func() string {
		// Again until the watch is there.
		if _, _, err := d.tool("qvm-features", "work", "vm-config.X", "one two"); err != nil {
			return err.Error()
		}
		select {
		case r := <-fired:
			if r.err != nil || !strings.HasSuffix(strings.TrimSpace(r.out), "/vm-config/X\none two") {
				t.Errorf("the watch says %q, %v", r.out, r.err)
			}
			return ""
		case <-time.After(time.Second):
		}
		if _, _, err := d.tool("qvm-features", "--unset", "work", "vm-config.X"); err != nil {
			return err.Error()
		}
		return "the watch does not fire"
	})
	if _, _, err := d.tool("qvm-features", "--unset", "work", "vm-config.X"); err != nil {
		t.Fatal(err)
	}
	if got := d.inQube(t, "work", "while qubesdb-read -q /vm-config/X; do sleep 0.05; done; echo gone"); !strings.HasSuffix(got, "gone") {
		t.Errorf("a feature that was removed: %q", got)
	}

	// Services follow while the qube runs.
	for _, on := range []bool{true, false} {
		value, test := "1", "test -e"
		if !on {
			value, test = "", "test ! -e"
		}
		if _, _, err := d.tool("qvm-features", "work", "service.crond", value); err != nil {
			t.Fatal(err)
		}
		d.inQube(t, "work", fmt.Sprintf("until %s /run/qubes-service/crond; do sleep 0.05; done", test))
	}

	// From the qube to dom0.
	d.inQube(t, "work", "qubesdb-write /features-request/gui 1 /name dom0; true")
	eventually(t, func() string {
		out, _, err := d.tool("qubesdb-multiread", "-d", "work", "/features-request/")
		if strings.TrimSpace(out) != "gui = 1" {
			return fmt.Sprintf("dom0 reads %q, %v", out, err)
		}
		return ""
	})
	if out, _, err := d.tool("qubesdb-read", "-d", "work", "/name"); err != nil || strings.TrimSpace(out) != "work" {
		t.Errorf("the qube has changed its name in dom0 to %q, %v", out, err)
	}
	// What the qube asks for there, qubesd hears when it is called; of a qube
	// with a template that is which calls it supports.
	d.inQube(t, "work", "qubesdb-rm /features-request/; qubesdb-write /name work /features-request/supported-rpc.test.Ping 1")
	eventually(t, func() string {
		if reply := d.misc(t, "qubes.FeaturesRequest work name dom0\x00"); reply != "0\x00" {
			return fmt.Sprintf("qubesd replies %q", reply)
		}
		out, _, err := d.tool("qvm-features", "work", "supported-rpc.test.Ping")
		if strings.TrimSpace(out) != "1" {
			return fmt.Sprintf("the feature is %q, %v", out, err)
		}
		return ""
	})
	d.inQube(t, "work", "qubesdb-rm /features-request/")
}

// misc makes a call on the socket for what qubes tell of themselves.
func (d *desktop) misc(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: filepath.Join(d.root, "run/qubesd.misc.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(reply)
}

// testKeyboard changes dom0's keyboard: that of the qubes follows.
func (d *desktop) testKeyboard(t *testing.T) {
	for _, layout := range []string{"de", "us"} {
		if out, err := exec.Command("setxkbmap", layout).CombinedOutput(); err != nil {
			t.Fatalf("setxkbmap: %v: %s", err, out)
		}
		eventually(t, func() string {
			if got := d.inQube(t, "work", "setxkbmap -query | sed -n 's/layout: *//p'"); got != layout {
				return fmt.Sprintf("the qube's keyboard is %q", got)
			}
			return ""
		})
	}
}

// testImport brings a qube over from a qubes.xml: nothing by a dry run, all
// of it with --apply, and nothing more by another. What is exported then has
// it, and needs no change.
func (d *desktop) testImport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "qubes.xml")
	const text = `<qubes><domains><domain id="domain-7" class="AppVM">
		<properties><property name="qid">7</property><property name="name">shop</property><property name="label">green</property>
			<property name="template">fedora-43-xfce</property><property name="vcpus">1</property><property name="netvm"></property></properties>
		<features><feature name="menu-items">a.desktop b.desktop</feature></features><tags><tag name="money"/></tags>
	</domain><domain id="domain-1" class="TemplateVM"><properties><property name="name">fedora-43-xfce</property></properties></domain></domains></qubes>`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, _, err := d.tool("cubicle", args...)
		if err != nil {
			t.Fatalf("cubicle %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	if out := run("import", file); !strings.Contains(out, "create shop, a green AppVM on debian-12") {
		t.Errorf("the dry run says:\n%s", out)
	}
	if out, _, _ := d.tool("qvm-ls", "--raw-list"); strings.Contains(out, "shop") {
		t.Error("the dry run has made the qube")
	}
	if out := run("import", "--apply", file); !strings.Contains(out, "done:   create shop") {
		t.Errorf("it says:\n%s", out)
	}
	for _, again := range [][]string{{"import", "--apply", file}, {"import", "--update", file}} {
		if out := run(again...); !strings.Contains(out, "There is nothing to do.") {
			t.Errorf("%v again says:\n%s", again, out)
		}
	}
	run("export", file)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<property name="name">shop</property>`, `<property name="vcpus">1</property>`, `<feature name="menu-items">a.desktop b.desktop</feature>`, `<tag name="money">`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("%s is not in\n%s", want, raw)
		}
	}
	if out := run("import", "--update", file); !strings.Contains(out, "There is nothing to do.") {
		t.Errorf("what was exported is not the same:\n%s", out)
	}
	if _, _, err := d.tool("qvm-remove", "--force", "shop"); err != nil {
		t.Error(err)
	}
}

// zone is the machine's time zone, as the qubes know it.
func (d *desktop) zone(t *testing.T) string {
	t.Helper()
	out, _, err := d.tool("qubesdb-read", "-d", "work", "/qubes-timezone")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
