package filecopy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	wire "cubicle/daemon/qrexec/filecopy"
)

// jailed is the argument by which the test is a service in its jail.
const jailed = "unpack in a jail"

func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != jailed {
		os.Exit(m.Run())
	}
	os.Exit(Call{Source: "work", Home: os.Args[2], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Lock: func(dir string) error {
		if err := Jail(dir); err != nil {
			return err
		}
		return escapes()
	}}.Serve())
}

// escapes tries what a jailed process must not be able to do.
func escapes() error {
	if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != unix.EPERM {
		return fmt.Errorf("a socket: %w", err)
	}
	if err := exec.Command("/bin/true").Run(); err == nil {
		return errors.New("a program runs")
	}
	if abi, err := llsys.LandlockGetABIVersion(); err != nil || abi < 1 {
		return nil // files are open to it on this kernel
	}
	fd, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0)
	if err == nil {
		unix.Close(fd)
		return errors.New("a file outside can be read")
	}
	return nil
}

func TestJail(t *testing.T) {
	for _, c := range []struct {
		name, stream string
		status       int
	}{
		{"all kinds", folderRec("d") + fileRec("d/a", strings.Repeat("x", 3<<20)) + linkRec("d/l", "a") + folderRec("d") + end, 0},
		{"too short", fileRec("b", "long")[:36], int(wire.CodeReported % 256)},
		{"there already", fileRec("old", "new") + end, int(unix.EEXIST)},
	} {
		home := t.TempDir()
		dir := filepath.Join(home, "QubesIncoming", "work")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, jailed, home)
		cmd.Stdin = strings.NewReader(c.stream)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // its status tells
		a, err := wire.ReadAnswer(&stdout)
		if err != nil || cmd.ProcessState.ExitCode() != c.status || int(a.Code%256) != c.status {
			t.Errorf("%s: %+v, %v, %v, %s", c.name, a, err, cmd.ProcessState, stderr.String())
		}
		if c.status == 0 {
			b, err := os.ReadFile(filepath.Join(dir, "d/l"))
			if err != nil || len(b) != 3<<20 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		}
	}
}
