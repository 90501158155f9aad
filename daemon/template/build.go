package template

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Debian's own archive, used where apt on this host knows none.
const (
	defaultMirror   = "http://deb.debian.org/debian"
	defaultSecurity = "http://deb.debian.org/debian-security"
	keyring         = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// What part of a build each step takes, measured.
const (
	endInstall = 0.88
	endSetup   = 0.93
)

// buildImage makes the tree in work and the image from it.
func buildImage(ctx context.Context, o Options, work, image string) error {
	if os.Geteuid() != 0 {
		return errors.New("making a tree with the users of another system needs root")
	}
	for program, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: %s (apt-get install %s)", ErrTools, program, pkg)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("%w: Debian's keys (apt-get install debian-archive-keyring): %w", ErrTools, err)
	}
	tree := filepath.Join(work, "tree")
	setup := filepath.Join(work, "setup")
	if err := os.WriteFile(setup, o.Recipe.setup, 0o700); err != nil {
		return err
	}
	o.Progress(0, "Asking Debian's archive for packages")
	if err := debootstrap(ctx, o, setup, tree); err != nil {
		return err
	}
	o.Progress(endSetup, "Making the disk image")
	return makeImage(ctx, o, tree, image)
}

func debootstrap(ctx context.Context, o Options, setup, tree string) error {
	r := o.Recipe
	args := []string{
		"--mode=root", "--format=directory", "--variant=apt", "--verbose",
		"--keyring=" + keyring,
		"--components=" + strings.Join(r.Components, ","),
		"--include=" + strings.Join(r.Packages, ","),
		`--aptopt=APT::Install-Recommends "false"`,
		// The tree is thrown away when the machine dies meanwhile.
		"--dpkgopt=force-unsafe-io",
		// Qubes without a manual are half as big.
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--customize-hook=" + setup + ` "$1"`,
		r.Suite, tree,
	}
	main, security := mirrors(ctx, r)
	components := strings.Join(r.Components, " ")
	for _, suite := range append([]string{r.Suite}, r.Updates...) {
		args = append(args, fmt.Sprintf("deb %s %s %s", main, suite, components))
	}
	if r.Security != "" {
		args = append(args, fmt.Sprintf("deb %s %s %s", security, r.Security, components))
	}
	meter := &meter{progress: o.Progress}
	return run(ctx, "mmdebstrap", args, func(line string) {
		o.Log.Debug(line)
		meter.line(line)
	})
}

// mirrors asks apt which mirror of the archive this host uses.
func mirrors(ctx context.Context, r Recipe) (main, security string) {
	main, security = defaultMirror, defaultSecurity
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").Output()
	if err != nil {
		return main, security // not a Debian host
	}
	for line := range strings.Lines(string(out)) {
		uri, suite, ok := strings.Cut(strings.TrimSpace(line), " ")
		uri = strings.TrimSuffix(uri, "/")
		if !ok || strings.ContainsAny(uri, " []") {
			continue
		}
		switch {
		case suite == r.Suite && strings.HasSuffix(uri, "/debian"):
			main = uri
		case suite == r.Security:
			security = uri
		}
	}
	return main, security
}

func makeImage(ctx context.Context, o Options, tree, image string) error {
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(o.Recipe.Size << 20); err != nil {
		return err
	}
	args := []string{"-q", "-F", "-t", "ext4", "-m", "0", "-L", "root",
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d", tree, image}
	if err := run(ctx, "mke2fs", args, func(line string) { o.Log.Debug(line) }); err != nil {
		return err
	}
	o.Progress(0.98, "Writing the disk image")
	return f.Sync()
}

// run starts a tool in a process and mount namespace of its own, so that its
// end, however it comes, leaves neither a process nor a mount behind. Each
// line that it says is passed on; the last ones make the error.
func run(ctx context.Context, program string, args []string, line func(string)) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.Env = without(cmd.Env, "SOURCE_DATE_EPOCH", "TMPDIR")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.WaitDelay = 5 * time.Second
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	tail := readLines(r, line)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w: %s", program, err, strings.Join(tail, " · "))
	}
	return nil
}

// readLines passes on each line until the end and returns the last that tell
// of an error, or just the last ones.
func readLines(r io.Reader, line func(string)) []string {
	const keep, longest = 6, 1 << 16
	var last, bad []string
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), longest)
	s.Split(splitLines)
	for s.Scan() {
		text := strings.TrimSpace(s.Text())
		if text == "" {
			continue
		}
		line(text)
		list := &last
		if strings.HasPrefix(text, "E:") || strings.HasPrefix(text, "W:") {
			list = &bad
		}
		*list = append(*list, text)
		if len(*list) > keep {
			*list = (*list)[1:]
		}
	}
	// A line without an end must not block the tool.
	_, _ = io.Copy(io.Discard, r)
	if len(bad) > 0 {
		return bad
	}
	return last
}

// splitLines ends a line at a carriage return as well: progress bars use it.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func without(env []string, names ...string) []string {
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		drop := false
		for _, n := range names {
			drop = drop || n == name
		}
		if !drop {
			out = append(out, kv)
		}
	}
	return out
}

// waitLock takes the lock on f, or gives up with ctx.
func waitLock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
