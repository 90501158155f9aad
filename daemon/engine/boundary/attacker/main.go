// Command attacker makes the attempts of package boundary from inside a qube
// and reports what came of each, one JSON object per line. Every attempt has a
// process of its own, which it may ruin or lose.
//
//	attacker all target.json
//	attacker bomb KIND
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/boundary"
)

// limit bounds one attempt.
const limit = 30 * time.Second

// attempts are all functions by the names of boundary.Attempts. A nil error
// means that the qube got what it wanted.
func attempts() map[string]func(*boundary.Target) error {
	all := make(map[string]func(*boundary.Target) error)
	for _, some := range []map[string]func(*boundary.Target) error{files, processes, sockets, network, kernel, privileges} {
		for name, f := range some {
			all[name] = f
		}
	}
	return all
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("say what to do")
	}
	if args[0] == "bomb" {
		if err := inQube(); err != nil {
			return err
		}
		return bomb(args[1])
	}
	data, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var t boundary.Target
	if err := json.Unmarshal(data, &t); err != nil {
		return err
	}
	if args[0] == "one" {
		f := attempts()[args[2]]
		if f == nil {
			return fmt.Errorf("no attempt %q", args[2])
		}
		if err := inQube(); err != nil && !isControl(args[2]) {
			return err
		}
		if err := f(&t); err != nil {
			fmt.Println("refused:", err)
			return nil
		}
		fmt.Println("done")
		return nil
	}
	if err := inQube(); err != nil {
		return err
	}
	var names []string
	for name := range attempts() {
		names = append(names, name)
	}
	sort.Strings(names)
	out := json.NewEncoder(os.Stdout)
	for _, name := range names {
		if err := out.Encode(try(name, args[1])); err != nil {
			return err
		}
	}
	return nil
}

// inQube keeps the attempts away from dom0, where they would succeed.
func inQube() error {
	line, err := os.ReadFile("/proc/1/cmdline")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(line), filepath.Join(engine.AgentDir, engine.AgentBinary)) {
		return errors.New("this is not a qube: the attempts would do harm")
	}
	return nil
}

// isControl tells whether an attempt only looks, and may be made in dom0.
func isControl(name string) bool {
	return slices.ContainsFunc(boundary.Attempts, func(a boundary.Attempt) bool { return a.Name == name && a.Control })
}

func try(name, target string) boundary.Report {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	said, err := exec.CommandContext(ctx, "/proc/self/exe", "one", target, name).CombinedOutput()
	text := strings.TrimSpace(string(said))
	if err != nil {
		// The kernel ended it, say for a call that no filter knows.
		return boundary.Report{Name: name, Detail: fmt.Sprintf("%v %.200s", err, text)}
	}
	return boundary.Report{Name: name, Done: strings.HasSuffix(text, "done"), Detail: text}
}
