package dom0test

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
)

// StartBus runs a private dbus-daemon and returns its address and what ends
// it.
func StartBus() (address string, stop func(), err error) {
	daemon := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1")
	out, err := daemon.StdoutPipe()
	if err != nil {
		return "", nil, fmt.Errorf("dbus-daemon: %w", err)
	}
	if err := daemon.Start(); err != nil {
		return "", nil, fmt.Errorf("dbus-daemon: %w", err)
	}
	end := func() {
		daemon.Process.Kill()
		daemon.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		end()
		return "", nil, fmt.Errorf("dbus-daemon told no address: %w", err)
	}
	return strings.TrimSpace(line), end, nil
}
