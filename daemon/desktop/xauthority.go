package desktop

import (
	"crypto/rand"
	"encoding/binary"
	"os"
)

// Families of addresses in an Xauthority file (Xau(3)).
const (
	familyLocal = 256
	familyWild  = 65535
)

const cookieName = "MIT-MAGIC-COOKIE-1"

func newCookie() ([]byte, error) {
	cookie := make([]byte, 16)
	_, err := rand.Read(cookie)
	return cookie, err
}

// writeXauthority writes the cookie for the display of that number, empty for
// any, to the file at path, which only its owner may read.
func writeXauthority(path string, cookie []byte, number string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	var b []byte
	for _, entry := range []struct {
		family  uint16
		address string
	}{{familyLocal, host}, {familyWild, ""}} {
		b = binary.BigEndian.AppendUint16(b, entry.family)
		for _, field := range [][]byte{[]byte(entry.address), []byte(number), []byte(cookieName), cookie} {
			b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
			b = append(b, field...)
		}
	}
	// The server may read while we write: replace, never truncate.
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
