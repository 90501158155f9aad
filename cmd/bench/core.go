package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

// coreSizes are the numbers of qubes that qubesd is measured with.
var coreSizes = []int{200, 2000}

// coreClients is how many ask qubesd at once.
const coreClients = 8

// coreResult is about qubesd alone, with some number of qubes on its disk.
type coreResult struct {
	qubes               int
	start               samples // from exec to the first answer
	memory              int64   // bytes, its share of shared pages included
	list, get, all, set samples // one request each, a connection each
	bare, write         samples // a connection to a socket that answers at once; a synced change of a file
	together            samples // get, each of coreClients clients asking without a pause
	perSecond           float64 // answers to all of them
	ls, process         samples // qvm-ls, and /bin/true
	decision            time.Duration
}

// core measures qubesd with many qubes that do not run.
func (b *bench) core(ctx context.Context) ([]*coreResult, error) {
	var list []*coreResult
	for _, n := range coreSizes {
		b.log.Info("measuring", "part", "core", "qubes", n)
		r, err := b.coreOf(ctx, n)
		if err == nil {
			r.decision, err = decisions(n)
		}
		if err != nil {
			return nil, fmt.Errorf("%d qubes: %w", n, err)
		}
		list = append(list, r)
	}
	return list, nil
}

func (b *bench) coreOf(ctx context.Context, n int) (r *coreResult, err error) {
	dir, err := os.MkdirTemp("/tmp", "cubicle-bench-*") // short: sockets live in it
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	root := paths.Root(dir)
	if err := populate(root, n); err != nil {
		return nil, err
	}
	r = &coreResult{qubes: n}
	for range b.count.paints {
		d, took, err := b.qubesd(ctx, root)
		if err != nil {
			return nil, err
		}
		r.start = append(r.start, took)
		if err := d.end(); err != nil {
			return nil, err
		}
	}
	d, _, err := b.qubesd(ctx, root)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := d.end(); err == nil {
			err = e
		}
	}()
	if err := b.requests(ctx, root, r); err != nil {
		return nil, err
	}
	all, err := processes()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.pid == d.cmd.Process.Pid {
			r.memory = memoryOf([]process{p}).total()
		}
	}
	return r, nil
}

// populate writes a template and n qubes that are based on it.
func populate(root paths.Root, n int) error {
	if err := os.MkdirAll(root.State(), 0o755); err != nil {
		return err
	}
	s, err := store.Open(root.State())
	if err != nil {
		return err
	}
	if _, _, _, err := s.Load(); err != nil {
		return err
	}
	save := func(name string, qid int, class qube.Class, set map[string]string) error {
		return s.Save(store.Record{Name: qube.Name(name), UUID: qube.NewUUID(), QID: qid, Class: class, Properties: set,
			Features: map[string]string{"gui": "1"}, Tags: []string{"created-by-dom0"}})
	}
	if err := save("debian-12", 1, qube.TemplateVM, map[string]string{"label": "black"}); err != nil {
		return err
	}
	for i := range n {
		set := map[string]string{"label": qube.Labels[i%len(qube.Labels)].Name, "template": "debian-12"}
		if err := save(fmt.Sprintf("qube-%d", i), i+2, qube.AppVM, set); err != nil {
			return err
		}
	}
	return nil
}

// server is a running qubesd.
type server struct {
	cmd *exec.Cmd
	log *os.File
}

// qubesd starts it and waits for its first answer.
func (b *bench) qubesd(ctx context.Context, root paths.Root) (*server, time.Duration, error) {
	log, err := os.Create(root.Join("qubesd.log"))
	if err != nil {
		return nil, 0, err
	}
	s := &server{cmd: exec.Command(filepath.Join(b.Bin, "qubesd"), "--root", string(root), "--engine", "crun"), log: log}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	c := client.New(root)
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		log.Close()
		return nil, 0, err
	}
	err = until(ctx, 200*time.Microsecond, "qubesd answers", func() (bool, error) {
		_, err := c.Call(ctx, "dom0", "admin.vm.List", "", nil)
		return err == nil, nil
	})
	took := time.Since(began)
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		_ = s.end()
		return nil, 0, fmt.Errorf("%w\n%s", err, text)
	}
	return s, took, nil
}

func (s *server) end() error {
	defer s.log.Close()
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

func (b *bench) requests(ctx context.Context, root paths.Root, r *coreResult) error {
	c := client.New(root)
	ask := func(into *samples, dest, method, arg, payload string) error {
		began := time.Now()
		if _, err := c.Call(ctx, dest, method, arg, []byte(payload)); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		*into = append(*into, time.Since(began))
		return nil
	}
	address, end, err := echo(root)
	if err != nil {
		return err
	}
	defer end()
	// What reads is asked apart from what writes: after a wait for the disk a
	// question would pay for the processors' waking, and so would the bare one.
	for i := range b.count.calls {
		name := fmt.Sprintf("qube-%d", i%r.qubes)
		if err := errors.Join(
			ask(&r.list, "dom0", "admin.vm.List", "", ""),
			ask(&r.get, name, "admin.vm.property.Get", "memory", ""),
			ask(&r.all, name, "admin.vm.property.GetAll", "", ""),
			bareRequest(&r.bare, address),
		); err != nil {
			return err
		}
	}
	for i := range b.count.calls {
		if err := errors.Join(
			ask(&r.set, fmt.Sprintf("qube-%d", i%r.qubes), "admin.vm.property.Set", "memory", fmt.Sprint(300+i)),
			r.bareWrite(root),
		); err != nil {
			return err
		}
	}
	if err := b.together(ctx, c, r); err != nil {
		return err
	}
	for range b.count.calls {
		for _, p := range []struct {
			into *samples
			cmd  *exec.Cmd
		}{{&r.process, exec.CommandContext(ctx, "/bin/true")}, {&r.ls, exec.CommandContext(ctx, filepath.Join(b.Bin, "qvm-ls"))}} {
			p.cmd.Env = append(os.Environ(), "CUBICLE_ROOT="+string(root))
			began := time.Now()
			if _, err := p.cmd.Output(); err != nil {
				return fmt.Errorf("%s: %w", p.cmd.Path, err)
			}
			*p.into = append(*p.into, time.Since(began))
		}
	}
	return nil
}

// together lets several clients ask without a pause.
func (b *bench) together(ctx context.Context, c *client.Client, r *coreResult) error {
	var (
		mu    sync.Mutex
		all   samples
		fail  error
		group sync.WaitGroup
	)
	began := time.Now()
	for k := range coreClients {
		group.Go(func() {
			var mine samples
			var err error
			for i := 0; i < b.count.calls && err == nil; i++ {
				at := time.Now()
				_, err = c.Call(ctx, fmt.Sprintf("qube-%d", (i*coreClients+k)%r.qubes), "admin.vm.property.Get", "memory", nil)
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			if all = append(all, mine...); fail == nil {
				fail = err
			}
		})
	}
	group.Wait()
	r.together, r.perSecond = all, float64(len(all))/time.Since(began).Seconds()
	return fail
}

// echo listens on a socket that answers every connection when the other side
// has ended its request, as qubesd does, and does nothing else.
func echo(root paths.Root) (address string, end func(), err error) {
	address = root.Join("echo.sock")
	l, err := net.Listen("unix", address)
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := io.ReadAll(conn); err == nil {
					// Who asked sees a missing answer.
					_, _ = conn.Write([]byte("0\x00default=True type=int 400"))
				}
			}()
		}
	}()
	return address, func() { l.Close() }, nil
}

func bareRequest(into *samples, address string) error {
	began := time.Now()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("admin.vm.property.Get+memory dom0 name qube-1\x00")); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if answer, err := io.ReadAll(conn); err != nil || len(answer) == 0 {
		return fmt.Errorf("no answer: %w", err)
	}
	*into = append(*into, time.Since(began))
	return nil
}

// bareWrite makes the least change of a file that survives a power cut.
func (r *coreResult) bareWrite(root paths.Root) error {
	began := time.Now()
	dir, err := os.Open(string(root))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := os.Create(root.Join("bare.new"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 300)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), root.Join("bare")); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	r.write = append(r.write, time.Since(began))
	return nil
}

// coreAims are promises for the first of coreSizes.
func (r *results) coreAims(write func(string, ...any), mark func(v, most float64, text string) string) {
	if len(r.core) == 0 {
		return
	}
	c := r.core[0]
	write("| qubesd with %d qubes | aim | |", c.qubes)
	write("|---|---|---|")
	row := func(what string, got, most time.Duration) {
		write("| %s | ≤ %s | %s |", what, ms(most), mark(float64(got), float64(most), ms(got)))
	}
	row("admin.vm.List", c.list.median(), 500*time.Microsecond)
	row("admin.vm.property.Get", c.get.median(), 100*time.Microsecond)
	row("admin.vm.property.Set, on disk", c.set.median(), 3*time.Millisecond)
	row("qvm-ls, from its start to its end", c.ls.median(), 8*time.Millisecond)
	row("start to the first answer", c.start.median(), 100*time.Millisecond)
	row(fmt.Sprintf("a decision of the policy, by the last of %d rules", policyRules), c.decision, 2*time.Microsecond)
	const most = 40 << 20
	write("| memory | ≤ %s | %s |", mib(most), mark(float64(c.memory), most, mib(c.memory)))
	write("")
}

func (r *results) writeCore(write func(string, ...any)) {
	if len(r.core) == 0 {
		return
	}
	write("## qubesd")
	write("")
	head, rule := "| |", "|---|"
	for _, c := range r.core {
		head, rule = head+fmt.Sprintf(" %d qubes |", c.qubes), rule+"---|"
	}
	last := len(r.core) - 1
	write("%s growth | compared with |", head)
	write("%s---|---|", rule)
	row := func(what, with string, of func(*coreResult) (text string, number float64)) {
		line := "| " + what + " |"
		for _, c := range r.core {
			text, _ := of(c)
			line += " " + text + " |"
		}
		_, few := of(r.core[0])
		_, many := of(r.core[last])
		write("%s %s | %s |", line, times(many/few), with)
	}
	median := func(of func(*coreResult) samples) func(*coreResult) (string, float64) {
		return func(c *coreResult) (string, float64) { return ms(of(c).median()), float64(of(c).median()) }
	}
	c := r.core[0]
	socket := "a request to a bare socket: " + ms(c.bare.median())
	row("admin.vm.List", socket, median(func(c *coreResult) samples { return c.list }))
	row("admin.vm.property.Get", socket, median(func(c *coreResult) samples { return c.get }))
	row("admin.vm.property.GetAll", socket, median(func(c *coreResult) samples { return c.all }))
	row("admin.vm.property.Set", "a synced change of a bare file: "+ms(c.write.median()), median(func(c *coreResult) samples { return c.set }))
	row(fmt.Sprintf("%d clients at once: Get", coreClients), "", median(func(c *coreResult) samples { return c.together }))
	row("their answers in a second", "", func(c *coreResult) (string, float64) { return fmt.Sprintf("%.0f", c.perSecond), c.perSecond })
	row("qvm-ls", "/bin/true: "+ms(c.process.median()), median(func(c *coreResult) samples { return c.ls }))
	row(fmt.Sprintf("a decision of the policy, by the last of %d rules", policyRules), "", func(c *coreResult) (string, float64) {
		return ms(c.decision), float64(c.decision)
	})
	row("start to the first answer", "", median(func(c *coreResult) samples { return c.start }))
	row("memory", "", func(c *coreResult) (string, float64) { return mib(c.memory), float64(c.memory) })
	write("")
}
