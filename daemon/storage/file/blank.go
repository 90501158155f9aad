package file

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxBlank is the most that one blank may hold in memory, in bytes.
const maxBlank = 4 << 20

// blank is what an empty file system has written: little, whatever its size.
type blank []extent

type extent struct {
	offset int64
	data   []byte
}

// makeOverlay makes an image with an empty ext4 file system that lives as long
// as a run: no journal, no sync. Every start needs one, so mke2fs is asked
// once for each size; later ones are written from memory.
func (p *Pool) makeOverlay(ctx context.Context, path string, size int64) (err error) {
	p.mu.Lock()
	b := p.blanks[size]
	p.mu.Unlock()
	if b == nil {
		if err := makeExt4(ctx, path, size, "overlay", noJournal); err != nil {
			return err
		}
		// Without it the next start asks mke2fs again.
		if b, err := readBlank(path); err == nil && b != nil {
			p.mu.Lock()
			p.blanks[size] = b
			p.mu.Unlock()
		}
		return nil
	}
	if err := makeSparse(path, size); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		for _, e := range b {
			if _, err = f.WriteAt(e.data, e.offset); err != nil {
				break
			}
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// readBlank reads what is written in an image; nil when that is much.
func readBlank(path string) (blank, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b blank
	total := int64(0)
	for pos := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return b, nil // only a hole is left
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		if total += end - start; total > maxBlank {
			return nil, nil
		}
		e := extent{start, make([]byte, end-start)}
		if _, err := f.ReadAt(e.data, start); err != nil {
			return nil, err
		}
		b, pos = append(b, e), end
	}
}
