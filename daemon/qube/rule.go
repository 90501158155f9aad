package qube

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// What values and targets of properties must be.

// Bounds of numbers (spec/admin-api.md §3.1, §3.2).
const (
	MaxQID    = 10000
	MaxDispID = 9999
	// MaxExternalDomain is the highest domain id that people choose: above
	// are Xen's reserved ones and those that dom0 gives.
	MaxExternalDomain = 0x7fef
)

const (
	letterBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digitBytes  = "0123456789"
	wordBytes   = letterBytes + digitBytes + "._-"
)

func isTemplate(s Source) error {
	if s.Fact("klass") != string(TemplateVM) {
		return fmt.Errorf("%s is not a template", s.Property("name"))
	}
	return nil
}

func isDisposableTemplate(s Source) error {
	if s.Property("template_for_dispvms") != "True" {
		return fmt.Errorf("%s is not a template for disposables", s.Property("name"))
	}
	return nil
}

func isNetVM(s Source) error {
	if s.Property("provides_network") != "True" {
		return fmt.Errorf("%s does not provide network", s.Property("name"))
	}
	return nil
}

func isLocal(s Source) error {
	if s.Fact("klass") == string(RemoteVM) {
		return fmt.Errorf("%s is on another computer", s.Property("name"))
	}
	return nil
}

func hasMachine(s Source) error {
	if !Class(s.Fact("klass")).HasMachine() {
		return fmt.Errorf("%s has no machine here", s.Property("name"))
	}
	return nil
}

func isRelay(s Source) error { return hasMachine(s) }

// labelName accepts the name or the index of a label; whether a label that is
// not built in exists is the core's to tell.
func labelName(text string) (string, error) {
	if l, ok := FindLabel(Labels[:], text); ok {
		return l.Name, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n > len(Labels) && strconv.Itoa(n) == text {
		return text, nil
	}
	return text, CheckLabelName(text)
}

func positive(text string) (string, error) {
	if n, err := strconv.Atoi(text); err != nil || n <= 0 || n > 1<<30 {
		return "", fmt.Errorf("%s is not a number from 1 to 2^30", text)
	}
	return text, nil
}

func notNegative(text string) (string, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err != nil || n < 0 {
		return "", fmt.Errorf("%s is negative", text)
	}
	return text, nil
}

func between(low, high int) func(string) (string, error) {
	return func(text string) (string, error) {
		if n, err := strconv.Atoi(text); err != nil || n < low || n > high {
			return "", fmt.Errorf("%s is not a number from %d to %d", text, low, high)
		}
		return text, nil
	}
}

func atMost(n int) func(string) (string, error) {
	return func(text string) (string, error) {
		if len(text) > n {
			return "", fmt.Errorf("longer than %d characters", n)
		}
		return text, nil
	}
}

func word(text string) (string, error) {
	if text == "" || strings.Trim(text, wordBytes) != "" {
		return "", fmt.Errorf("%q is not a name", cut(text))
	}
	return text, nil
}

// fileName accepts the name of a folder, or nothing.
func fileName(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if text == "." || text == ".." {
		return "", fmt.Errorf("%q is not a name", text)
	}
	return word(text)
}

func service(text string) (string, error) {
	if strings.Trim(text, wordBytes+"+") != "" {
		return "", fmt.Errorf("%q is not the name of a service", cut(text))
	}
	return text, nil
}

func remoteName(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	n, err := ParseName(text)
	return string(n), err
}

func uuid(text string) (string, error) {
	u, err := ParseUUID(text)
	return string(u), err
}

func userName(text string) (string, error) {
	if text == "" || len(text) > 64 || strings.Trim(text, letterBytes+digitBytes+"_+,.-") != "" {
		return "", fmt.Errorf("%q is not a user name", cut(text))
	}
	return text, nil
}

func virtMode(text string) (string, error) {
	switch mode := strings.ToLower(text); mode {
	case "pvh", "hvm", "pv":
		return mode, nil
	}
	return "", fmt.Errorf("%q is none of pvh, hvm and pv", cut(text))
}

// keyboardLayout checks layout+variant+options; what is missing is empty.
func keyboardLayout(text string) (string, error) {
	parts := strings.Split(text, "+")
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	whole := strings.Join(parts, "+")
	if len(parts) > 3 || len(whole) > 256 || parts[0] == "" || strings.Trim(parts[0], letterBytes) != "" ||
		strings.Trim(parts[1], letterBytes+digitBytes+"_-") != "" || strings.Trim(parts[2], letterBytes+digitBytes+"_-:,") != "" {
		return "", fmt.Errorf("%q is not a keyboard as layout+variant+options", cut(text))
	}
	return whole, nil
}

func macAddress(text string) (string, error) {
	text = strings.ToLower(text)
	parts := strings.Split(text, ":")
	for _, p := range parts {
		if len(p) != 2 || strings.Trim(p, "0123456789abcdef") != "" {
			parts = nil
		}
	}
	if len(parts) != 6 {
		return "", fmt.Errorf("%q is not a hardware address", cut(text))
	}
	return text, nil
}

func ipv4(text string) (string, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return a.String(), nil
	}
	return "", fmt.Errorf("%q is not an IPv4 address", cut(text))
}

func ipv6(text string) (string, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" {
		return a.String(), nil
	}
	return "", fmt.Errorf("%q is not an IPv6 address", cut(text))
}

// maxDeviceCodes bounds devices_denied in bytes.
const maxDeviceCodes = 7 * 1024

// DeviceCodes brings codes of device interfaces (spec/admin-api.md §6.1),
// written without a space between them, into their one order.
func DeviceCodes(text string) (string, error) {
	if len(text)%7 != 0 || len(text) > maxDeviceCodes {
		return "", errors.New("codes of seven characters each are needed")
	}
	codes := make([]string, 0, len(text)/7)
	for ; text != ""; text = text[7:] {
		code := text[:7]
		if !strings.Contains("bump*", code[:1]) || strings.Trim(code[1:], "0123456789abcdef*") != "" {
			return "", fmt.Errorf("%q is not the code of a device interface", code)
		}
		codes = append(codes, code)
	}
	slices.Sort(codes)
	return strings.Join(slices.Compact(codes), ""), nil
}

func hasWord(list, word string) bool { return slices.Contains(strings.Fields(list), word) }

// parse brings a text into the type's one form.
func (t Type) parse(text string) (string, error) {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= 0x7f || c < ' ' && !(c >= '\t' && c <= '\r') {
			return "", errors.New("only printable ASCII is allowed")
		}
	}
	switch t {
	case Bool:
		switch strings.ToLower(text) {
		case "0", "no", "false", "off":
			return "False", nil
		case "1", "yes", "true", "on":
			return "True", nil
		}
		return "", fmt.Errorf("%q is not a truth value", cut(text))
	case Int:
		digits := strings.TrimPrefix(text, "-")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || len(digits) > 19 || digits[0] < '0' || digits[0] > '9' || digits[0] == '0' && text != "0" {
			return "", fmt.Errorf("%q is not a number", cut(text))
		}
		return strconv.FormatInt(n, 10), nil
	case VM:
		if text == "" {
			return "", nil
		}
		n, err := ParseName(text)
		return string(n), err
	}
	return text, nil
}
