package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
)

// DefaultRanges is the host's table of user id ranges. It is the one file
// outside of CUBICLE_ROOT: all systems on a host share its user ids.
const DefaultRanges = "/var/lib/cubicle/uid-ranges.json"

// The ids that qubes may get: above what systemd gives to containers and
// services and what sssd maps from directories, below 2³¹, where signed
// numbers end.
const (
	RangeSize  = 65536
	firstRange = 0x7740_0000
	endRange   = 0x7ffe_0000
)

// usedStep is how exactly the table tells when a range was used last.
const usedStep = 24 * time.Hour

// Ranges gives every qube a range of RangeSize user and group ids that no
// other qube of this host has, in whichever root it lives. A qube keeps its
// range across runs and reboots. It is safe for concurrent use, also by
// several processes.
type Ranges struct {
	Path string
	// Subordinate are the host's files in the form of subuid(5); nil means
	// /etc/subuid and /etc/subgid.
	Subordinate []string
}

type rangeEntry struct {
	Root string    `json:"root"`
	UUID string    `json:"uuid"`
	Base uint32    `json:"base"`
	Used time.Time `json:"used"` // when it was asked for last
}

// For returns the first id of the range of the qube with that UUID in root.
func (r *Ranges) For(root paths.Root, uuid string) (base uint32, err error) {
	err = r.change(func(table []rangeEntry) (changed []rangeEntry, err error) {
		base, changed, err = r.pick(table, string(root), uuid)
		return changed, err
	})
	if err != nil {
		return 0, fmt.Errorf("user ids for %s: %w", uuid, err)
	}
	return base, nil
}

// Forget gives the range of that qube back.
func (r *Ranges) Forget(root paths.Root, uuid string) error {
	err := r.change(func(table []rangeEntry) ([]rangeEntry, error) {
		return slices.DeleteFunc(slices.Clone(table), func(e rangeEntry) bool {
			return e.Root == string(root) && e.UUID == uuid
		}), nil
	})
	if err != nil {
		return fmt.Errorf("give user ids of %s back: %w", uuid, err)
	}
	return nil
}

// change replaces the table while nobody else may.
func (r *Ranges) change(edit func([]rangeEntry) ([]rangeEntry, error)) error {
	if err := os.MkdirAll(filepath.Dir(r.Path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(r.Path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	table, err := r.load()
	if err != nil {
		return err
	}
	changed, err := edit(table)
	if err != nil || slices.Equal(table, changed) {
		return err // or nothing to wait for the disk for
	}
	return r.save(changed)
}

func (r *Ranges) pick(table []rangeEntry, root, uuid string) (uint32, []rangeEntry, error) {
	taken, err := r.subordinate()
	if err != nil {
		return 0, nil, err
	}
	now := time.Now().UTC()
	used := make(map[uint32]bool)
	var kept []rangeEntry
	var base uint32
	for _, e := range table {
		switch {
		case e.Base%RangeSize != 0 || e.Base < firstRange || e.Base >= endRange || used[e.Base] || taken.overlap(e.Base):
			continue // no longer ours to give
		case e.Root == root && e.UUID == uuid:
			if now.Sub(e.Used) > usedStep {
				e.Used = now
			}
			base = e.Base
		case gone(e.Root):
			continue
		}
		used[e.Base] = true
		kept = append(kept, e)
	}
	if base != 0 {
		return base, kept, nil
	}
	for b := uint32(firstRange); b < endRange; b += RangeSize {
		if !used[b] && !taken.overlap(b) {
			return b, append(kept, rangeEntry{root, uuid, b, now}), nil
		}
	}
	// All are given out: take the one that was not needed for longest and
	// whose qube has nothing prepared now.
	oldest := -1
	for i, e := range kept {
		if (oldest < 0 || e.Used.Before(kept[oldest].Used)) && gone(paths.Root(e.Root).Join("run/qubes/machines", e.UUID)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return 0, nil, errors.New("every range of user ids is in use")
	}
	kept[oldest] = rangeEntry{root, uuid, kept[oldest].Base, now}
	return kept[oldest].Base, kept, nil
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (r *Ranges) load() ([]rangeEntry, error) {
	data, err := os.ReadFile(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var table []rangeEntry
	if err := json.Unmarshal(data, &table); err != nil {
		return nil, fmt.Errorf("%s is damaged: stop all qubes and remove it, and it is made anew: %w", r.Path, err)
	}
	return table, nil
}

func (r *Ranges) save(table []rangeEntry) error {
	data, err := json.MarshalIndent(table, "", " ")
	if err != nil {
		return err
	}
	return writeFile(r.Path, data, 0o644)
}

// spans are ids that belong to others.
type spans [][2]uint64

func (s spans) overlap(base uint32) bool {
	for _, span := range s {
		if span[0] < uint64(base)+RangeSize && uint64(base) < span[1] {
			return true
		}
	}
	return false
}

func (r *Ranges) subordinate() (spans, error) {
	files := r.Subordinate
	if files == nil {
		files = []string{"/etc/subuid", "/etc/subgid"}
	}
	var s spans
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if span, ok := parseSubordinate(lines.Text()); ok {
				s = append(s, span)
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return s, nil
}

// parseSubordinate reads a line "name:first:count".
func parseSubordinate(line string) ([2]uint64, bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) != 3 {
		return [2]uint64{}, false
	}
	first, err1 := strconv.ParseUint(fields[1], 10, 32)
	count, err2 := strconv.ParseUint(fields[2], 10, 32)
	return [2]uint64{first, first + count}, err1 == nil && err2 == nil
}

// writeFile replaces a file as a whole.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + "~"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
