package store

import (
	"errors"
	"io/fs"

	"cubicle/daemon/durable"
	"cubicle/daemon/qube"
)

// appsFile keeps what the qube last said of its applications: a copy, which
// may be lost.
const appsFile = "apps.txt"

// Apps returns the kept list of a qube's applications; empty: none is kept.
func (s *Store) Apps(c qube.Class, n qube.Name) (string, error) {
	raw, err := read(s.path(c, n, appsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(raw), err
}

// SetApps replaces it.
func (s *Store) SetApps(c qube.Class, n qube.Name, text string) error {
	return durable.Write(s.path(c, n, appsFile), []byte(text), nil)
}
