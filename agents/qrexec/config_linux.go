package qrexec

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

// rpcConfig is a service's settings (spec/qrexec.md §13, rpc-config).
type rpcConfig struct {
	waitForSession   bool
	forceUser        string
	skipDescriptor   bool
	exitOnClientEOF  bool
	exitOnServiceEOF bool
}

const maxConfig = 64 << 10 // bytes of a configuration file

// loadConfig reads the first file of the service's full name in the folders,
// else the first of its bare name. No file is an empty configuration.
func loadConfig(dirs []string, r *wire.RPC, log *slog.Logger) (rpcConfig, error) {
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
				return rpcConfig{}, err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return rpcConfig{}, err
			}
			c, unknown, err := parseConfig(string(b))
			if err != nil {
				return rpcConfig{}, fmt.Errorf("%s: %w", path, err)
			}
			for _, key := range unknown {
				log.Warn("unknown key", "file", path, "key", key)
			}
			return c, nil
		}
	}
	return rpcConfig{}, nil
}

// parseConfig reads `key = value` lines.
func parseConfig(s string) (c rpcConfig, unknown []string, err error) {
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
			return rpcConfig{}, nil, fmt.Errorf("line %d: %w", n, err)
		}
		if seen[key] {
			return rpcConfig{}, nil, fmt.Errorf("line %d: %s is given twice", n, key)
		}
		seen[key] = true
		flag := map[string]*bool{
			"wait-for-session":        &c.waitForSession,
			"skip-service-descriptor": &c.skipDescriptor,
			"exit-on-client-eof":      &c.exitOnClientEOF,
			"exit-on-service-eof":     &c.exitOnServiceEOF,
		}[key]
		switch {
		case flag != nil:
			switch value {
			case "true", "1":
				*flag = true
			case "false", "0":
			default:
				return rpcConfig{}, nil, fmt.Errorf("line %d: %s is %q, not true or false", n, key, value)
			}
		case key == "force-user":
			if value == "" {
				return rpcConfig{}, nil, fmt.Errorf("line %d: force-user is empty", n)
			}
			c.forceUser = value
		default:
			unknown = append(unknown, key)
		}
	}
	if c.forceUser != "" && (c.skipDescriptor || c.exitOnClientEOF || c.exitOnServiceEOF) {
		return rpcConfig{}, nil, errors.New("force-user does not go with the keys of socket services")
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
