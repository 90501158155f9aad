package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cubicle/agents/link"
	agent "cubicle/agents/qrexec"
	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/vchan"
)

// The tests run the real qrexecd with a qubesd of their own, and the real
// agent in a process of its own: this test binary with agentEnv set.
const agentEnv = "QREXECD_TEST_AGENT"

var programs struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	if path := os.Getenv(agentEnv); path != "" {
		runAgent(path)
		return
	}
	status := m.Run()
	if programs.dir != "" {
		os.RemoveAll(programs.dir)
	}
	os.Exit(status)
}

// runAgent is the agent's process: its folders are beside the link folder.
func runAgent(path string) {
	dir := filepath.Dir(filepath.Dir(path))
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	own := &link.Transport{Path: path}
	var t vchan.Transport = own
	go func() { // for the qube's other programs
		relay := &link.Relay{Link: own, Local: filepath.Join(dir, "local"), Log: log}
		log.Error("relay ended", "err", relay.Run(context.Background()))
	}()
	if u, ok, err := vchan.FromEnv(); ok {
		if err != nil {
			log.Error("environment", "err", err)
			os.Exit(1)
		}
		t = u
	}
	err := agent.Run(context.Background(), t, agent.Options{
		Log:         log,
		ServicePath: []string{filepath.Join(dir, "rpc")},
		ConfigPath:  []string{filepath.Join(dir, "rpc-config")},
		SessionEnv:  filepath.Join(dir, "session.env"),
		ReadyFile:   filepath.Join(dir, "session-ready"),
		DataDirs:    []string{filepath.Join(dir, "share")},
		Trigger:     filepath.Join(dir, "trigger"),
	})
	log.Error("agent ended", "err", err)
	os.Exit(1)
}

// program returns the path of one of our programs, built once.
func program(t testing.TB, name string) string {
	t.Helper()
	programs.once.Do(func() {
		programs.dir, programs.err = os.MkdirTemp("", "qrexecd-test")
		if programs.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", programs.dir+"/", "cubicle/cmd/qrexecd", "cubicle/cmd/qrexec")
		if out, err := cmd.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("%w\n%s", err, out)
			return
		}
		programs.err = os.Symlink("qrexec", filepath.Join(programs.dir, "qrexec-client"))
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return filepath.Join(programs.dir, name)
}

// system is a root folder with a fake qubesd and a real qrexecd.
type system struct {
	t      testing.TB
	root   paths.Root
	l      *net.UnixListener
	daemon *exec.Cmd
	log    *safeBuffer

	mu   sync.Mutex // guards what follows
	conn *control.Conn
	raw  net.Conn
	got  []control.Message
	news chan struct{} // closed and replaced at each message
	// up are the qubes that a connecting qrexecd is told of.
	up map[vchan.Domain]control.Qube
	// decide is the policy; nil denies everything.
	decide func(control.Call) control.Verdict
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newSystem(t testing.TB) *system {
	t.Helper()
	// Longer than a socket's address may be.
	root := paths.Root(filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 8)))
	s := &system{t: t, root: root, log: new(safeBuffer), news: make(chan struct{}), up: make(map[vchan.Domain]control.Qube)}
	for _, dir := range []string{root.RunQubes(), root.Links(), root.Vchan()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.l, err = vchan.ListenPath(root.Router()); err != nil {
		t.Fatal(err)
	}
	go s.accept()
	t.Cleanup(func() {
		s.l.Close()
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	s.startDaemon()
	return s
}

func (s *system) startDaemon() {
	s.t.Helper()
	cmd := exec.Command(program(s.t, "qrexecd"), "--root", string(s.root), "--debug")
	cmd.Stderr = s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.daemon = cmd
	s.t.Cleanup(func() { stop(cmd) })
}

// stop ends a process and waits for it; twice is harmless.
func stop(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// accept is qubesd: it tells each qrexecd of all qubes and keeps its news.
func (s *system) accept() {
	for {
		raw, err := s.l.Accept()
		if err != nil {
			return
		}
		c := control.NewConn(raw)
		if m, err := c.Receive(); err != nil || m.Kind != control.Hello {
			raw.Close()
			continue
		}
		s.mu.Lock()
		s.conn, s.raw = c, raw
		for _, q := range s.up {
			_ = c.Send(control.Message{Kind: control.Up, Qube: &q})
		}
		_ = c.Send(control.Message{Kind: control.Synced})
		s.mu.Unlock()
		go func() {
			for {
				m, err := c.Receive()
				if err != nil {
					return
				}
				if m.Kind == control.Asked {
					s.answer(c, *m.Call)
				}
				s.mu.Lock()
				s.got = append(s.got, m)
				close(s.news)
				s.news = make(chan struct{})
				s.mu.Unlock()
			}
		}()
	}
}

// answer decides a call.
func (s *system) answer(c *control.Conn, call control.Call) {
	s.mu.Lock()
	decide := s.decide
	s.mu.Unlock()
	v := control.Verdict{Reason: "nothing is allowed"}
	if decide != nil {
		v = decide(call)
	}
	v.Number = call.Number
	_ = c.Send(control.Message{Kind: control.Decided, Verdict: &v})
}

// tell sends a message to qrexecd once it is connected.
func (s *system) tell(m control.Message) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		c := s.conn
		s.mu.Unlock()
		if c != nil && c.Send(m) == nil {
			return
		}
	}
	s.t.Fatal("qrexecd did not connect")
}

// wait waits for a message of the kind about d and drops it and all before.
func (s *system) wait(kind control.Kind, d vchan.Domain) control.Message {
	s.t.Helper()
	return s.waitFor(fmt.Sprintf("no %q about domain %d", kind, d), func(m control.Message) bool { return m.Kind == kind && m.Domain == d })
}

// waitFor waits for a message and drops it and all before; complaint is told
// when it does not come.
func (s *system) waitFor(complaint string, want func(control.Message) bool) control.Message {
	s.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		for i, m := range s.got {
			if want(m) {
				s.got = s.got[i+1:]
				s.mu.Unlock()
				return m
			}
		}
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
		case <-timeout:
			s.t.Fatal(complaint)
		}
	}
}

// testQube is a qube of the system with its link folder.
type testQube struct {
	control.Qube
	s     *system
	dir   string // of rpc/, share/, …
	agent *exec.Cmd
}

func (s *system) qube(d vchan.Domain, name string) *testQube {
	s.t.Helper()
	dir := filepath.Join(s.root.Links(), strconv.Itoa(int(d)))
	return s.add(control.Qube{Domain: d, Name: name, UUID: "7f0c7b9c-0000-4000-8000-000000000001", DefaultUser: me(s.t), LinkDir: dir})
}

func (s *system) add(spec control.Qube) *testQube {
	s.t.Helper()
	q := &testQube{Qube: spec, s: s, dir: s.t.TempDir()}
	if spec.LinkDir != "" {
		if err := os.MkdirAll(spec.LinkDir, 0o755); err != nil {
			s.t.Fatal(err)
		}
		// As in a qube: the folder is seen under another name.
		if err := os.Symlink(spec.LinkDir, filepath.Join(q.dir, "link")); err != nil {
			s.t.Fatal(err)
		}
	}
	s.mu.Lock()
	s.up[spec.Domain] = spec
	s.mu.Unlock()
	s.tell(control.Message{Kind: control.Up, Qube: &spec})
	if m := s.wait(control.Listening, spec.Domain); m.Error != "" {
		s.t.Fatalf("listening: %s", m.Error)
	}
	return q
}

// linkPath is the link socket as the qube sees it.
func (q *testQube) linkPath() string { return filepath.Join(q.dir, "link", paths.LinkSocket) }

// start runs the agent until the qube is ready.
func (q *testQube) start(env ...string) *testQube {
	q.s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		q.s.t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), agentEnv+"="+q.linkPath()), env...)
	cmd.Stderr = q.s.log
	if err := cmd.Start(); err != nil {
		q.s.t.Fatal(err)
	}
	q.agent = cmd
	q.s.t.Cleanup(func() { stop(cmd) })
	if m := q.s.wait(control.Ready, q.Domain); m.Version != 4 {
		q.s.t.Errorf("ready with version %d", m.Version)
	}
	return q
}

func (q *testQube) file(name string, mode os.FileMode, text string) {
	q.s.t.Helper()
	path := filepath.Join(q.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		q.s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		q.s.t.Fatal(err)
	}
}

// run calls a command and returns its status, output and error output.
func (q *testQube) run(command, stdin string) (int, string, string, error) {
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	status, err := client.Run(ctx, client.Call{Root: q.s.root, Target: q.Name, Command: command,
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errOut})
	return status, out.String(), errOut.String(), err
}

func me(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
