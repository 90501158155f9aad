package desktop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	dbusconf "cubicle/assets/dbus"
	"cubicle/daemon/bus/client"
	"cubicle/daemon/launch"
	"cubicle/daemon/paths"
)

// What System says on its standard output, a line each.
const (
	saysFolders = "folders" // the desktop user's folder exists
	saysReady   = "ready"   // bus, qubesd and qrexecd answer
)

// SystemOptions are the parameters of System.
type SystemOptions struct {
	Root     paths.Root
	Bin      string // folder of our programs
	Engine   string // default engine; empty: qubesd chooses
	UserUID  int    // the desktop user
	UserGID  int
	UpPID    int           // the process that asked for it
	Log      *launch.Log   // of the daemons
	Ready    io.Writer     // gets saysFolders and saysReady
	Stop     io.Reader     // its end means stop
	Patience time.Duration // how long qubes may take to shut down before they are killed
}

// System runs the system's bus, qubesd, qrexecd and dom0's services until ctx
// ends or Stop does, then shuts the qubes down and removes everything volatile.
func System(ctx context.Context, o SystemOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("this part needs root: start `cubicle up` as root, or as a user who may use sudo")
	}
	if err := checkRoot(o.Root); err != nil {
		return err
	}
	f := files{o.Root}
	if err := makeFolders(f, o.UserUID, o.UserGID); err != nil {
		return err
	}
	lock, err := lockSystem(f, o.UpPID)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := linkPolicyAgent(f, o.UserUID); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		// Any end of the input, an error too, means that nobody needs us.
		_, _ = io.Copy(io.Discard, o.Stop)
		cancel()
	}()
	if _, err := fmt.Fprintln(o.Ready, saysFolders); err != nil {
		return err
	}
	if err := awaitQubesd(ctx, o.Root); err != nil {
		return err
	}
	// Those of killed daemons would make ours look ready before they are, and
	// one that is told to stop too early stops no qube.
	removeSockets(o.Root)
	group := launch.NewGroup(o.Log)
	defer removeSockets(o.Root)
	defer group.Stop()
	// Asked to stop meanwhile, it stops afterwards: only a qubesd that is up
	// can stop the qubes that an earlier one left.
	if err := startDaemons(context.WithoutCancel(ctx), group, f, o); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(o.Ready, saysReady); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// makeFolders makes what must exist before the daemons do. Every folder on
// the way to a qube's files must be passable for other users, because a
// sandbox's root is one.
func makeFolders(f files, uid, gid int) error {
	for _, dir := range []string{f.dir(), filepath.Dir(f.root.SystemBus()), f.root.RunQubes(), f.root.State(), f.root.Log()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	mine := f.user(uid)
	if err := os.MkdirAll(mine, 0o700); err != nil {
		return err
	}
	return os.Chown(mine, uid, gid)
}

// linkPolicyAgent makes the policy agent's place a link into the desktop
// user's own folder: the agent may not make a socket in root's.
func linkPolicyAgent(f files, uid int) error {
	place := f.root.PolicyAgent()
	if err := os.Remove(place); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(filepath.Join(f.user(uid), policyAgentSocket), place)
}

// policyAgentSocket is as short as may be: a socket's path has its bounds.
const policyAgentSocket = "ask.sock"

func startDaemons(ctx context.Context, group *launch.Group, f files, o SystemOptions) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no answer after 30 s"))
	defer cancel()
	env := append(os.Environ(), paths.Env+"="+string(o.Root), "DBUS_SYSTEM_BUS_ADDRESS="+client.Address(o.Root))
	conf, err := dbusconf.SystemBus(client.Address(o.Root), []int{o.UserUID})
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.busConfig(), []byte(conf), 0o644); err != nil {
		return err
	}
	bus, err := group.Start(launch.Program{
		Name: "bus", Env: env,
		Args: []string{"dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file=" + f.busConfig()},
	})
	if err != nil {
		return err
	}
	if err := bus.WaitFor(ctx, answers(o.Root.SystemBus())); err != nil {
		return err
	}
	router, err := unusedUser()
	if err != nil {
		return err
	}
	args := []string{filepath.Join(o.Bin, "qubesd"), "--root", string(o.Root),
		"--agent-dir", filepath.Join(o.Bin, "agent"), "--bin-dir", o.Bin,
		"--user-uid", strconv.Itoa(o.UserUID), "--group", strconv.Itoa(o.UserGID),
		"--qrexec-uid", strconv.Itoa(router), "--stop-qubes-on-exit", o.Patience.String()}
	if o.Engine != "" {
		args = append(args, "--engine", o.Engine)
	}
	qubesd, err := group.Start(launch.Program{Name: "qubesd", Args: args, Env: env, Restart: true, Grace: o.Patience + 30*time.Second})
	if err != nil {
		return err
	}
	if err := qubesd.WaitFor(ctx, exists(o.Root.Router())); err != nil {
		return err
	}
	services, err := group.Start(launch.Program{
		Name: "services", Env: env, Restart: true,
		Args: []string{filepath.Join(o.Bin, "qrexec"), "serve", "--root", string(o.Root),
			"--allow-uid", strconv.Itoa(router), "--uid", strconv.Itoa(o.UserUID)},
	})
	if err != nil {
		return err
	}
	qrexecd, err := group.Start(launch.Program{
		Name: "qrexecd", Env: env, Restart: true,
		Args: []string{filepath.Join(o.Bin, "qrexecd"), "--root", string(o.Root), "--allow-uid", strconv.Itoa(o.UserUID),
			"--uid", strconv.Itoa(router), "--gid", strconv.Itoa(o.UserGID)},
	})
	if err != nil {
		return err
	}
	if err := services.WaitFor(ctx, exists(o.Root.Services())); err != nil {
		return err
	}
	return qrexecd.WaitFor(ctx, exists(o.Root.Broker()))
}

// answers tells whether somebody listens on the socket at path: a bus has its
// socket a moment before.
func answers(path string) func() bool {
	return func() bool {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

// unusedUser returns the id under which qrexecd runs: that of the user
// "qubes" where there is one, else one that nobody has.
func unusedUser() (int, error) {
	if u, err := user.Lookup("qubes"); err == nil {
		return strconv.Atoi(u.Uid)
	}
	for uid := 64999; uid > 60000; uid-- { // Debian's range for such ids ends there
		if _, err := user.LookupId(strconv.Itoa(uid)); errors.As(err, new(user.UnknownUserIdError)) {
			return uid, nil
		}
	}
	return 0, errors.New("no unused user id between 60000 and 65000 for qrexecd")
}

// removeSockets removes what the daemons leave in the run folders: names of
// ours only, since the root may be the real one.
func removeSockets(root paths.Root) {
	for _, name := range sockets(root) {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			slog.Warn("cannot remove a socket", "error", err)
		}
	}
}

// sockets are the names under which our daemons can be reached, also those
// that killed daemons left.
func sockets(root paths.Root) []string {
	names := []string{root.Qubesd(), root.QubesdInternal(), root.QubesdMisc(),
		root.Router(), root.Broker(), root.Services(), root.Policyd(), root.SystemBus()}
	for _, place := range []struct{ dir, pattern string }{
		{root.RunQubes(), "qrexec.*"},
		{root.Links(), "*/" + paths.LinkSocket},
		{root.Vchan(), "vchan.*.sock"},
		{root.RPC()[0], "policy.Eval*"},
	} {
		found, err := fs.Glob(os.DirFS(place.dir), place.pattern)
		if err != nil {
			slog.Warn("cannot look for sockets", "folder", place.dir, "error", err)
		}
		for _, name := range found {
			names = append(names, filepath.Join(place.dir, name))
		}
	}
	return names
}

// waitLines reads System's lines from r and tells them through the returned
// function, which waits for one.
func waitLines(r io.Reader) func(ctx context.Context, want string) error {
	lines := make(chan string, 4)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return func(ctx context.Context, want string) error {
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					return errors.New("the system's part ended; its message stands above")
				}
				if line == want {
					return nil
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}
