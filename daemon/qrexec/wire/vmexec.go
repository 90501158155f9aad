package wire

import "strings"

// EncodeArgs returns argv as the argument of qubes.VMExec
// (spec/services.md §4).
func EncodeArgs(argv []string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i, arg := range argv {
		if i > 0 {
			b.WriteByte('+')
		}
		for j := 0; j < len(arg); j++ {
			switch c := arg[j]; {
			case isAlnum(c) || c == '.' || c == '_':
				b.WriteByte(c)
			case c == '-':
				b.WriteString("--")
			default:
				b.WriteByte('-')
				b.WriteByte(hex[c>>4])
				b.WriteByte(hex[c&15])
			}
		}
	}
	return b.String()
}

// DecodeArgs is the inverse of EncodeArgs. It takes nothing that EncodeArgs
// could not have made, but for escapes of bytes that need none.
func DecodeArgs(s string) ([]string, error) {
	var argv []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlnum(c) || c == '.' || c == '_':
			b.WriteByte(c)
		case c == '+':
			argv = append(argv, b.String())
			b.Reset()
		case c == '-' && i+1 < len(s) && s[i+1] == '-':
			b.WriteByte('-')
			i++
		case c == '-' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			v := byte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			if v == 0 {
				return nil, protocolf("a NUL in an encoded argument")
			}
			b.WriteByte(v)
			i += 2
		default:
			return nil, protocolf("byte %d of the encoded arguments is not allowed", i)
		}
	}
	return append(argv, b.String()), nil
}

// unhex reads an upper-case hexadecimal digit, or returns -1.
func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
