package file

import (
	"fmt"
	"path/filepath"
	"strings"

	"cubicle/daemon/storage"
)

// checkVID admits what can be a path below the pool and cannot be mistaken
// for another volume's file.
func checkVID(vid storage.VID) error {
	parts := strings.Split(string(vid), "/")
	for i, part := range parts {
		if !validPart(part) {
			return fmt.Errorf("%w: volume id %q", storage.ErrBadVolume, vid)
		}
		if i == len(parts)-1 && reserved(part) {
			return fmt.Errorf("%w: volume id %q has a reserved ending", storage.ErrBadVolume, vid)
		}
	}
	if len(parts) < 2 || len(vid) > 200 {
		return fmt.Errorf("%w: volume id %q", storage.ErrBadVolume, vid)
	}
	return nil
}

// reserved tells whether a volume of this name could be mistaken for one of
// another volume's files.
func reserved(name string) bool {
	for _, end := range []string{endDirty, endBase, endOverlay, endMarker} {
		if strings.HasSuffix(name, strings.TrimSuffix(end, endClean)) {
			return true
		}
	}
	return strings.Contains(name, endClean)
}

func validPart(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !word && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return false
		}
	}
	return s != ""
}

// check refuses a Spec that contradicts itself.
func check(s storage.Spec) error {
	if err := checkVID(s.VID); err != nil {
		return err
	}
	switch {
	case s.SnapOnStart && s.SaveOnStop:
		return fmt.Errorf("%w: it cannot both start as a copy and be kept", storage.ErrBadVolume)
	case s.SnapOnStart != (s.Source != ""):
		return fmt.Errorf("%w: a source goes with a snapshot, and only with one", storage.ErrBadVolume)
	case s.Source == s.VID:
		return fmt.Errorf("%w: it is its own source", storage.ErrBadVolume)
	case s.Size <= 0:
		return fmt.Errorf("%w: size %d", storage.ErrBadVolume, s.Size)
	case s.SnapOnStart:
		return checkVID(s.Source)
	}
	return nil
}

func checkOrigin(s storage.Spec) error {
	if err := check(s); err != nil {
		return err
	}
	if !s.SaveOnStop {
		return fmt.Errorf("%w: only what is kept at the stop carries data", storage.ErrBadVolume)
	}
	return nil
}

// vidOf finds the volume that the file path below the pool belongs to, and
// which of its files it is.
func (p *Pool) vidOf(path string) (vid storage.VID, end string, ok bool) {
	rel, err := filepath.Rel(p.dir, path)
	if err != nil {
		return "", "", false
	}
	for _, end := range []string{endDirty, endBase, endOverlay, endClean, endMarker} {
		if name, found := strings.CutSuffix(rel, end); found && checkVID(storage.VID(name)) == nil {
			return storage.VID(name), end, true
		}
	}
	return "", "", false
}
