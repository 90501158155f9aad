package dom0test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// StartBus runs a private dbus-daemon and returns its address and what ends
// it.
func StartBus() (address string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "bus-*")
	if err != nil {
		return "", nil, err
	}
	daemon := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1", "--address=unix:path="+dir+"/bus")
	out, err := daemon.StdoutPipe()
	if err == nil {
		err = daemon.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("dbus-daemon: %w", err)
	}
	end := func() {
		daemon.Process.Kill()
		daemon.Wait()
		os.RemoveAll(dir)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		end()
		return "", nil, fmt.Errorf("dbus-daemon told no address: %w", err)
	}
	return strings.TrimSpace(line), end, nil
}
