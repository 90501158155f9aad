package dom0test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// StartBus runs a private dbus-daemon and returns its address and what ends
// it. Only this user may use it.
func StartBus() (address string, stop func(), err error) { return startBus("--session") }

// StartOpenBus is StartBus with a bus for every user, as the system bus is.
func StartOpenBus() (address string, stop func(), err error) {
	file, err := os.CreateTemp("", "bus-*.conf")
	if err != nil {
		return "", nil, err
	}
	defer os.Remove(file.Name()) // it has been read once there is an address
	_, err = file.WriteString(`<busconfig><include>/usr/share/dbus-1/session.conf</include><policy context="mandatory"><allow user="*"/></policy></busconfig>`)
	if err = errors.Join(err, file.Close()); err != nil {
		return "", nil, err
	}
	address, stop, err = startBus("--config-file=" + file.Name())
	if err != nil {
		return "", nil, err
	}
	socket, _, _ := strings.Cut(strings.TrimPrefix(address, "unix:path="), ",")
	if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
		stop()
		return "", nil, err
	}
	return address, stop, nil
}

func startBus(config string) (address string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "bus-*")
	if err != nil {
		return "", nil, err
	}
	daemon := exec.Command("dbus-daemon", config, "--nofork", "--nopidfile", "--print-address=1", "--address=unix:path="+dir+"/bus")
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
