// Command qubesd is dom0's daemon: it holds the state of all qubes, starts and
// stops them, and serves the Admin API and D-Bus. On SIGTERM it ends and the
// qubes run on, unless told otherwise; the next qubesd finds them again.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"cubicle/daemon/admin"
	"cubicle/daemon/bus"
	"cubicle/daemon/bus/client"
	"cubicle/daemon/core"
	"cubicle/daemon/core/router"
	"cubicle/daemon/engine"
	"cubicle/daemon/engine/external"
	"cubicle/daemon/engine/sandbox"
	"cubicle/daemon/paths"
	"cubicle/daemon/policy"
	"cubicle/daemon/policy/defaults"
	qrexec "cubicle/daemon/qrexec/client"
	"cubicle/daemon/qubesdb/keys"
	"cubicle/daemon/storage"
	"cubicle/daemon/storage/file"
	"cubicle/daemon/store"
	"cubicle/daemon/template"
)

type flags struct {
	Root      string        `help:"Folder of the whole system (default: $$CUBICLE_ROOT, or /)." type:"path" placeholder:"DIR"`
	Engine    string        `help:"Engine of qubes that choose none (default: the strongest that works)." placeholder:"NAME"`
	BinDir    string        `help:"Folder of our programs and of runsc (default: that of qubesd)." type:"path" placeholder:"DIR"`
	AgentDir  string        `help:"Folder that holds the qubes-agent program (default: agent in the folder of our programs)." type:"path" placeholder:"DIR"`
	UserUID   []int         `help:"User who may use the D-Bus service, beside root: the one at the screen." name:"user-uid" aliases:"allow-uid" placeholder:"N"`
	Group     int           `help:"Group that may use the Admin API's socket and to which qrexecd belongs." default:"0" placeholder:"N"`
	QrexecUID int           `help:"User that qrexecd runs as." name:"qrexec-uid" default:"0" placeholder:"N"`
	StopQubes time.Duration `help:"On exit shut all qubes down, and kill those that are not down after this time." name:"stop-qubes-on-exit" placeholder:"TIME"`
	Debug     bool          `help:"Log details." env:"CUBICLE_DEBUG"`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("qubesd"), kong.Description("Holds the state of all qubes, starts and stops them."), kong.UsageOnError())
	level := slog.LevelInfo
	if f.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	// A log that nobody reads any more must not end us before the qubes.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	err := run(ctx, log, f)
	stop()
	if err != nil {
		log.Error("failed", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, f flags) error {
	root, err := paths.Resolve(f.Root)
	if err != nil {
		return err
	}
	if err := f.complete(); err != nil {
		return err
	}
	if err := makeFolders(root, f.Group); err != nil {
		return err
	}
	lock, err := only(ctx, root, log)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := defaults.Lay(root, f.Group); err != nil {
		// Qubes that run need us more than calls between them, which are
		// denied without a policy.
		log.Error("calls may be denied", "error", err)
	}
	// Asked to end while it starts, it starts nevertheless: qubes that run
	// already may have to be stopped.
	opening := context.WithoutCancel(ctx)
	engines, err := f.engines(opening, root, log)
	if err != nil {
		return err
	}
	for _, e := range engines {
		defer e.Close()
	}
	var folders file.Folders
	pool, err := file.New("varlibqubes", root.State())
	if err == nil {
		err = folders.Add(pool)
	}
	if err != nil {
		return err
	}
	state, err := store.Open(root.State())
	if err != nil {
		return err
	}
	routerSocket, err := listen(root.Router(), 0o600, f.QrexecUID, -1)
	if err != nil {
		return err
	}
	r := router.Listen(routerSocket, []int{0, os.Geteuid(), f.QrexecUID}, log.With("part", "router"))
	defer r.Close()
	c, err := core.Open(opening, core.Config{
		Store: state, Pools: []storage.Pool{pool}, Drivers: []storage.Driver{folders.Driver()}, Engines: engines, DefaultEngine: f.Engine,
		Router: r, Caller: caller{root}, Builder: builder{root, log.With("part", "template")},
		Clock: core.WallClock{}, Log: log,
		Links: root.Links(), Runs: filepath.Join(root.RunQubes(), "runs"), AgentDir: f.AgentDir, QrexecUID: f.QrexecUID, Logs: root.Log(),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	r.Running(running(c.View()))

	busCtx, endBus := context.WithCancel(context.Background())
	var work sync.WaitGroup
	defer work.Wait()
	defer endBus()
	watch := watchDevices(busCtx, c, r, root, log.With("part", "devices"))
	work.Go(func() { watch.Run(busCtx) })
	server := admin.New(c, log.With("part", "admin"))
	server.Devices = watch.Refresh
	server.Database = databaseReader(r)
	decider, err := f.decider(root, c, log.With("part", "calls"))
	if err != nil {
		return err
	}
	defer decider.Close()
	server.Policy = decider
	r.OnCall(decider)
	kept, runtime, legacy := root.PolicyFiles()
	server.PolicyFiles = policy.Dirs{Policy: []string{kept, runtime}, Legacy: legacy}
	defer server.Close()
	failed := make(chan error, 8)
	if err := serveDecider(decider, root, f.Group, failed); err != nil {
		return err
	}
	if err := serve(server, root.Qubesd(), 0o660, f.Group, admin.Public, failed); err != nil {
		return err
	}
	if err := serve(server, root.QubesdInternal(), 0o600, -1, admin.Internal, failed); err != nil {
		return err
	}
	if err := serve(server, root.QubesdMisc(), 0o660, f.Group, admin.Misc, failed); err != nil {
		return err
	}
	work.Go(func() {
		err := keys.Follow(busCtx, keys.Options{Core: c, Router: r, Timezone: keys.Zone("/etc"), Log: log.With("part", "qubesdb")})
		if err != nil {
			failed <- err
		}
	})
	work.Go(func() {
		service := bus.New(c, client.Address(root), append(f.UserUID, os.Geteuid()), log.With("part", "bus"))
		service.RecentCalls, service.Permissions, service.Explain = decider.Recent, decider.Permissions, decider.Explain
		err := service.Run(busCtx, func() {
			log.Info("serving D-Bus", "name", client.BusName)
		})
		if err != nil {
			failed <- err
		}
	})
	log.Info("ready", "root", string(root), "qubes", len(c.View().Qubes()), "engine", c.View().System().Property("default_engine"))
	session, err := session()
	if err == nil {
		err = c.Autostart(session)
	}
	if err != nil {
		log.Error("start the qubes that shall start with the system", "error", err)
		err = nil
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	if f.StopQubes > 0 {
		err = errors.Join(err, c.StopAll(context.Background(), f.StopQubes))
	}
	return err
}

// only makes sure that no other qubesd lives in this root. One that is just
// ending is waited for.
func only(ctx context.Context, root paths.Root, log *slog.Logger) (*os.File, error) {
	lock, err := os.OpenFile(root.QubesdLock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	for told := false; ; told = true {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || ctx.Err() != nil {
			lock.Close()
			return nil, fmt.Errorf("another qubesd serves %s: %w", root, err)
		}
		if !told {
			log.Info("waiting for another qubesd to end")
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lockTime is how long a qubesd may need to end.
const lockTime = time.Minute

// session names the run of the system that we belong to: the life of the
// process that started us, and starts us again after a crash.
func session() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	parent := os.Getppid()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", parent))
	if err != nil {
		return "", err
	}
	// The program's name in parentheses may hold anything; the start time is
	// the 20th field after it (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has only %d fields", parent, len(fields))
	}
	return fmt.Sprintf("%s %d %s", strings.TrimSpace(string(boot)), parent, fields[19]), nil
}

// complete fills in what was not said.
func (f *flags) complete() error {
	if f.BinDir == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find our programs: %w", err)
		}
		f.BinDir = filepath.Dir(self)
	}
	if f.AgentDir == "" {
		f.AgentDir = filepath.Join(f.BinDir, "agent")
	}
	if _, err := os.Stat(filepath.Join(f.AgentDir, engine.AgentBinary)); err != nil {
		return fmt.Errorf("the agent of qubes: %w", err)
	}
	return nil
}

// makeFolders makes the folders that processes of other users meet in. In the
// sticky ones, members of the group make sockets and nobody removes another's.
func makeFolders(root paths.Root, group int) error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{root.State(), 0o711},
		{root.Run(), 0o755},
		{root.RunQubes(), 0o775 | fs.ModeSticky},
		{root.Links(), 0o755},
		{root.Vchan(), 0o775 | fs.ModeSticky},
	} {
		if err := os.MkdirAll(d.path, 0o755); err != nil {
			return err
		}
		if root == "/" && d.path == root.Run() {
			continue // the machine's own
		}
		gid := -1
		if d.mode&fs.ModeSticky != 0 {
			gid = group
		}
		if err := os.Chown(d.path, os.Geteuid(), gid); err != nil {
			return err
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return err
		}
	}
	return nil
}

// engines are those that work on this machine, strongest first.
func (f *flags) engines(ctx context.Context, root paths.Root, log *slog.Logger) ([]engine.Engine, error) {
	names := []string{sandbox.Runsc, sandbox.Crun}
	found := make([]engine.Engine, len(names))
	problems := make([]error, len(names))
	var work sync.WaitGroup
	for i, name := range names {
		binary := filepath.Join(f.BinDir, name)
		if _, err := os.Stat(binary); err != nil {
			binary = "" // the engine looks in PATH
		}
		e, err := sandbox.New(sandbox.Options{Runtime: name, Binary: binary, Root: root, Log: log.With("engine", name)})
		if err != nil {
			problems[i] = err
			continue
		}
		work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if err := e.ProbeOnce(ctx); err != nil {
				// One that worked before may have machines to look after, and
				// a full disk is not mended without us.
				left, lerr := e.Running(ctx)
				disk := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
				if lerr != nil || len(left) == 0 && !disk {
					problems[i] = errors.Join(err, lerr, e.Close())
					return
				}
				log.Warn("an engine does not work now", "engine", name, "error", err)
			}
			found[i] = e
		})
	}
	work.Wait()
	var usable []engine.Engine
	for i, e := range found {
		if e == nil {
			log.Warn("an engine does not work here", "engine", names[i], "error", problems[i])
			if names[i] == f.Engine {
				return nil, problems[i]
			}
			continue
		}
		usable = append(usable, e)
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("no engine works here: %w", errors.Join(problems...))
	}
	// The weakest comes last: only qubes that choose it have it.
	foreign, err := external.New(filepath.Join(root.RunQubes(), external.Name))
	if err != nil {
		return nil, err
	}
	return append(usable, foreign), nil
}

func serve(s *admin.Server, path string, mode fs.FileMode, group int, surface admin.Surface, failed chan<- error) error {
	l, err := listen(path, mode, -1, group)
	if err != nil {
		return err
	}
	go func() {
		if err := s.Serve(l, surface); err != nil {
			failed <- fmt.Errorf("%s: %w", path, err)
		}
	}()
	return nil
}

// listen makes a socket. One that nobody serves any more is replaced; a live
// one means that another qubesd runs.
func listen(path string, mode fs.FileMode, uid, gid int) (*net.UnixListener, error) {
	// A path may be longer than a socket's address: go through its folder.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	if conn, err := net.Dial("unix", short); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another process serves it already", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// It must not be open to all for a moment.
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by then the short name means nothing
	if err := errors.Join(os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// caller makes calls through qrexecd.
type caller struct{ root paths.Root }

func (c caller) Call(ctx context.Context, s core.Service) (int, error) {
	call := qrexec.Call{Root: c.root, Target: strconv.Itoa(int(s.To)), Command: qrexec.Service(s.User, s.Name), JustExec: s.NoInput, Stdout: s.Output}
	if !s.NoInput {
		call.Stdin = strings.NewReader(s.Input)
	}
	return qrexec.Run(ctx, call)
}

// builder builds templates from the recipes that we bring along.
type builder struct {
	root paths.Root
	log  *slog.Logger
}

func (b builder) Features(recipe string) (map[string]string, error) {
	r, err := template.Load(recipe)
	return r.Features(), err
}

func (b builder) Build(ctx context.Context, recipe, dir string, report func(float64, string)) (string, error) {
	r, err := template.Load(recipe)
	if err != nil {
		return "", err
	}
	cache := filepath.Join(b.root.Cache(), "templates")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	image, _, err := template.Build(ctx, template.Options{Recipe: r, Dir: dir, Cache: cache, Progress: report, Log: b.log})
	return image, err
}
