package file

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/storage"
)

// Recover removes what interrupted operations left behind.
func (p *Pool) Recover(ctx context.Context, running []storage.VID) error {
	p.mu.Lock()
	for _, vid := range running {
		p.started[vid] = true
	}
	p.mu.Unlock()
	if err := p.recover(ctx); err != nil {
		return fmt.Errorf("recover pool %s: %w", p.name, err)
	}
	return nil
}

func (p *Pool) recover(ctx context.Context) error {
	if err := os.RemoveAll(p.ImportDir()); err != nil {
		return err
	}
	if err := os.MkdirAll(p.ImportDir(), 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case !e.Type().IsRegular():
			return nil
		}
		return p.recoverFile(path)
	})
}

func (p *Pool) recoverFile(path string) error {
	if half, found := strings.CutSuffix(path, "~"); found {
		if _, _, ours := p.vidOf(half); !ours {
			return nil
		}
		if err := remove(path); err != nil {
			return err
		}
		os.Remove(filepath.Dir(path)) // made for it, if it is empty now
		return nil
	}
	if current, _, found := strings.Cut(path, endClean+"."); found && same(path, current+endClean) {
		return remove(path) // a commit did not come to its second step
	}
	vid, end, ours := p.vidOf(path)
	if !ours || p.isStarted(vid) {
		return nil
	}
	kept := end == endDirty && !present(p.files(vid).marker())
	if end == endBase || end == endOverlay || end == endDirty && !kept {
		return remove(path)
	}
	return nil
}

func same(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}
