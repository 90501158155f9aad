package service

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"cubicle/daemon/qrexec/wire"
)

// Config is a service's settings (spec/qrexec.md §13, rpc-config).
type Config struct {
	WaitForSession   bool   // the user's graphical session first
	ForceUser        string // instead of the command's user, if not empty
	SkipDescriptor   bool   // a socket service does not read its descriptor first
	ExitOnClientEOF  bool   // a socket service's call ends with the caller's input
	ExitOnServiceEOF bool   // … with the service's output
}

const maxConfig = 64 << 10 // bytes of a configuration file

// LoadConfig reads the first file of the service's full name in the folders,
// else the first of its bare name. No file is an empty configuration; keys that
// nobody knows are logged.
func LoadConfig(dirs []string, r *wire.RPC, log *slog.Logger) (Config, error) {
	for _, name := range []string{r.Service + "+" + r.Argument, r.Service} {
		if len(name) > 255 {
			continue
		}
		for _, dir := range dirs {
			path := filepath.Join(dir, name)
			fi, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil && fi.Size() > maxConfig {
				err = fmt.Errorf("%s is longer than %d bytes", path, maxConfig)
			}
			if err != nil {
				return Config{}, err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return Config{}, err
			}
			c, unknown, err := ParseConfig(string(b))
			if err != nil {
				return Config{}, fmt.Errorf("%s: %w", path, err)
			}
			for _, key := range unknown {
				log.Warn("unknown key", "file", path, "key", key)
			}
			return c, nil
		}
	}
	return Config{}, nil
}

// ParseConfig reads `key = value` lines. unknown are keys that have no meaning.
func ParseConfig(s string) (c Config, unknown []string, err error) {
	seen := make(map[string]bool)
	n := 0
	for line := range strings.Lines(s) {
		n++
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, err := parseLine(line)
		if err != nil {
			return Config{}, nil, fmt.Errorf("line %d: %w", n, err)
		}
		if seen[key] {
			return Config{}, nil, fmt.Errorf("line %d: %s is given twice", n, key)
		}
		seen[key] = true
		flag := map[string]*bool{
			"wait-for-session":        &c.WaitForSession,
			"skip-service-descriptor": &c.SkipDescriptor,
			"exit-on-client-eof":      &c.ExitOnClientEOF,
			"exit-on-service-eof":     &c.ExitOnServiceEOF,
		}[key]
		switch {
		case flag != nil:
			switch value {
			case "true", "1":
				*flag = true
			case "false", "0":
			default:
				return Config{}, nil, fmt.Errorf("line %d: %s is %q, not true or false", n, key, value)
			}
		case key == "force-user":
			if value == "" {
				return Config{}, nil, fmt.Errorf("line %d: force-user is empty", n)
			}
			c.ForceUser = value
		default:
			unknown = append(unknown, key)
		}
	}
	if c.ForceUser != "" && (c.SkipDescriptor || c.ExitOnClientEOF || c.ExitOnServiceEOF) {
		return Config{}, nil, errors.New("force-user does not go with the keys of socket services")
	}
	return c, unknown, nil
}

func parseLine(line string) (key, value string, err error) {
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimRight(key, " \t"), strings.TrimLeft(value, " \t")
	if !ok || key == "" || strings.ContainsAny(key, " \t'\"") {
		return "", "", errors.New("not key = value")
	}
	if quoted, ok := strings.CutPrefix(value, "'"); ok {
		value, rest, ok := strings.Cut(quoted, "'")
		rest = strings.TrimLeft(rest, " \t")
		if !ok || rest != "" && rest[0] != '#' {
			return "", "", errors.New("a quoted value that does not end")
		}
		return key, value, nil
	}
	value, _, _ = strings.Cut(value, "#")
	value = strings.TrimRight(value, " \t")
	if strings.ContainsAny(value, " \t'\"") {
		return "", "", errors.New("a value with blanks or quotes in it")
	}
	return key, value, nil
}
