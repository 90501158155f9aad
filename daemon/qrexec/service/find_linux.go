package service

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/daemon/qrexec/wire"
)

// What the search for a service can find.
type foundKind int

const (
	foundNothing foundKind = iota
	foundFile
	foundSocket
)

type found struct {
	kind foundKind
	path string
	addr net.Addr // of a socket or TCP service
}

// findService looks for a service's file (spec/qrexec.md §13): SERVICE+ARG in
// every folder, then SERVICE in every folder.
func findService(dirs []string, r *wire.RPC) (found, error) {
	full := r.Service + "+" + r.Argument
	for _, name := range []string{full, r.Service} {
		if len(name) > 255 {
			continue // no file can have that name
		}
		for _, dir := range dirs {
			f, err := judge(filepath.Join(dir, name), r)
			if err != nil || f.kind != foundNothing {
				return f, err
			}
		}
	}
	return found{}, nil
}

// judge tells what the file at path is.
func judge(path string, r *wire.RPC) (found, error) {
	const tcp = "/dev/tcp"
	link, err := os.Readlink(path)
	if err == nil && (link == tcp || strings.HasPrefix(link, tcp+"/")) {
		addr, err := TCPAddress(link[len(tcp):], r)
		if err != nil {
			return found{}, Fail(wire.StatusFault, "%s: %w", path, err)
		}
		return found{foundSocket, path, addr}, nil
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // also a link to nowhere
		return found{}, nil
	case err != nil:
		return found{}, Fail(wire.StatusFault, "service file: %w", err)
	case fi.Mode()&fs.ModeSocket != 0:
		return found{foundSocket, path, &net.UnixAddr{Net: "unix", Name: path}}, nil
	case fi.Mode().IsRegular() && unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) == nil:
		return found{foundFile, path, nil}, nil
	}
	return found{}, Fail(wire.StatusFault, "%s is neither executable nor a socket", path)
}

// textAddr is an address as the net package dials it.
type textAddr struct{ network, text string }

func (a textAddr) Network() string { return a.network }
func (a textAddr) String() string  { return a.text }

// TCPAddress reads what follows /dev/tcp in the link of a TCP service,
// together with the call's argument: the address of the service.
func TCPAddress(rest string, r *wire.RPC) (net.Addr, error) {
	var host, port string
	if rest == "" {
		i := strings.LastIndexByte(r.Argument, '+')
		if i < 0 {
			return nil, fmt.Errorf("argument %q is not HOST+PORT", r.Argument)
		}
		host, port = strings.ReplaceAll(r.Argument[:i], "+", ":"), r.Argument[i+1:]
		if strings.ContainsRune(host, '_') {
			return nil, fmt.Errorf("host %q", host)
		}
	} else {
		var hasPort bool
		host, port, hasPort = strings.Cut(rest[1:], "/")
		switch {
		case hasPort && r.Argument != "":
			return nil, errors.New("this service takes no argument")
		case !hasPort:
			port = r.Argument
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] < '1' || port[0] > '9' {
		return nil, fmt.Errorf("port %q", port)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("host %q is not a numeric address", host)
	}
	network := "tcp4"
	if strings.ContainsAny(host, ":%") {
		network = "tcp6"
	}
	return textAddr{network, netip.AddrPortFrom(ip, uint16(n)).String()}, nil
}
