package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/runner"
	"cubicle/daemon/vchan"
)

type serveFlags struct {
	Root     string   `help:"Folder of the whole system (default: $$CUBICLE_ROOT, or /)." type:"path" placeholder:"DIR"`
	AllowUID []uint32 `help:"User who may hand calls over, beside root: qrexecd's." name:"allow-uid" placeholder:"N"`
	UID      int      `help:"User whose services these are, when started by root (default: stay)." name:"uid" placeholder:"N"`
	Debug    bool     `help:"Log details." env:"CUBICLE_DEBUG"`
}

func serveMain(args []string) int {
	var f serveFlags
	parse(&f, args, "qrexec serve", "Runs dom0's own services for the qubes that may call them.")
	level := slog.LevelInfo
	if f.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := serve(log, f); err != nil {
		log.Error("failed", "err", err)
		return 1
	}
	return 0
}

func serve(log *slog.Logger, f serveFlags) error {
	root, err := paths.Resolve(f.Root)
	if err != nil {
		return err
	}
	// The folder is root's: the socket must be there before we are nobody.
	l, err := listen(root.Services())
	if err != nil {
		return err
	}
	if err := become(f.UID); err != nil {
		l.Close()
		return err
	}
	env, err := environment(os.Environ())
	if err != nil {
		l.Close()
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return runner.New(runner.Options{Root: root, AllowUIDs: f.AllowUID, Env: env, Log: log}).Serve(ctx, l)
}

// listen makes the socket, to which everybody may connect: the runner asks who
// is there.
func listen(path string) (*net.UnixListener, error) {
	l, err := vchan.ListenPath(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// become gives up root's rights for good, for those of a user with all of the
// user's groups.
func become(uid int) error {
	if uid == 0 || os.Geteuid() != 0 {
		return nil
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("become user %d: group %q: %w", uid, u.Gid, err)
	}
	names, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	var groups []int
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil {
			groups = append(groups, id)
		}
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("become user %d: groups: %w", uid, err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("become user %d: group %d: %w", uid, gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	// The kernel forgets with the rights that we are to end with who started us.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the system: %w", err)
	}
	return nil
}

// environment is what services get: who they run as, and of the system's part
// that started us what tells where the system is. The rest of it is root's.
func environment(own []string) ([]string, error) {
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("environment of the services: %w", err)
	}
	env := []string{"HOME=" + u.HomeDir, "LOGNAME=" + u.Username, "USER=" + u.Username,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, kv := range own {
		switch key, _, _ := strings.Cut(kv, "="); key {
		case "LANG", "TZ", paths.Env, "DBUS_SYSTEM_BUS_ADDRESS":
			env = append(env, kv)
		}
	}
	return env, nil
}
