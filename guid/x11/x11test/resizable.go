package x11test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dummyConfig is an X server that draws into memory and takes new modes.
const dummyConfig = `Section "ServerFlags"
	Option "DontVTSwitch" "true"
	Option "AllowMouseOpenFail" "true"
	Option "AutoAddDevices" "false"
	Option "AutoEnableDevices" "false"
	Option "AutoAddGPU" "false"
EndSection
Section "Device"
	Identifier "memory"
	Driver "dummy"
	VideoRam 64000
EndSection
Section "Monitor"
	Identifier "monitor"
	HorizSync 1-2000
	VertRefresh 1-400
	Modeline "1280x800" 64.70 1280 1296 1312 1328 800 803 806 812
EndSection
Section "Screen"
	Identifier "screen"
	Device "memory"
	Monitor "monitor"
	DefaultDepth 24
	SubSection "Display"
		Depth 24
		Modes "1280x800"
		Virtual 3000 2000
	EndSubSection
EndSection
`

// StartResizable runs an X server whose screen Conn.ResizeScreen can change,
// up to 3000×2000, until the test ends. It skips the test where Xorg or its
// dummy driver is missing, or the test does not run as root.
func StartResizable(t testing.TB) string {
	t.Helper()
	const server = "/usr/lib/xorg/Xorg" // the wrapper in PATH asks for a console
	if _, err := os.Stat(server); err != nil || os.Getuid() != 0 {
		t.Skip("no Xorg for this user")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "xorg.conf")
	if err := os.WriteFile(config, []byte(dummyConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(server, "-config", config, "-displayfd", "3", "-logfile", filepath.Join(dir, "log"),
		"-verbose", "0", "-novtswitch", "-sharevts", "-noreset", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	run(t, cmd)
	w.Close()
	r.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("Xorg did not start: %v", err)
	}
	return ":" + strings.TrimSpace(line)
}
