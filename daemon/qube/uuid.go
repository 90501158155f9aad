package qube

import (
	"crypto/rand"
	"fmt"
)

// UUID names a qube for ever, also when its name changes: 36 characters in
// lower case.
type UUID string

// Dom0UUID is dom0's (spec/admin-api.md §3.1).
const Dom0UUID UUID = "00000000-0000-0000-0000-000000000000"

// NewUUID returns a random one (RFC 9562 §5.4).
func NewUUID() UUID {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return UUID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// ParseUUID checks text: lower-case hexadecimal digits and dashes, in the
// form 8-4-4-4-12.
func ParseUUID(text string) (UUID, error) {
	if len(text) != len(Dom0UUID) {
		return "", fmt.Errorf("%q is not a UUID", cut(text))
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return "", fmt.Errorf("%q is not a UUID", cut(text))
		}
	}
	return UUID(text), nil
}
