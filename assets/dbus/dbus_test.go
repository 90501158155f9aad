package dbus_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"cubicle/assets/dbus"
)

// The roles of the program that the test starts as another user.
const roleEnv = "CUBICLE_TEST_BUS_ROLE"

func TestMain(m *testing.M) {
	if address := os.Getenv(roleEnv); address != "" {
		os.Exit(asUser(address))
	}
	os.Exit(m.Run())
}

// asUser prints what the bus lets this user do.
func asUser(address string) int {
	conn, err := godbus.Connect(address)
	if err != nil {
		fmt.Println("refused")
		return 0
	}
	defer conn.Close()
	fmt.Println("connected")
	object := conn.Object("org.cubicle.Qubes1", "/org/cubicle/Qubes1")
	for _, method := range []string{"org.cubicle.Qubes1.Manager.CreateQube", "org.cubicle.Qubes1.Manager.Erase"} {
		err := object.Call(method, 0).Err
		e, _ := err.(godbus.Error)
		fmt.Println(method, e.Name)
	}
	if reply, err := conn.RequestName("org.cubicle.Qubes1.Mine", godbus.NameFlagDoNotQueue); err == nil {
		fmt.Println("owns a name:", reply)
	}
	return 0
}

// TestTheBusAdmitsRootAndTheDesktopUserOnly runs a bus with the
// configuration, as root with a service, and tries as two other users.
func TestTheBusAdmitsRootAndTheDesktopUserOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the bus asks for several users' ids, which only root can take")
	}
	const desktop, stranger = 1, 2            // daemon and bin: the bus wants users that have a name
	dir, err := os.MkdirTemp("/tmp", "bus-*") // a short path: it becomes a socket's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	address := "unix:path=" + filepath.Join(dir, "s")
	conf, err := dbus.SystemBus(address, []int{desktop})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file="+file)
	bus.Stderr = os.Stderr
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	defer bus.Wait()
	defer bus.Process.Kill()
	var conn *godbus.Conn
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err = godbus.Connect(address); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no bus: %v", err)
		}
	}
	defer conn.Close()
	if reply, err := conn.RequestName("org.cubicle.Qubes1", godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("root cannot own the name: %v, %v", reply, err)
	}
	// The service answers every call with an error of its own, so that one
	// sees which calls arrive.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "try")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	try := func(uid uint32) string {
		cmd := exec.Command(program)
		cmd.Env = []string{roleEnv + "=" + address}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("uid %d: %v", uid, err)
		}
		return string(out)
	}
	if got := try(stranger); got != "refused\n" {
		t.Errorf("a stranger: %q", got)
	}
	const denied = "org.freedesktop.DBus.Error.AccessDenied"
	lines := strings.Split(try(desktop), "\n")
	if lines[0] != "connected" {
		t.Fatalf("the desktop user: %q", lines)
	}
	if !strings.HasPrefix(lines[1], "org.cubicle.Qubes1.Manager.CreateQube org.freedesktop.DBus.Error.") || strings.Contains(lines[1], denied) {
		t.Errorf("a listed method does not arrive: %q", lines[1])
	}
	if lines[2] != "org.cubicle.Qubes1.Manager.Erase "+denied {
		t.Errorf("a method that is not listed: %q", lines[2])
	}
	if lines[3] != "" {
		t.Errorf("the desktop user %s", lines[3])
	}
}

func TestTheAddressIsEscaped(t *testing.T) {
	conf, err := dbus.SystemBus("unix:path=/tmp/a&<b>", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(conf, "<listen>unix:path=/tmp/a&amp;&lt;b&gt;</listen>") {
		t.Error(conf)
	}
}
