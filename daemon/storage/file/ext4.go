package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Features of a new file system.
const (
	journal = "has_journal"
	// What lives as long as a run needs no journal and does not grow. Room to
	// grow would be 4 MiB to write at every start.
	noJournal = "^has_journal,^resize_inode"
)

// makeSparse makes an empty image of size bytes.
func makeSparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(size), f.Close())
	if err != nil {
		os.Remove(path)
	}
	return err
}

// makeExt4 makes an image with an empty ext4 file system. One with a journal
// is to last, and is synced.
func makeExt4(ctx context.Context, path string, size int64, label, journalFeature string) (err error) {
	if err := makeSparse(path, size); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := tool(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", clip(label, 16), "-O", journalFeature,
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", path); err != nil {
		return err
	}
	if journalFeature == noJournal {
		return nil
	}
	return syncFile(path)
}

// grow makes the image at path bigger, with the file system in it unless only
// the qube may touch that.
func grow(ctx context.Context, path string, size int64, foreign bool) error {
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	if !foreign {
		var exit *exec.ExitError
		err := tool(ctx, "e2fsck", "-f", "-p", path)
		if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1: repaired
			return err
		}
		if err := tool(ctx, "resize2fs", path); err != nil {
			return err
		}
	}
	return syncFile(path)
}

// tool runs one of e2fsprogs' programs.
func tool(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.Contains(string(out), unix.ENOSPC.Error()) || strings.Contains(string(out), "No space left"):
		return fmt.Errorf("%s: %w", program, unix.ENOSPC)
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%w (apt-get install e2fsprogs)", err)
	}
	return fmt.Errorf("%s: %w: %s", program, err, strings.Join(strings.Fields(string(out)), " "))
}

func clip(s string, n int) string { return s[:min(len(s), n)] }
