package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// TestRegionFromTheJail: the locked-in process makes the sealed memory and
// passes it to both sides, again and again.
func TestRegionFromTheJail(t *testing.T) {
	s := newSystem(t)
	q := s.qube(workDomain, "work")
	qube, err := vchan.DialLink(t.Context(), q.linkPath())
	if err != nil {
		t.Fatal(err)
	}
	defer qube.Close()
	guid, err := vchan.DialLink(t.Context(), s.root.Broker())
	if err != nil {
		t.Fatal(err)
	}
	defer guid.Close()
	for range 20 {
		offered := make(chan *vchan.Channel, 1)
		go func() {
			ch, err := qube.Listen(t.Context(), 0, vchan.PortGUI)
			if err != nil {
				t.Error(err)
			}
			offered <- ch
		}()
		ours, err := guid.Dial(t.Context(), workDomain, vchan.PortGUI)
		if err != nil {
			t.Fatal(err)
		}
		theirs := <-offered
		if theirs == nil {
			return
		}
		if _, err := theirs.Region.WriteAt([]byte("pixel"), vchan.RegionSize-5); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := ours.Region.ReadAt(got, vchan.RegionSize-5); err != nil || string(got) != "pixel" {
			t.Fatalf("%q, %v", got, err)
		}
		ours.Close()
		theirs.Close()
	}
	if n := descriptors(t, s.daemon.Process.Pid); n > 40 {
		t.Errorf("qrexecd holds %d descriptors", n)
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil { // not dumpable: only root may look
		t.Skip(err)
	}
	return len(list)
}

// TestLinkFolderElsewhere: what qubesd tells cannot lead out of the jail, and
// the failure is told.
func TestLinkFolderElsewhere(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	s.tell(control.Message{Kind: control.Up, Qube: &control.Qube{Domain: 9, Name: "astray", LinkDir: dir}})
	if m := s.wait(control.Listening, 9); m.Error == "" {
		t.Error("a link socket outside of the run folder")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	s.qube(workDomain, "work").start() // and nothing else is hurt
}

// TestDependencies keeps what the process that reads qubes' bytes is made of
// small: our own leaves, and neither a web client nor a toolkit.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "cubicle/cmd/qrexecd").Output()
	if err != nil {
		t.Fatal(err)
	}
	may := map[string]bool{"cubicle/cmd/qrexecd": true, "cubicle/daemon/paths": true, "cubicle/daemon/vchan": true, "cubicle/daemon/seccomp": true,
		"cubicle/daemon/qrexec": true, "cubicle/daemon/qrexec/control": true, "cubicle/daemon/qrexec/wire": true, "cubicle/daemon/qrexec/jail": true, "cubicle/daemon/qubesdb": true}
	for dep := range strings.FieldsSeq(string(out)) {
		switch {
		case strings.HasPrefix(dep, "cubicle/") && !may[dep]:
			t.Errorf("qrexecd contains %s", dep)
		case dep == "net/http", dep == "crypto/tls", dep == "os/exec", strings.HasPrefix(dep, "fyne.io/"), strings.HasPrefix(dep, "github.com/godbus/"):
			t.Errorf("qrexecd contains %s", dep)
		}
	}
}
