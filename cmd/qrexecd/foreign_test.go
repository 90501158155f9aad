package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cubicle/daemon/vchan"
)

// script reads bytes in hex, and 'texts'.
func script(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	for i, part := range strings.Split(text, "'") {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		piece, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			t.Fatalf("%q: %v", part, err)
		}
		b = append(b, piece...)
	}
	return b
}

type talker struct {
	t *testing.T
	net.Conn
}

func (c talker) say(text string) {
	c.t.Helper()
	if _, err := c.Write(script(c.t, text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c talker) hear(text string) {
	c.t.Helper()
	want := script(c.t, text)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		c.t.Fatalf("heard %x, %v\nwant  %x", got[:n], err, want)
	}
}

// foreignDaemon is our agent, as qube 7, and upstream's daemon, whom the test
// plays: they meet on socket vchan alone.
type foreignDaemon struct {
	t       *testing.T
	dir     string // the agent's folders
	vchan   string
	control talker
}

func newForeignDaemon(t *testing.T, version int) *foreignDaemon {
	t.Helper()
	d := &foreignDaemon{t: t, dir: t.TempDir(), vchan: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(d.dir, "rpc"), 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := new(safeBuffer)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), agentEnv+"="+filepath.Join(d.dir, "link", "none"), "VCHAN_DOMAIN=7", "VCHAN_SOCKET_DIR="+d.vchan)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop(cmd)
		if t.Failed() {
			t.Log(log)
		}
	})
	d.control = d.dial(0, 512)
	d.control.hear("00030000 04000000 04000000") // the agent speaks first
	d.control.say(fmt.Sprintf("00030000 04000000 %02x000000", version))
	return d
}

func (d *foreignDaemon) talker(conn net.Conn, err error) talker {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		d.t.Fatal(err)
	}
	return talker{d.t, conn}
}

// dial connects to a channel that the agent's qube offers to a domain.
func (d *foreignDaemon) dial(self vchan.Domain, port vchan.Port) talker {
	d.t.Helper()
	conn, err := (&vchan.Unix{Dir: d.vchan, Self: self}).Dial(d.t.Context(), 7, port)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.talker(conn.Conn, nil)
}

// listen offers a domain's channel to the agent's qube.
func (d *foreignDaemon) listen(self vchan.Domain, port vchan.Port) <-chan net.Conn {
	c := make(chan net.Conn, 1)
	go func() {
		ch, err := (&vchan.Unix{Dir: d.vchan, Self: self}).Listen(d.t.Context(), 7, port)
		if err != nil {
			close(c)
			return
		}
		c <- ch.Conn
	}()
	return c
}

// exec says EXEC_CMDLINE or another message with a command.
func (d *foreignDaemon) exec(typ string, domain, port int, command string) {
	d.t.Helper()
	d.control.say(fmt.Sprintf("%s %02x000000 %02x000000 %02x%02x0000 '%s' 00", typ, 8+len(command)+1, domain, port&0xff, port>>8, command))
}

// settle returns when the agent has taken our hello up: a first call tells.
func (d *foreignDaemon) settle() {
	d.t.Helper()
	offered := d.listen(0, 768)
	d.exec("01020000", 0, 768, me(d.t)+":nogui:true")
	data := d.talker(<-offered, nil)
	data.say("00030000 04000000 04000000")
	data.hear("00030000 04000000 04000000")
	d.control.hear("11020000 08000000 00000000 00030000")
}

// TestForeignDaemonStartsServices: our agent's end of spec/qrexec.md §7.1, §7.4
// and §8, at every version of control and data channel.
func TestForeignDaemonStartsServices(t *testing.T) {
	for _, version := range []int{2, 3, 4, 9} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			d := newForeignDaemon(t, version)
			for domain, port := range map[int]int{0: 513, 8: 514} {
				offered := d.listen(vchan.Domain(domain), vchan.Port(port))
				d.exec("00020000", domain, port, me(t)+":nogui:cat; exit 3")
				data := d.talker(<-offered, nil)
				data.say(fmt.Sprintf("00030000 04000000 %02x000000", version))
				data.hear("00030000 04000000 04000000")
				data.say("90010000 05000000 'hello'")
				data.hear("91010000 05000000 'hello'")
				data.say("90010000 00000000") // the end of its input
				ends := make([]byte, 16)
				if _, err := io.ReadFull(data, ends); err != nil {
					t.Fatal(err)
				}
				out, errs := script(t, "91010000 00000000"), script(t, "92010000 00000000")
				if !bytes.Equal(ends, append(bytes.Clone(out), errs...)) && !bytes.Equal(ends, append(bytes.Clone(errs), out...)) {
					t.Errorf("the ends were %x", ends)
				}
				data.hear("93010000 04000000 03000000")
				d.control.hear(fmt.Sprintf("11020000 08000000 %02x000000 %02x020000", domain, port&0xff))
			}
			// What is not there: ends, then 127.
			offered := d.listen(0, 515)
			d.exec("00020000", 0, 515, me(t)+":QUBESRPC t.None+ dom0")
			data := d.talker(<-offered, nil)
			data.say("00030000 04000000 04000000")
			data.hear("00030000 04000000 04000000 91010000 00000000 92010000 00000000 93010000 04000000 7f000000")
			d.control.hear("11020000 08000000 00000000 03020000")
			// Without its data: 0 as soon as it runs.
			offered = d.listen(0, 516)
			d.exec("01020000", 0, 516, me(t)+":nogui:exit 9")
			data = d.talker(<-offered, nil)
			data.say("00030000 04000000 04000000")
			data.hear("00030000 04000000 04000000 91010000 00000000 92010000 00000000 93010000 04000000 00000000")
			d.control.hear("11020000 08000000 00000000 04020000")
		})
	}
}

// TestForeignDaemonChunks: a peer of version 2 gets messages of 4 KiB.
func TestForeignDaemonChunks(t *testing.T) {
	d := newForeignDaemon(t, 4)
	for version, chunk := range map[int]int{2: 4096, 3: 65536, 4: 65536} {
		offered := d.listen(0, 513)
		d.exec("00020000", 0, 513, me(t)+":nogui:head -c 300000 /dev/zero")
		data := d.talker(<-offered, nil)
		data.say(fmt.Sprintf("00030000 04000000 %02x000000", version))
		data.hear("00030000 04000000 04000000")
		longest, total := 0, 0
		for {
			header := make([]byte, 8)
			if _, err := io.ReadFull(data, header); err != nil {
				t.Fatal(err)
			}
			n := int(header[4]) | int(header[5])<<8 | int(header[6])<<16
			if _, err := io.CopyN(io.Discard, data, int64(n)); err != nil {
				t.Fatal(err)
			}
			if header[0] == 0x91 {
				longest, total = max(longest, n), total+n
			}
			if header[0] == 0x93 {
				break
			}
		}
		if longest > chunk || total != 300000 {
			t.Errorf("version %d: messages of %d bytes, %d in all", version, longest, total)
		}
		d.control.hear("11020000 08000000 00000000 01020000")
	}
}

// TestForeignDaemonTakesCalls: our agent's end of spec/qrexec.md §7.2.
func TestForeignDaemonTakesCalls(t *testing.T) {
	d := newForeignDaemon(t, 4)
	d.settle()
	trigger := func() talker {
		t.Helper()
		c := d.talker(vchan.DialPath(t.Context(), filepath.Join(d.dir, "trigger")))
		c.say("13020000 a8000000" + strings.Repeat("00", 64) + "'mail'" + strings.Repeat("00", 60) + "'SOCKET'" + strings.Repeat("00", 26) + "'t.Svc+k' 00")
		return c
	}
	asked := func(ident string) {
		t.Helper()
		d.control.hear("13020000 a8000000" + strings.Repeat("00", 64) + "'mail'" + strings.Repeat("00", 60) + "'" + ident + "'" + strings.Repeat("00", 32-len(ident)) + "'t.Svc+k' 00")
	}
	ident := func(n string) string { return "'SOCKET" + n + "'" + strings.Repeat("00", 26-len(n)) }

	c := trigger()
	asked("SOCKET1")
	d.control.say("02020000 28000000 08000000 02020000" + ident("1"))
	c.hear("08000000 02020000")
	c.Close()
	d.control.hear("11020000 08000000 08000000 02020000")

	c = trigger()
	asked("SOCKET2")
	d.control.say("03020000 20000000" + ident("2"))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("refused: %d, %v", n, err)
	}

	// A program that leaves: dom0 hears of it by a domain that cannot be, and
	// an answer that comes all the same ends at once.
	c = trigger()
	asked("SOCKET3")
	c.Close()
	d.control.hear("11020000 08000000 030000c0 01020000")
	d.control.say("02020000 28000000 08000000 02020000" + ident("3"))
	d.control.hear("11020000 08000000 08000000 02020000")
}

// TestForeignDaemonOfAnOldVersion: our agent's calls need version 4, as
// upstream's do.
func TestForeignDaemonOfAnOldVersion(t *testing.T) {
	for version := 2; version <= 3; version++ {
		d := newForeignDaemon(t, version)
		d.settle()
		c := d.talker(vchan.DialPath(t.Context(), filepath.Join(d.dir, "trigger")))
		c.say("13020000 a8000000" + strings.Repeat("00", 64) + "'mail'" + strings.Repeat("00", 60) + "'SOCKET'" + strings.Repeat("00", 26) + "'t.Svc+k' 00")
		if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			t.Errorf("version %d: %d, %v", version, n, err)
		}
	}
}
