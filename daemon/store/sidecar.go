package store

import (
	"errors"
	"io/fs"

	"cubicle/daemon/durable"
	"cubicle/daemon/qube"
)

// firewallFile holds the rules of a qube's firewall (spec/platform.md §5.1).
const firewallFile = "firewall.xml"

// Firewall returns the file with the rules of a qube's firewall; nil when it
// has none.
func (s *Store) Firewall(c qube.Class, n qube.Name) ([]byte, error) {
	raw, err := read(s.path(c, n, firewallFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// SetFirewall replaces it.
func (s *Store) SetFirewall(c qube.Class, n qube.Name, raw []byte) error {
	return durable.Write(s.path(c, n, firewallFile), raw, nil)
}
