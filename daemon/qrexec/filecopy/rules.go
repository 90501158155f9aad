package filecopy

import (
	"strings"
	"syscall"
)

// The errors of the rules.
const (
	ErrName = Code(syscall.EILSEQ)  // a path that no receiver takes
	ErrLink = Code(syscall.ENOLINK) // a link that could lead out
)

// CheckPath holds a path against the rules (spec/services.md §2, path rules):
// relative, no empty, "." or ".." component, and only Displayable text unless
// allNames. The error is ErrName.
func CheckPath(path string, allNames bool) error {
	if path == "" || strings.IndexByte(path, 0) >= 0 || !allNames && !Displayable(path) {
		return ErrName
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return ErrName
		}
	}
	return nil
}

// CheckLink holds the link at path, which CheckPath has passed, against the
// rules: nothing below the first component of path may point outside of it.
// The error is ErrLink, or ErrName for a target that is not Displayable.
func CheckLink(path, target string, allNames bool) error {
	if strings.IndexByte(target, 0) >= 0 || !allNames && !Displayable(target) {
		return ErrName
	}
	up := strings.Count(path, "/") - 1 // as often it may go up
	if up < 0 || target == "" || target[0] == '/' {
		return ErrLink
	}
	descended := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if up--; up < 0 || descended {
				return ErrLink
			}
		default:
			descended = true
		}
	}
	return nil
}
