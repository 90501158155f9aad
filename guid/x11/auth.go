package x11

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const cookieName = "MIT-MAGIC-COOKIE-1"

// setupRequest is the first request of a connection: little-endian, protocol
// 11.0, with the cookie if there is one.
func setupRequest(cookie []byte) []byte {
	le := binary.LittleEndian
	name := ""
	if len(cookie) > 0 {
		name = cookieName
	}
	b := []byte{'l', 0}
	b = le.AppendUint16(b, 11)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, uint16(len(name)))
	b = le.AppendUint16(b, uint16(len(cookie)))
	b = le.AppendUint16(b, 0)
	b = append(b, name...)
	b = pad(b)
	return pad(append(b, cookie...))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// displayNumber parses a display name of this machine: ":N", ":N.S",
// "unix:N" or a socket path ending so.
func displayNumber(display string) (int, error) {
	i := strings.LastIndexByte(display, ':')
	if i < 0 {
		return 0, fmt.Errorf("display %q has no number", display)
	}
	if host := display[:i]; host != "" && host != "unix" {
		return 0, fmt.Errorf("display %q is not on this machine", display)
	}
	num, _, _ := strings.Cut(display[i+1:], ".")
	n, err := strconv.ParseUint(num, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("display %q has no number", display)
	}
	return int(n), nil
}

// readCookie finds the cookie of a local display in the file that XAUTHORITY
// names, or in ~/.Xauthority. No file, or no entry, is no cookie and no error.
func readCookie(display int) ([]byte, error) {
	path := os.Getenv("XAUTHORITY")
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, nil // a display that needs a cookie will say so
		}
		path = filepath.Join(home, ".Xauthority")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the display's cookie: %w", err)
	}
	defer f.Close()
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the display's cookie: %w", err)
	}
	cookie, err := findCookie(f, host, display)
	if err != nil {
		return nil, fmt.Errorf("read the display's cookie from %s: %w", path, err)
	}
	return cookie, nil
}

const (
	familyLocal = 256
	familyWild  = 65535
)

// findCookie returns the cookie for a local display from a file of the xauth
// format, or nil. A file that ends within an entry is an error.
func findCookie(r io.Reader, host string, display int) ([]byte, error) {
	for {
		var family uint16
		if err := binary.Read(r, binary.BigEndian, &family); err == io.EOF {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		var fields [4]string // address, display number, name, data
		for i := range fields {
			text, err := readCounted(r)
			if err != nil {
				return nil, err
			}
			fields[i] = text
		}
		here := family == familyWild || family == familyLocal && fields[0] == host
		mine := fields[1] == "" || fields[1] == strconv.Itoa(display)
		if here && mine && fields[2] == cookieName {
			return []byte(fields[3]), nil
		}
	}
}

func readCounted(r io.Reader) (string, error) {
	var n uint16
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return "", noEOF(err)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return string(b), noEOF(err)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
