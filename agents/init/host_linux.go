package pid1

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/agents/session"
)

// setUpHost gives the machine its name and id, and the folders that programs
// expect in the volatile parts of the tree.
func setUpHost(log *slog.Logger, u session.User) error {
	type dir struct {
		path     string
		mode     os.FileMode
		uid, gid uint32
	}
	var errs []error
	for _, d := range []dir{
		{"/tmp", 0o777 | os.ModeSticky, 0, 0},
		{"/tmp/.X11-unix", 0o777 | os.ModeSticky, 0, 0},
		{"/tmp/.ICE-unix", 0o777 | os.ModeSticky, 0, 0},
		{"/var/tmp", 0o777 | os.ModeSticky, 0, 0},
		{"/run/lock", 0o777 | os.ModeSticky, 0, 0},
		{"/run/user", 0o755, 0, 0},
		{u.RuntimeDir(), 0o700, u.UID, u.GID},
		{session.Dir, 0o755, 0, 0},
	} {
		err := os.MkdirAll(d.path, 0o755)
		if err == nil {
			err = os.Chmod(d.path, d.mode)
		}
		if err == nil && d.uid != 0 {
			err = os.Chown(d.path, int(d.uid), int(d.gid))
		}
		errs = append(errs, err)
	}
	errs = append(errs, setUpName(log), setUpMachineID("/etc/machine-id"))
	return errors.Join(errs...)
}

// setUpName makes /etc/hostname and /etc/hosts agree with the name that the
// engine gave the machine.
func setUpName(log *slog.Logger) error {
	name, err := os.Hostname()
	if err != nil || name == "" || name == "(none)" {
		log.Warn("the engine gave no host name", "err", err)
		return nil
	}
	if err := os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile("/etc/hosts", []byte(withHost(string(hosts), name)), 0o644)
}

// withHost returns the hosts file with exactly one 127.0.1.1 line, for name,
// and with the loopback names.
func withHost(hosts, name string) string {
	var b strings.Builder
	loopback := false
	for line := range strings.Lines(hosts) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == "127.0.1.1" {
			continue
		}
		loopback = loopback || len(f) > 1 && f[0] == "127.0.0.1"
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	if !loopback {
		b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	}
	fmt.Fprintf(&b, "127.0.1.1 %s\n", name)
	return b.String()
}

// setUpMachineID gives the machine an id of machine-id(5) where it has none.
func setUpMachineID(path string) error {
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) == 32 {
		return nil
	}
	id := make([]byte, 16)
	rand.Read(id)
	return os.WriteFile(path, []byte(hex.EncodeToString(id)+"\n"), 0o444)
}

// raiseLoopback brings up the loopback interface, which a fresh network
// namespace leaves down.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if req.Uint16()&unix.IFF_UP != 0 {
		return nil
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}
